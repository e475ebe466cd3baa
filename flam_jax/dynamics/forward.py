"""Forward dynamics: ŝ_{t+1}^i = FDM(s_t^{1:K}, a_t^i) (PAPER: FDM)."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flam_jax.dynamics.attention import KVCache
from flam_jax.dynamics.streams import FactorStream


class ForwardDynamics(nn.Module):
    """One factor's forward dynamics; `over_factors` maps it."""

    num_blocks: int
    num_heads: int
    history: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        slots: Float[Array, "b t d"],
        actions: Float[Array, "b t a"],
        context: Float[Array, "b t k d"],
        cache: list[KVCache] | None = None,
    ) -> tuple[Float[Array, "b t d"], list[KVCache] | None]:
        """Args:
          slots: s_t^i of one factor.
          actions: a_t^i of the same factor.
          context: context stream at t.
          cache: of the factor's stream, for frame-by-frame inference.

        Returns:
          ŝ_{t+1}^i, and the new cache.
        """
        dim = slots.shape[-1]
        x = nn.Dense(dim, dtype=self.dtype, name="slot")(slots.astype(self.dtype))
        x = x + nn.Dense(dim, use_bias=False, dtype=self.dtype, name="action")(actions.astype(self.dtype))
        stream = FactorStream(self.num_blocks, self.num_heads, self.history, self.dtype, name="stream")
        x, cache = stream(x, context, cache)
        return slots + nn.Dense(dim, dtype=self.dtype, name="out")(x), cache
