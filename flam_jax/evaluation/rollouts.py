"""The paper's prediction protocol (PAPER: protocol): actions inferred from the true frames, then frames imagined.

Beside every number stand what bounds it: the tokenizer's reconstruction (ceiling), the last context frame repeated and
the median image of the training split (floors: a model that erases every mover beats the first, not the second).
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Shaped, UInt8

from flam_jax import metrics
from flam_jax.evaluation.networks.lpips import Lpips
from flam_jax.world_model import Observation, Shown, WorldModel

# What is scored, in the order of the array axis "source".
SOURCES = ("predicted", "ceiling", "copy_last", "median")
# What stands for a number whose network the user has not supplied.
NO_WEIGHTS = "not computed: no weights"


@struct.dataclass
class RolloutBatch:
    """One batch of rolled-out clips. No array types here: jax builds structs with placeholders.

    Attributes:
      predicted: imagined frames `u8[b steps H W 3]`, rounded for pictures and cells; scores are taken before rounding.
      ceiling: reconstructed true frames, same type and shape.
      psnr: `f32[source b steps]` in decibels.
      ssim: `f32[source b steps]`.
      moving_error: `f32[source b steps]`, squared error summed over the moving pixels.
      moving_count: `i32[b steps]`, how many pixels move.
      feature_error: `f32[2 b steps]`, mean squared error of the features that are imagined, and of the last ones of
        the context repeated.
      observation: what the model sees in all true frames of the protocol.
      lpips: `f32[source b steps]`; None without the metric's weights.
    """

    predicted: Any
    ceiling: Any
    psnr: Any
    ssim: Any
    moving_error: Any
    moving_count: Any
    feature_error: Any
    observation: Observation
    lpips: Any = None


@functools.partial(jax.jit, static_argnames="context")
def roll_out(
    world_model: WorldModel,
    frames: UInt8[Array, "b t H W 3"],
    shown: Shown,
    median: UInt8[Array, "H W 3"],
    context: int,
    true_actions: Shaped[Array, "b t *n"] | None = None,
    lpips: Lpips | None = None,
) -> RolloutBatch:
    """Runs the protocol on one batch of true clips.

    Args:
      world_model: the model.
      frames: context and the frames to predict after it.
      shown: what the model is shown of these: themselves, or their features where it reads features.
      median: median frame of the training split.
      context: number of true frames that the model starts from.
      true_actions: taken in the frames, for a model that needs them.
      lpips: the metric, where its weights are at hand.

    Returns:
      Scores of the `t - context` steps, and what they were computed from.
    """
    observation = world_model.observe(shown, true_actions)
    actions = observation.action_mean[:, context - 1 :]
    before = None if true_actions is None else true_actions[:, :context]
    imagined = world_model.rollout(shown[:, :context], actions, true_actions=before, decode=False).features
    predicted = world_model.decode(imagined)
    last, following = jnp.split(observation.features[:, context - 1 :], [1], axis=1)
    ceiling = world_model.decode(following)
    pixels = frames.astype(jnp.float32) / 255.0
    true = pixels[:, context:]
    copied = jnp.broadcast_to(pixels[:, context - 1 : context], true.shape)
    medians = jnp.broadcast_to(median.astype(jnp.float32) / 255.0, true.shape)
    moving = metrics.moving_pixels(pixels[:, context - 1 :])
    sources = (predicted, ceiling, copied, medians)
    errors = [jnp.square(guess - following).mean(axis=(-3, -2, -1)) for guess in (imagined, last)]
    return RolloutBatch(
        predicted=to_uint8(predicted),
        ceiling=to_uint8(ceiling),
        psnr=jnp.stack([metrics.psnr(source, true) for source in sources]),
        ssim=jnp.stack([metrics.ssim(source, true) for source in sources]),
        moving_error=jnp.stack([metrics.masked_squared_error(source, true, moving) for source in sources]),
        moving_count=jnp.sum(moving, axis=(-2, -1)),
        feature_error=jnp.stack(errors),
        observation=observation,
        lpips=None if lpips is None else jnp.stack([lpips(source, true) for source in sources]),
    )


def true_actions_for(world_model: WorldModel, record: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The true actions of a batch of records for a model that is given them; None for one that infers its own."""
    return record["actions"].astype(np.int32) if world_model.spec.action_source == "given" else None


def to_uint8(frames: Float[Array, "*b H W 3"]) -> UInt8[Array, "*b H W 3"]:
    """Frames in [0, 1] to 0..255, rounded to the nearest level."""
    return jnp.round(jnp.clip(frames, 0.0, 1.0) * 255.0).astype(jnp.uint8)


