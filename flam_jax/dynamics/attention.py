"""The attention that factorizer, inverse and forward dynamics and aggregator share.

One block serves every axis: callers move the axis that attends (patches, factors or time) to the second last place.
Temporal attention runs in parallel over a window or frame by frame on a cache; both are the same code and give the same
numbers.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float


@flax.struct.dataclass
class KVCache:
    """Keys and values of the last `n` frames of one temporal attention, oldest first."""

    keys: Float[Array, "*b n heads head_dim"]
    values: Float[Array, "*b n heads head_dim"]
    valid: Bool[Array, "*b n"]


def empty_cache(batch: tuple[int, ...], history: int, num_heads: int, model_dim: int, dtype: DTypeLike) -> KVCache:
    """A cache before the first frame. It holds `history - 1` frames: the newest comes with the call."""
    shape = (*batch, history - 1, num_heads, model_dim // num_heads)
    return KVCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros(shape[:-2], bool))


def maybe_remat(kinds: tuple[type[nn.Module], ...], wanted: bool) -> tuple[Any, ...]:
    """Module classes whose activations, where that is wanted, are recomputed for the gradient instead of kept.

    Give the instances names: a class of another kind has automatic names of its own.
    """
    return tuple(nn.remat(kind) for kind in kinds) if wanted else kinds


class Attention(nn.Module):
    """Multi-head attention of queries to a context."""

    num_heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b q d"], context: Float[Array, "*b n d"]) -> Float[Array, "*b q d"]:
        dim = x.shape[-1]
        heads = (self.num_heads, dim // self.num_heads)
        q = nn.DenseGeneral(heads, dtype=self.dtype, name="query")(x)
        k = nn.DenseGeneral(heads, dtype=self.dtype, name="key")(context)
        v = nn.DenseGeneral(heads, dtype=self.dtype, name="value")(context)
        return nn.DenseGeneral(dim, axis=(-2, -1), dtype=self.dtype, name="out")(_attend(q, k, v, None))


class TemporalAttention(nn.Module):
    """Causal self-attention over the last `history` frames, with a learned bias per head and age of a frame.

    Ages, not absolute times, are encoded, so a rollout may go on for ever.
    """

    num_heads: int
    history: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b t d"], cache: KVCache | None = None
    ) -> tuple[Float[Array, "*b t d"], KVCache | None]:
        dim, frames = x.shape[-1], x.shape[-2]
        heads = (self.num_heads, dim // self.num_heads)
        q = nn.DenseGeneral(heads, dtype=self.dtype, name="query")(x)
        k = nn.DenseGeneral(heads, dtype=self.dtype, name="key")(x)
        v = nn.DenseGeneral(heads, dtype=self.dtype, name="value")(x)
        bias_by_age = self.param("age_bias", nn.initializers.zeros, (self.num_heads, self.history))
        valid = jnp.ones(x.shape[:-1], bool)
        past = 0
        if cache is not None:
            past = cache.keys.shape[-3]
            k = jnp.concatenate([cache.keys, k], axis=-3)
            v = jnp.concatenate([cache.values, v], axis=-3)
            valid = jnp.concatenate([cache.valid, valid], axis=-1)
        age = past + jnp.arange(frames)[:, None] - jnp.arange(past + frames)[None, :]
        seen = (age >= 0) & (age < self.history)
        bias = bias_by_age[:, jnp.clip(age, 0, self.history - 1)]
        mask = valid[..., None, None, :]
        mask &= jnp.broadcast_to(seen, (*mask.shape[:-2], *seen.shape))
        y = _attend(q, k, v, jnp.where(mask, bias, -1e30))
        if cache is not None:
            cache = KVCache(k[..., frames:, :, :], v[..., frames:, :, :], valid[..., frames:])
        return nn.DenseGeneral(dim, axis=(-2, -1), dtype=self.dtype, name="out")(y), cache


def _attend(
    q: Float[Array, "*b q heads head_dim"],
    k: Float[Array, "*b n heads head_dim"],
    v: Float[Array, "*b n heads head_dim"],
    bias: Float[Array, "*#b heads q n"] | None,
) -> Float[Array, "*b q heads head_dim"]:
    """Softmax attention, the softmax in float32."""
    batch = q.shape[:-3]
    flat = lambda y: y.reshape(-1, *y.shape[-3:])  # noqa: E731
    if bias is not None:
        bias = flat(jnp.broadcast_to(bias, (*batch, *bias.shape[-3:]))).astype(q.dtype)
    return jax.nn.dot_product_attention(flat(q), flat(k), flat(v), bias=bias).reshape(q.shape)


class Mlp(nn.Module):
    """Two layers, four times as wide inside."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        y = nn.gelu(nn.Dense(4 * x.shape[-1], dtype=self.dtype)(x))
        return nn.Dense(x.shape[-1], dtype=self.dtype)(y)
