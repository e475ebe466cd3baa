"""The image loss of the tokenizer, made so that small moving things count, and the figures that judge it."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from flam_jax.metrics import masked_squared_error, moving_pixels, psnr, to_psnr
from flam_jax.tokenizer import fsq
from flam_jax.tokenizer.patches import count_equal, hashes, to_patches
from flam_jax.tokenizer.tokenizer import TokenizerOutput

# From two batches of frames in [0, 1] to one number a frame.
Distance = Callable[[Float[Array, "b t H W 3"], Float[Array, "b t H W 3"]], Float[Array, "b t"]]

# A pixel changes when its brightest and darkest value within the window differ by more than this (of a range of 1). It
# is less than `metrics.MOVING_THRESHOLD`, by which motion is measured: faint changes count in the loss, too.
CHANGE_THRESHOLD = 0.02


def changing_pixels(frames: Float[Array, "b t H W 3"]) -> Float[Array, "b 1 H W 1"]:
    """1 where a pixel changes within the window, 0 where it stays."""
    span = (frames.max(axis=1, keepdims=True) - frames.min(axis=1, keepdims=True)).max(axis=-1, keepdims=True)
    return (span > CHANGE_THRESHOLD).astype(frames.dtype)


def image_loss(
    reconstruction: Float[Array, "b t H W 3"],
    frames: Float[Array, "b t H W 3"],
    *,
    change_weight: float,
    lpips: Distance | None = None,
    lpips_weight: float = 0.0,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Weighted reconstruction loss: the absolute error and ten times the squared error, two terms of one size.

    Plain squared error is nearly satisfied by the background, which is most of the pixels; everything that acts is in
    the rest. Pixels that change within the window therefore weigh `1 + change_weight` times as much.

    Args:
      reconstruction: of the frames.
      frames: windows of consecutive frames in [0, 1].
      change_weight: extra weight of pixels that change.
      lpips: how different frames look (PAPER: the image loss has such a term); None leaves it out.
      lpips_weight: its weight.

    Returns:
      The loss and its parts.
    """
    error = reconstruction - frames
    weight = 1.0 + change_weight * changing_pixels(frames)
    weight = weight / weight.mean()
    l1 = jnp.mean(weight * jnp.abs(error))
    l2 = 10.0 * jnp.mean(weight * jnp.square(error))
    loss, metrics = l1 + l2, {"l1": l1, "l2": l2}
    if lpips is not None and lpips_weight:
        metrics["lpips"] = lpips(reconstruction, frames).mean()
        loss += lpips_weight * metrics["lpips"]
    return loss, metrics


def tokenizer_loss(
    output: TokenizerOutput,
    frames: Float[Array, "b t H W 3"],
    *,
    change_weight: float,
    consistency_weight: float,
    lpips: Distance | None = None,
    lpips_weight: float = 0.0,
    entropy_weight: float = 0.0,
    levels: tuple[int, ...] = (),
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """`image_loss`, and what the features must fulfil.

    Args:
      output: of the tokenizer on `frames`.
      frames: windows of consecutive frames in [0, 1].
      change_weight, lpips, lpips_weight: of `image_loss`.
      consistency_weight: weight of the squared change of the unrounded features where a patch's pixels do not change.
      entropy_weight: weight of the entropy of a position's codes less that of the batch (`fsq.code_entropies`).
      levels: of the quantization, for the entropies.

    Returns:
      The loss and its parts.
    """
    loss, metrics = image_loss(
        output.reconstruction, frames, change_weight=change_weight, lpips=lpips, lpips_weight=lpips_weight
    )
    if consistency_weight and frames.shape[1] > 1:
        still = still_patches(frames, output.features.shape[-2])[..., None]
        change = jnp.square(jnp.diff(output.continuous, axis=1))
        consistency = jnp.sum(change * still) / (jnp.sum(still) * change.shape[-1] + 1.0)
        loss += consistency_weight * consistency
        metrics["consistency"] = consistency
    if entropy_weight:
        metrics["sample_entropy"], metrics["batch_entropy"] = fsq.code_entropies(output.continuous, levels)
        loss += entropy_weight * (metrics["sample_entropy"] - metrics["batch_entropy"])
    return loss, metrics


def still_patches(frames: Float[Array, "b t H W 3"], grid_width: int) -> Float[Array, "b t-1 h w"]:
    """1 where no pixel of a patch changes from a frame to the next."""
    change = jnp.abs(jnp.diff(frames, axis=1))
    return (to_patches(change, frames.shape[-2] // grid_width).max(axis=-1) <= CHANGE_THRESHOLD).astype(frames.dtype)


def tokenizer_metrics(
    output: TokenizerOutput, frames: Float[Array, "b t H W 3"], levels: tuple[int, ...]
) -> dict[str, Float[Array, ""]]:
    """Figures that tell whether the tokenizer is fit for the dynamics.

    Returns:
      Of features that have no codes, with `levels` empty, the first two alone.
      psnr: mean over frames, dB. psnr_moving: the same over the pixels that have moved since the frame before.
      codes_used: number of different codes in the batch. code_perplexity. code_jitter: share of the patches without any
      changed pixel whose code changes from a frame to the next; the dynamics would have to predict that noise.
    """
    reconstruction = output.reconstruction.clip(0.0, 1.0)
    moving = moving_pixels(frames)
    moving_error = masked_squared_error(reconstruction[:, 1:], frames[:, 1:], moving).sum()
    metrics = {
        "psnr": psnr(reconstruction, frames).mean(),
        "psnr_moving": to_psnr(moving_error / jnp.maximum(moving.sum(), 1)),
    }
    if not levels:
        return metrics
    codes = fsq.features_to_codes(output.features, levels)
    alike = count_equal(hashes(codes).reshape(-1))
    metrics["codes_used"] = jnp.sum(1.0 / alike)
    metrics["code_perplexity"] = jnp.exp(jnp.mean(jnp.log(alike.size / alike)))
    if frames.shape[1] > 1:
        still = still_patches(frames, codes.shape[-2])
        changed = (codes[:, 1:] != codes[:, :-1]).any(axis=-1).astype(jnp.float32)
        metrics["code_jitter"] = jnp.sum(changed * still) / jnp.maximum(jnp.sum(still), 1.0)
    return metrics
