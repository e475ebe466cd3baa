"""A factorizer without temporal attention: slots of a frame start from those of the frame before (PAPER: ablations)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flam_jax.dynamics.attention import Mlp
from flam_jax.dynamics.factorizer import Factorizer
from flam_jax.dynamics.grouping import weighted_assignment
from flam_jax.dynamics.interface import Factors
from flam_jax.dynamics.schedules import SlotAnnealing
from flam_jax.dynamics.slot_attention import SlotAttention, SlotInputs, iterate

# Frames that are compiled one after the other before the loop begins anew: a training window of that many has no loop,
# which would make its gradient take about twice as long; a long video compiles in a fraction of the time.
UNROLLED_FRAMES = 8


class RecurrentFactorizer(nn.Module):
    """Slot attention, one frame after the other.

    What is carried from frame to frame is the state of the recurrent update alone, which cannot grow. The perceptron
    and the position come last in each frame: in the carry they pile up beyond the windows of training, and a slot that
    knows its position hands an entity on to another slot on its way.

    Attributes:
      num_factors: k.
      slot_attention: one iteration.
      num_iterations: of slot attention.
      implicit_gradient: see `slot_attention.iterate`.
    """

    num_factors: int
    slot_attention: SlotAttention
    num_iterations: int = 3
    implicit_gradient: bool = True

    def setup(self):
        nn.share_scope(self, self.slot_attention)
        dim, dtype = self.slot_attention.slot_dim, self.slot_attention.dtype
        self.initial_slots = self.param("initial_slots", nn.initializers.normal(1.0), (self.num_factors, dim))
        self.mlp_norm = nn.LayerNorm(dtype=dtype)
        self.mlp = Mlp(dtype)

    def init_cache(self, batch: int) -> Float[Array, "b k d"]:
        """The state before the first frame: the learned slots."""
        initial = self.initial_slots.astype(self.slot_attention.dtype)
        return jnp.broadcast_to(initial, (batch, *initial.shape))

    def __call__(
        self,
        features: Float[Array, "b t h w c"],
        cache: Float[Array, "b k d"] | None = None,
        annealing: SlotAnnealing | None = None,
        last_features: Float[Array, "b h w c"] | None = None,
    ) -> tuple[Factors, Float[Array, "b k d"] | None]:
        """As `Factorizer`."""
        b, t, h, w, _ = features.shape
        inputs = self.slot_attention.inputs(features, last_features, annealing)
        over_frames = nn.scan(
            RecurrentFactorizer._frame,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=(1, nn.broadcast),  # type: ignore  # one for each argument
            out_axes=1,
            unroll=UNROLLED_FRAMES,
        )
        start = self.init_cache(b) if cache is None else cache
        assignment = jnp.zeros((b, self.num_factors, h * w))
        (state, _), (slots, attention) = over_frames(self, (start, assignment), inputs, annealing)
        return Factors(slots, attention.reshape(b, t, -1, h, w)), None if cache is None else state

    def _frame(self, carry: Any, inputs: SlotInputs, annealing: SlotAnnealing | None) -> Any:
        """One frame, from the state after the last one and what slots held in it."""
        start, previous_assignment = (x[:, None] for x in carry)
        frame = jax.tree.map(lambda x: x[:, None], inputs)

        def step(state: Array, _: int) -> tuple[Array, Array, Array]:
            return self.slot_attention(state, frame, annealing, previous_assignment)

        state, attention, readout = iterate(step, start, start, self.num_iterations, self.implicit_gradient)
        slots = self.slot_attention.add_positions(state + self.mlp(self.mlp_norm(state)), readout)
        assignment = weighted_assignment(attention, frame.weights)
        return (state[:, 0], assignment[:, 0]), (slots[:, 0], attention[:, 0])


def recurrent_factorizer(like: Factorizer) -> RecurrentFactorizer:
    """With the same slot attention as another factorizer."""
    return RecurrentFactorizer(like.num_factors, like.slot_attention, like.num_iterations, like.implicit_gradient)
