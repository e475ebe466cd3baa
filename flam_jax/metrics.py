"""Measures that training and evaluation share: of frames in [0, 1], and of latent actions. Pure functions."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

# A perfect prediction would score infinity, and a few such frames would hide all others in a mean: where nothing
# happens in 7 % of the frames, repeating the last one would win. Below the error that rounding to 8 bits makes (one
# twelfth of a squared level) frames cannot be told apart: 58.9 dB.
HIGHEST_PSNR = 10.0 * math.log10(12 * 255**2)
# A pixel moves when one of its channels changes by more than this between consecutive frames: 8 of 256 levels.
MOVING_THRESHOLD = 8 / 255
# A unit of the latent action is active when its posterior mean varies more than this over the data (Burda et al. 2016).
ACTIVE_VARIANCE = 0.01


def to_psnr(mean_squared_error: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Decibels of a mean squared error of values in [0, 1], at most `HIGHEST_PSNR`."""
    return -10.0 * jnp.log10(jnp.maximum(mean_squared_error, 10.0 ** (-HIGHEST_PSNR / 10.0)))


def psnr(predicted: Float[Array, "*b H W 3"], true: Float[Array, "*b H W 3"]) -> Float[Array, "*b"]:
    """Peak signal-to-noise ratio of every frame, in decibels, at most `HIGHEST_PSNR`.

    Raises:
      TypeError: the frames are whole numbers.
    """
    _expect_unit_range(predicted, true)
    return to_psnr(jnp.mean((predicted - true) ** 2, axis=(-3, -2, -1)))


def ssim(predicted: Float[Array, "*b H W 3"], true: Float[Array, "*b H W 3"]) -> Float[Array, "*b"]:
    """Structural similarity of every frame (Wang et al. 2004, as dm-pix computes it), at most 1.

    Raises:
      TypeError: the frames are whole numbers.
      ValueError: they are smaller than SSIM's window.
    """
    import dm_pix  # of no use to the models, which share this module

    _expect_unit_range(predicted, true)
    height, width = true.shape[-3:-1]
    rows, columns = _blur_matrix(height), _blur_matrix(width)

    def blur(images: Any) -> Any:
        return jnp.einsum("ph,nhwc,qw->npqc", rows, images, columns, precision="highest")

    values = dm_pix.ssim(predicted.reshape(-1, height, width, 3), true.reshape(-1, height, width, 3), filter_fn=blur)
    return jnp.asarray(values).reshape(true.shape[:-3])


def _expect_unit_range(*frames: Any) -> None:
    """Raises TypeError for frames of whole numbers, such as u8: as values in [0, 1] they would score nonsense."""
    for array in frames:
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"expected frames of floats in [0, 1], got {array.dtype}: divide them by 255")


def _blur_matrix(size: int, taps: int = 11, sigma: float = 1.5) -> np.ndarray:
    """SSIM's Gaussian window as a matrix [size - taps + 1, size]: on a CPU ten times faster than convolving."""
    if size < taps:
        raise ValueError(f"SSIM needs frames of at least {taps} pixels per side, got {size}")
    window = np.exp(-0.5 * ((np.arange(taps) - taps // 2) / sigma) ** 2)
    matrix = np.zeros((size - taps + 1, size), np.float32)
    for row in range(len(matrix)):
        matrix[row, row : row + taps] = window / window.sum()
    return matrix


def moving_pixels(frames: Float[Array, "b t H W 3"]) -> Bool[Array, "b t-1 H W"]:
    """Where a frame differs from the one before it by more than `MOVING_THRESHOLD` in any channel."""
    return jnp.any(jnp.abs(frames[:, 1:] - frames[:, :-1]) > MOVING_THRESHOLD, axis=-1)


def masked_squared_error(
    predicted: Float[Array, "*b H W 3"], true: Float[Array, "*b H W 3"], mask: Bool[Array, "*b H W"]
) -> Float[Array, "*b"]:
    """Sum of the squared error over the marked pixels, averaged over the three channels."""
    return jnp.sum(jnp.mean((predicted - true) ** 2, axis=-1) * mask, axis=(-2, -1))


def overlaps(
    true: Shaped[Array, "*b n"], found: Shaped[Array, "*b n"], classes: tuple[int, int]
) -> Float[Array, "*b i j"]:
    """How many of n pixels have label i in one segmentation and j in another, of which there are `classes`."""
    first, second = (jax.nn.one_hot(labels, count) for labels, count in zip((true, found), classes, strict=True))
    return jnp.einsum("...ni,...nj->...ij", first, second)


def adjusted_rand_index(table: Float[Array, "*b i j"]) -> Float[Array, "*b"]:
    """Agreement of two segmentations (Hubert & Arabie 1985): 1 for equal ones, 0 on average for chance.

    Args:
      table: of `overlaps`. Without the row of the background this is FG-ARI.
    """

    def pairs(counts: Array) -> Array:
        return counts * (counts - 1) / 2

    together = pairs(table).sum(axis=(-2, -1))
    first, second = (pairs(table.sum(axis=axis)).sum(axis=-1) for axis in (-1, -2))
    # By chance this share of the pairs that one segmentation has together is together in the other one too.
    chance = first * (second / jnp.maximum(pairs(table.sum(axis=(-2, -1))), 1.0))
    most = (first + second) / 2
    same = most - chance < 1e-6 * jnp.maximum(most, 1.0)  # one segment for all, in both
    return jnp.where(same, 1.0, (together - chance) / jnp.where(same, 1.0, most - chance))


def prediction_errors(
    model: Any,
    params: Any,
    features: Float[Array, "b t h w c"],
    slots: Float[Array, "b t k d"],
    attention: Float[Array, "b t k h w"],
    actions: Float[Array, "b t-1 k a"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Errors of one predicted frame with the inferred actions, and with those of another example of the batch.

    Args:
      model: a linen module, a `LatentActionModel`.
      params: its `params` collection.
      features: of at least two clips.
      slots: what the model factorizes them into.
      attention: of the slots.
      actions: means of the latent actions that it infers.

    Returns:
      Squared errors of the predicted features, summed over h, w, c and averaged over examples and frames. The second
      divided by the first, less 1, is the *shuffle gain*: 0 when the prediction ignores the actions.
    """

    def error(actions: Array) -> Array:
        variables, now = {"params": params}, slice(None, -1)
        next_slots = model.apply(variables, slots[:, now], actions, method="predict_slots")
        predicted = model.apply(variables, features[:, now], next_slots, attention[:, now], method="aggregate")
        return jnp.mean(jnp.sum((predicted - features[:, 1:]) ** 2, axis=(-3, -2, -1)))

    # Rolled by one instead of permuted: no example keeps its own action, and the number is reproducible.
    return error(actions), error(jnp.roll(actions, 1, axis=0))


def active_units(mean: Float[Array, "*b k a"]) -> Float[Array, "k a"]:
    """1 for units whose posterior mean has a variance above `ACTIVE_VARIANCE` over all examples and frames, else 0."""
    return (jnp.var(mean, axis=tuple(range(mean.ndim - 2))) > ACTIVE_VARIANCE).astype(jnp.float32)


__all__ = [
    "ACTIVE_VARIANCE",
    "HIGHEST_PSNR",
    "MOVING_THRESHOLD",
    "active_units",
    "adjusted_rand_index",
    "masked_squared_error",
    "moving_pixels",
    "overlaps",
    "prediction_errors",
    "psnr",
    "ssim",
    "to_psnr",
]
