"""LPIPS and FVD of rollouts. Their networks come from files that the user supplies; without, nothing stands in."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from flam_jax.config import Config
from flam_jax.evaluation.networks import i3d, lpips, weights
from flam_jax.evaluation.networks.frechet import frechet_distance
from flam_jax.evaluation.networks.lpips import Lpips
from flam_jax.evaluation.networks.weights import WeightsError
from flam_jax.evaluation.rollouts import NO_WEIGHTS, SOURCES, RolloutBatch

_TOGETHER = 4  # clips that go through I3D at once: at 224x224 pixels its first layers take much memory


@dataclasses.dataclass(frozen=True)
class Judges:
    """The networks, or in words why a number is not computed.

    Attributes:
      lpips: the metric, or why there is none.
      i3d: parameters of I3D, or why there is no FVD.
    """

    lpips: Lpips | str
    i3d: dict[str, Any] | str


def load_judges(config: Config) -> Judges:
    """Reads what `evaluation.weights` holds, as far as a configuration's rollouts can be judged by it.

    Raises:
      WeightsError: a file is there and cannot be used, also where its number would not be computed.
    """
    settings, size = config.evaluation, config.data.frame_size
    folder = Path(settings.weights)
    if os.path.exists(folder) and not os.path.isdir(folder):  # those of Path raise where they cannot look
        raise WeightsError(f"config.evaluation.weights = {str(folder)!r}: expected a folder")
    perceptual: Lpips | str = NO_WEIGHTS
    features: dict[str, Any] | str = NO_WEIGHTS
    backbone = settings.lpips_backbone
    parameters = _read(folder, f"lpips_{backbone}")
    if parameters is not None:
        perceptual = _reason(lpips.check_size, backbone, size, size) or Lpips(parameters, backbone)
    parameters = _read(folder, "i3d")
    if parameters is not None:
        features = _reason(i3d.check_length, settings.steps) or parameters
    return Judges(perceptual, features)


def _read(folder: Path, network: str) -> dict[str, Any] | None:
    path = folder / f"{network}.npz"
    return jax.tree.map(jnp.asarray, weights.read(path, network)) if os.path.exists(path) else None


def _reason(check: Any, *arguments: Any) -> str:
    """Why a network cannot judge; empty when it can."""
    try:
        check(*arguments)
    except ValueError as error:
        return f"not computed: {error}"
    return ""


def clip_features(
    parameters: Mapping[str, Any],
    part: RolloutBatch,
    frames: UInt8[np.ndarray, "b t H W 3"],
    blank: UInt8[np.ndarray, "H W 3"],
) -> dict[str, Float[np.ndarray, "b 400"]]:
    """I3D's features of the rolled-out frames of one batch, of the true ones (`true`) and of everything in `SOURCES`.

    Videos have 8 bits, so predictions are rounded before they are judged.

    Args:
      parameters: of I3D.
      part: the rolled-out batch.
      frames: the true clips, context included.
      blank: median image of the training split.
    """
    steps = part.predicted.shape[1]
    last = frames[:, -steps - 1][:, None]
    videos = {
        "true": frames[:, -steps:],
        "predicted": part.predicted,
        "ceiling": part.ceiling,
        "copy_last": np.repeat(last, steps, axis=1),
    }
    found = {name: np.asarray(_features(parameters, jnp.asarray(video))) for name, video in videos.items()}
    still = np.broadcast_to(blank, (1, steps, *blank.shape))  # one clip tells of all
    return found | {"median": np.repeat(np.asarray(_features(parameters, jnp.asarray(still))), len(frames), axis=0)}


@jax.jit
def _features(parameters: Mapping[str, Any], videos: UInt8[Array, "b t H W 3"]) -> Float[Array, "b 400"]:
    def of_one(video: jax.Array) -> jax.Array:
        return i3d.logits(parameters, video[None].astype(jnp.float32) / 255.0)[0]

    return jax.lax.map(of_one, videos, batch_size=min(_TOGETHER, len(videos)))


def fvd(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float] | str:
    """FVD of every source against the true clips.

    Args:
      parts: from `clip_features`, filling removed.

    Returns:
      The distance by name in `SOURCES`, or why it is not computed.
    """
    true = np.concatenate([part["true"] for part in parts])
    if len(true) < 2:
        return "not computed: FVD needs at least 2 clips"
    return {name: frechet_distance(np.concatenate([part[name] for part in parts]), true) for name in SOURCES}


__all__ = ["Judges", "clip_features", "fvd", "load_judges"]
