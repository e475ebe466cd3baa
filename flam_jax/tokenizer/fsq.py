"""Finite scalar quantization (Mentzer et al. 2023): every feature channel is rounded to a few fixed levels.

The levels of a channel lie evenly in [-1, 1]. A code is the number of a level for every channel, so features and codes
are two names of the same thing. There may be more codes than an integer can number.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def _steps(levels: tuple[int, ...], shape: tuple[int, ...]) -> Float[Array, "*b c"]:
    return jnp.broadcast_to(jnp.asarray([(n - 1) / 2 for n in levels], jnp.float32), shape)


def bound(x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    """Squashes unbounded encoder outputs into [-1, 1], in float32: levels must not blur in bfloat16."""
    return jnp.tanh(x.astype(jnp.float32))


def quantize(features: Float[Array, "*b c"], levels: tuple[int, ...]) -> Float[Array, "*b c"]:
    """Rounds features to the nearest levels, with the straight-through gradient.

    Args:
      features: any values; what lies outside [-1, 1] goes to the outermost level.
      levels: number of levels per channel.

    Returns:
      Features on the grid. The gradient is that of clipping to [-1, 1].
    """
    steps = _steps(levels, features.shape)
    clipped = jnp.clip(features.astype(jnp.float32), -1.0, 1.0)
    rounded = jnp.round((clipped + 1.0) * steps) / steps - 1.0
    return clipped + jax.lax.stop_gradient(rounded - clipped)


def features_to_codes(features: Float[Array, "*b c"], levels: tuple[int, ...]) -> UInt8[Array, "*b c"]:
    """Codes of the nearest grid features: the number of the level of every channel, from 0."""
    clipped = jnp.clip(features.astype(jnp.float32), -1.0, 1.0)
    return jnp.round((clipped + 1.0) * _steps(levels, clipped.shape)).astype(jnp.uint8)


def codes_to_features(codes: UInt8[Array, "*b c"], levels: tuple[int, ...]) -> Float[Array, "*b c"]:
    """Grid features of codes; the exact inverse of `features_to_codes` on the grid."""
    return codes.astype(jnp.float32) / _steps(levels, codes.shape) - 1.0
