"""Finite scalar quantization (Mentzer et al. 2023): every feature channel is rounded to a few fixed levels.

The levels of a channel lie evenly in [-1, 1]. A code is the number of a level for every channel, so features and codes
are two names of the same thing. There may be more codes than an integer can number.

Two levels in every channel are lookup-free quantization (LFQ, Yu et al. 2023): a code is the signs of the channels.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

# Of the soft assignment to levels, in squared distances between neighbouring levels: between two levels it goes from a
# tenth to nine tenths within a quarter of their distance on either side of the middle.
TEMPERATURE = 0.1


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


def code_entropies(
    features: Float[Array, "*b c"], levels: tuple[int, ...]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Entropies of soft code assignments in nats: of one position, and of all positions together.

    A channel x with levels l_1 .. l_n, s apart, has p(j | x) = softmax_j(-((x - l_j) / s)^2 / T), T = `TEMPERATURE`.
    With channels that are independent of each other, p(code | x) is the product over channels, and

        sample = mean_b sum_c H(p_c(. | x_bc)),    batch = sum_c H(mean_b p_c(. | x_bc)).

    That costs O(c * levels), not O(levels^c). The first is exact: entropies of independent channels add up. The second
    is the largest that the entropy of the mean assignment can be: channels that say the same are not noticed.

    Args:
      features: before rounding.
      levels: number of levels per channel.

    Returns:
      The mean entropy of a position, small when features lie on levels; and the entropy of the batch, large when all
      levels of every channel are used alike. LFQ's penalty is their difference.
    """
    most = max(levels)
    flat = features.reshape(-1, len(levels)).astype(jnp.float32)
    places = (flat + 1.0) * _steps(levels, flat.shape)  # level j of a channel lies at j
    index = jnp.arange(most, dtype=jnp.float32)[None, None]
    there = jnp.asarray([[j < n for j in range(most)] for n in levels])[None]
    logits = jnp.where(there, -jnp.square(places[..., None] - index) / TEMPERATURE, -1e9)
    shares = jax.nn.softmax(logits)
    sample = -jnp.sum(shares * jax.nn.log_softmax(logits), axis=(1, 2)).mean()
    mean = shares.mean(axis=0)
    batch = -jnp.sum(mean * jnp.log(jnp.maximum(mean, 1e-12)))
    return sample, batch
