"""FLAM with one of its ideas taken out (PAPER: results, the ablations)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flam_jax.baselines.recurrent import recurrent_factorizer
from flam_jax.dynamics.attention import KVCache
from flam_jax.dynamics.flam import Flam, flam
from flam_jax.dynamics.inverse import ActionDistribution, gaussian
from flam_jax.dynamics.streams import ContextStream


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


def recurrent_flam(**fields: Any) -> Flam:
    """FLAM without temporal attention in the factorizer; fields as `flam`."""
    model = flam(**fields)
    return model.clone(factorizer=recurrent_factorizer(model.factorizer))


def coupled_flam(**fields: Any) -> Flam:
    """FLAM with globally coupled dynamics: inverse dynamics see all next slots, forward dynamics all actions."""
    model = flam(**fields)
    stream = model.context
    block: dict[str, Any] = dict(
        num_blocks=stream.num_blocks, num_heads=stream.num_heads, history=stream.history, dtype=stream.dtype
    )
    return model.clone(
        inverse_dynamics=CoupledInverseDynamics(action_dim=model.action_dim, **block),
        forward_dynamics=CoupledForwardDynamics(**block),
    )