def choose(available: int, wanted: int) -> list[int]:
    """Numbers of at most `wanted` clips, evenly spaced over the split: neighbours come from the same episode."""
    return [int(i) for i in np.unique(np.linspace(0, available - 1, min(wanted, available)).round())]


def batches(source: Any, clips: Sequence[int], size: int, length: int) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """Batches of whole clips, all of one size so that nothing is compiled twice.

    Args:
      source: random-access split of records.
      clips: numbers of the records.
      size: clips per batch; the last batch repeats its last clip to fill up.
      length: number of frames taken from the start of each clip.

    Yields:
      Stacked records (the fields that have one entry per frame), and how many of them are not filling.

    Raises:
      ValueError: the clips are shorter than `length`.
    """
    for first in range(0, len(clips), size):
        chosen = list(clips[first : first + size])
        records = [source[number] for number in chosen + [chosen[-1]] * (size - len(chosen))]
        whole = len(records[0]["frames"])
        if length > whole:
            raise ValueError(f"clips of {length} frames asked for, the records have {whole}")
        per_frame = [key for key, value in records[0].items() if np.ndim(value) and len(value) == whole]
        yield {key: np.stack([record[key][:length] for record in records]) for key in per_frame}, len(chosen)


def summarize(
    parts: Sequence[RolloutBatch], fvd: Mapping[str, float] | str = NO_WEIGHTS, no_lpips: str = NO_WEIGHTS
) -> dict[str, Any]:
    """The `rollout` part of `evaluation.json`: every frame's score averaged over clips, per step and over all steps.

    Args:
      parts: batches with numpy leaves, filling removed.
      fvd: FVD by source, or why there is none.
      no_lpips: what stands for LPIPS where the batches have none.
    """
    frame_psnr = np.concatenate([part.psnr for part in parts], axis=1)
    psnr, squared = frame_psnr.mean(axis=1), (10 ** (-frame_psnr / 10)).mean(axis=1)
    ssim = np.concatenate([part.ssim for part in parts], axis=1).mean(axis=1)
    error = np.concatenate([part.moving_error for part in parts], axis=1).sum(axis=1)
    count = np.concatenate([part.moving_count for part in parts], axis=0).sum(axis=0)
    scored = parts[0].lpips is not None
    lpips = np.concatenate([part.lpips for part in parts], axis=1).mean(axis=1) if scored else None
    result: dict[str, Any] = {}
    for row, name in enumerate(SOURCES):
        prefix = "" if name == "predicted" else f"{name}_"
        result[f"{prefix}psnr"] = rounded(psnr[row])
        result[f"{prefix}psnr_mean"] = rounded(psnr[row].mean())
        # Pooled over clips: no frame counts for more than its error.
        result[f"{prefix}pooled_psnr"] = rounded(-10 * np.log10(squared[row]))
        result[f"{prefix}ssim"] = rounded(ssim[row])
        result[f"{prefix}ssim_mean"] = rounded(ssim[row].mean())
        # Pooled too: a frame in which hardly anything moves says little.
        moving = np.asarray(metrics.to_psnr(jnp.asarray(error[row] / np.maximum(count, 1))))
        result[f"{prefix}moving_psnr"] = rounded(moving)
        result[f"{prefix}moving_psnr_mean"] = rounded(moving.mean())
        result[f"{prefix}lpips"] = no_lpips if lpips is None else rounded(lpips[row])
        result[f"{prefix}lpips_mean"] = no_lpips if lpips is None else rounded(lpips[row].mean())
        result[f"{prefix}fvd"] = fvd if isinstance(fvd, str) else rounded(fvd[name])
    # In the space in which the model predicts, whatever its decoder makes of it.
    feature_error = np.concatenate([part.feature_error for part in parts], axis=1).mean(axis=1)
    for prefix, values in zip(("", "copy_last_"), feature_error, strict=True):
        result[f"{prefix}feature_error"] = rounded(values, 6)
        result[f"{prefix}feature_error_mean"] = rounded(values.mean(), 6)
    result["clips"] = sum(part.psnr.shape[1] for part in parts)
    return result


def rounded(values: Any, digits: int = 4) -> Any:
    """Numbers for JSON: floats rounded, arrays as nested lists."""
    return np.round(np.asarray(values, np.float64), digits).tolist()


__all__ = [
    "NO_WEIGHTS",
    "SOURCES",
    "RolloutBatch",
    "batches",
    "choose",
    "roll_out",
    "rounded",
    "summarize",
    "to_uint8",
    "true_actions_for",
]
