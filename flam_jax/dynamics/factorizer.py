"""The factorizer: features of frames -> K slots per frame (PAPER: factorizer).

Learned slots compete for the patches of a frame by iterated slot attention; in every iteration each slot also attends
causally to its own past values, which binds it to one entity over time.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from flam_jax.dynamics.attention import Mlp, TemporalAttention, empty_cache
from flam_jax.dynamics.interface import Factors
from flam_jax.dynamics.schedules import SlotAnnealing
from flam_jax.dynamics.slot_attention import SlotAttention, iterate


class Factorizer(nn.Module):
    """Iterated slot attention with causal temporal attention, over all frames at once.

    Attributes:
      num_factors: k.
      slot_attention: one iteration.
      num_iterations: of slot attention.
      num_heads: of temporal attention.
      history: frames that temporal attention sees, the current one included.
      implicit_gradient: see `slot_attention.iterate`.
    """

    num_factors: int
    slot_attention: SlotAttention
    num_iterations: int = 3
    num_heads: int = 8
    history: int = 5
    implicit_gradient: bool = True

    def setup(self):
        nn.share_scope(self, self.slot_attention)
        dim, dtype = self.slot_attention.slot_dim, self.slot_attention.dtype
        self.initial_slots = self.param("initial_slots", nn.initializers.normal(1.0), (self.num_factors, dim))
        self.time_norm = nn.LayerNorm(dtype=dtype)
        self.time = TemporalAttention(self.num_heads, self.history, dtype)
        self.mlp_norm = nn.LayerNorm(dtype=dtype)
        self.mlp = Mlp(dtype)

    def init_cache(self, batch: int) -> Any:
        """Before the first frame: one cache per iteration."""
        dim, dtype = self.slot_attention.slot_dim, self.slot_attention.dtype
        shape = (batch, self.num_factors)
        return [empty_cache(shape, self.history, self.num_heads, dim, dtype) for _ in range(self.num_iterations)]

    def __call__(
        self,
        features: Float[Array, "b t h w c"],
        cache: Any = None,
        annealing: SlotAnnealing | None = None,
        last_features: Float[Array, "b h w c"] | None = None,
    ) -> tuple[Factors, Any]:
        """All frames at once; with `cache`, the frames that follow those in the cache.

        Args:
          features: of the frames.
          cache: from `init_cache` or the last call.
          annealing: of training; by default what inference uses.
          last_features: of the frame before these; by default nothing changed at the first of these.

        Returns:
          Slots with their attention, and the new cache.
        """
        b, t, h, w, _ = features.shape
        inputs = self.slot_attention.inputs(features, last_features, annealing)
        initial = self.initial_slots.astype(inputs.keys.dtype)
        new_cache = []

        def step(slots: Array, iteration: int) -> tuple[Array, Array, Array]:
            slots, attention, readout = self.slot_attention(slots, inputs, annealing)
            past, layer_cache = self.time(
                self.time_norm(slots).swapaxes(1, 2), None if cache is None else cache[iteration]
            )
            new_cache.append(layer_cache)
            slots = slots + past.swapaxes(1, 2)
            return slots + self.mlp(self.mlp_norm(slots)), attention, readout

        slots = jnp.broadcast_to(initial, (b, t, *initial.shape))
        slots, attention, readout = iterate(step, slots, initial, self.num_iterations, self.implicit_gradient)
        slots = self.slot_attention.add_positions(slots, readout)
        return Factors(slots, attention.reshape(b, t, -1, h, w)), None if cache is None else new_cache
