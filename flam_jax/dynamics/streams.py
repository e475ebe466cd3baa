"""The two streams that inverse and forward dynamics run on.

The *context stream* carries all slots up to now, attends over factors and causally over time, and knows no action. A
*per-factor stream* carries what is known of one factor alone (its action, its next value), attends causally to its own
past and reads the context stream, never another factor's stream. So the coupling through the state is full and the
coupling through the actions is none, exactly, in any number of layers.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flam_jax.dynamics.attention import Attention, KVCache, Mlp, TemporalAttention, empty_cache, maybe_remat


class ContextStream(nn.Module):
    """Slots of all factors, each informed of all others and of the past."""

    num_blocks: int
    num_heads: int
    history: int
    dtype: DTypeLike = jnp.float32
    rematerialize: bool = False  # recompute activations for the gradient instead of keeping them

    @nn.compact
    def __call__(
        self, slots: Float[Array, "b t k d"], cache: list[KVCache] | None = None
    ) -> tuple[Float[Array, "b t k d"], list[KVCache] | None]:
        x = slots.astype(self.dtype)
        new_cache = []
        kinds = (Attention, TemporalAttention, Mlp)
        attention, temporal_attention, mlp = maybe_remat(kinds, self.rematerialize)
        for block in range(self.num_blocks):
            y = nn.LayerNorm(dtype=self.dtype)(x)
            x = x + attention(self.num_heads, self.dtype, name=f"factors_{block}")(y, y)
            y = nn.LayerNorm(dtype=self.dtype)(x).swapaxes(1, 2)
            time = temporal_attention(self.num_heads, self.history, self.dtype, name=f"time_{block}")
            y, layer_cache = time(y, None if cache is None else cache[block])
            new_cache.append(layer_cache)
            x = x + y.swapaxes(1, 2)
            x = x + mlp(self.dtype, name=f"mlp_{block}")(nn.LayerNorm(dtype=self.dtype)(x))
        return nn.LayerNorm(dtype=self.dtype)(x), None if cache is None else new_cache


class FactorStream(nn.Module):
    """One factor's own stream: a function of that factor's values and of the context stream."""

    num_blocks: int
    num_heads: int
    history: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        context: Float[Array, "b t k d"],
        cache: list[KVCache] | None = None,
    ) -> tuple[Float[Array, "b t d"], list[KVCache] | None]:
        new_cache = []
        for block in range(self.num_blocks):
            time = TemporalAttention(self.num_heads, self.history, self.dtype, name=f"time_{block}")
            y, layer_cache = time(nn.LayerNorm(dtype=self.dtype)(x), None if cache is None else cache[block])
            new_cache.append(layer_cache)
            x = x + y
            y = nn.LayerNorm(dtype=self.dtype)(x)[..., None, :]
            x = x + Attention(self.num_heads, self.dtype, name=f"context_{block}")(y, context)[..., 0, :]
            x = x + Mlp(self.dtype, name=f"mlp_{block}")(nn.LayerNorm(dtype=self.dtype)(x))
        return nn.LayerNorm(dtype=self.dtype)(x), None if cache is None else new_cache


def empty_caches(stream: Any, batch: tuple[int, ...], dim: int) -> list[KVCache]:
    """Caches before the first frame, one a block, of a stream or of a module that has one.

    Args:
      stream: has `num_blocks`, `history`, `num_heads` and `dtype`.
      batch: leading axes, that of the factors last.
      dim: size of the stream.
    """
    shape = (batch, stream.history, stream.num_heads, dim, stream.dtype)
    return [empty_cache(*shape) for _ in range(stream.num_blocks)]


def over_factors(module: type[nn.Module], in_axes: tuple[int | None, ...], out_axes: int | tuple[int, ...]):
    """`module`, written for one factor, mapped over all of them with shared parameters.

    The one place where factors are mapped: `in_axes` and `out_axes` name the factor axis of each argument and result.
    """
    return nn.vmap(
        module,
        in_axes=in_axes,  # type: ignore  # flax takes tuples too
        out_axes=out_axes,  # type: ignore
        variable_axes={"params": None},  # shared
        split_rngs={"params": False},
    )
