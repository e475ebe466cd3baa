"""FLAM with one of its ideas taken out (PAPER: results, the ablations)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flam_jax.dynamics.attention import KVCache
from flam_jax.dynamics.factorizer import Bidding, Factorizer, Patches, implicit
from flam_jax.dynamics.flam import Flam
from flam_jax.dynamics.inverse import ActionDistribution, gaussian
from flam_jax.dynamics.streams import ContextStream

# Frames that are compiled one after the other before the loop begins anew: a training window of that many has no loop,
# which would make its gradient take about twice as long; a long video compiles in a fraction of the time.
UNROLLED_FRAMES = 8


class RecurrentFactorizer(Factorizer):
    """No temporal attention: the slots of a frame start from those of the frame before it.

    What goes on from frame to frame is the state of the recurrent update alone, which cannot grow. The perceptron and
    the place come last in each frame: added to what goes on they pile up beyond the windows of training, and a slot
    that knows its place hands an entity on to another slot on its way (docs/decisions/recurrent_slots.md).
    """

    def init_cache(self, batch: tuple[int, ...]) -> Float[Array, "*b k d"]:
        """The state before the first frame: the learned slots."""
        return jnp.broadcast_to(self.initial_slots.astype(self.dtype), (*batch, *self.initial_slots.shape))

    def compete(
        self, patches: Patches, bidding: Bidding, cache: Any
    ) -> tuple[Float[Array, "b t k d"], Float[Array, "b t k n"], Any]:
        """As the factorizer's, one frame after the other."""
        batch = patches.keys.shape[0]
        start = self.init_cache((batch,)) if cache is None else cache
        over_frames = nn.scan(
            RecurrentFactorizer._frame,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=(1, nn.broadcast),  # type: ignore  # one for each argument
            out_axes=1,
            unroll=UNROLLED_FRAMES,
        )
        held = jnp.zeros((batch, self.num_factors, patches.keys.shape[2]))
        (state, _), (slots, attention) = over_frames(self, (start, held), patches, bidding)
        return slots, attention, None if cache is None else state

    def _frame(self, carry: Any, patches: Patches, bidding: Bidding) -> Any:
        """One frame: from the state after the last one, and what slots held in it."""
        start, held = (x[:, None] for x in carry)
        part = jax.tree.map(lambda x: x[:, None], patches)
        state, attention, readout = start, None, None
        for iteration in range(self.num_iterations):
            if iteration == self.num_iterations - 1 and iteration > 0:
                state = implicit(state, start)
            state, attention, readout = self.bid(state, part, bidding, held)
        assert attention is not None
        slots = state + self.mlp(self.mlp_norm(state)) + self.read_last(readout)
        held = part.counted(attention)
        return (state[:, 0], held[:, 0]), (slots[:, 0], attention[:, 0])


class CoupledInverseDynamics(nn.Module):
    """All factors at once: every latent action may depend on every next slot."""

    action_dim: int
    num_blocks: int
    num_heads: int
    history: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, slots: Float[Array, "b t k d"], next_slots: Float[Array, "b t k d"], context: Float[Array, "b t k d"]
    ) -> ActionDistribution:
        """As `InverseDynamics`, for all factors."""
        pair = jnp.concatenate([slots, next_slots, next_slots - slots], axis=-1).astype(self.dtype)
        x = nn.Dense(slots.shape[-1], dtype=self.dtype)(pair) + context
        x, _ = ContextStream(self.num_blocks, self.num_heads, self.history, self.dtype, name="stream")(x)
        return gaussian(nn.Dense(2 * self.action_dim, dtype=self.dtype)(x))


class CoupledForwardDynamics(nn.Module):
    """All factors at once: every next slot may depend on every latent action."""

    num_blocks: int
    num_heads: int
    history: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        slots: Float[Array, "b t k d"],
        actions: Float[Array, "b t k a"],
        context: Float[Array, "b t k d"] | None,
        cache: list[KVCache] | None = None,
    ) -> tuple[Float[Array, "b t k d"], list[KVCache] | None]:
        """As `ForwardDynamics`, for all factors; also without a context stream, and without actions (a = 0)."""
        dim = slots.shape[-1]
        x = nn.Dense(dim, dtype=self.dtype, name="slot")(slots.astype(self.dtype))
        if context is not None:
            x = x + context
        if actions.shape[-1]:
            x = x + nn.Dense(dim, use_bias=False, dtype=self.dtype, name="action")(actions.astype(self.dtype))
        stream = ContextStream(self.num_blocks, self.num_heads, self.history, self.dtype, name="stream")
        x, cache = stream(x, cache)
        return slots + nn.Dense(dim, dtype=self.dtype, name="out")(x), cache


class RecurrentFlam(Flam):
    """FLAM without temporal attention in the factorizer."""

    factorizer_type = RecurrentFactorizer


class CoupledFlam(Flam):
    """FLAM with globally coupled dynamics: inverse dynamics see all next slots, forward dynamics all actions."""

    inverse_type = CoupledInverseDynamics
    forward_type = CoupledForwardDynamics
