"""Transfer: is a latent action an action? It is taken out of one clip and used in another.

A rollout with the actions inferred from its own frames may look perfect because they tell the answer (leak). Actions
inferred from a *twin*, another clip in which all agents do the same in other places, cannot: what they are still
worth in this clip is what they say of the actions themselves. Whatever is blocked is blocked in both, so that a model
whose latent actions are the true effects of actions would lose nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8

from flam_jax.evaluation import metrics
from flam_jax.evaluation.rollouts import rounded, told
from flam_jax.world_model import WorldModel


@jax.jit
def _scores(
    world_model: WorldModel,
    frames: UInt8[Array, "b t H W 3"],
    context: UInt8[Array, "b s H W 3"],
    actions: Float[Array, "b steps k a"],
    true_actions: Shaped[Array, "b s *n"] | None,
) -> tuple[Shaped[Array, "b steps"], ...]:
    start = context.shape[1]
    pixels = frames.astype(jnp.float32) / 255.0
    predicted, true = world_model.rollout(context, actions, true_actions=true_actions), pixels[:, start:]
    moving = metrics.moving_pixels(pixels[:, start - 1 :])
    error = metrics.masked_squared_error(predicted, true, moving)
    return metrics.psnr(predicted, true), error, jnp.sum(moving, axis=(-2, -1))


def transfer(
    world_model: WorldModel,
    batches: Sequence[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray], int]],
    context: int,
) -> dict[str, Any]:
    """Rollouts of clips under the actions inferred from their twins.

    Args:
      world_model: the model.
      batches: records of clips, those of their twins in the same order, and how many of a batch are not filling.
      context: true frames of the clip before the rollout starts.

    Returns:
      `psnr` per step and `psnr_mean` (over frames, dB), `moving_psnr_mean` (pooled over moving pixels, mean over the
      steps, dB); and under `exchanged` the same with the actions of the twin of the next clip, which are other actions:
      what is left when an action says nothing.
    """
    found: dict[str, list[Any]] = {"own": [], "exchanged": []}
    for record, twin, count in batches:
        actions = world_model.infer_actions(twin["frames"], told(world_model, twin))[:, context - 1 :]
        before = told(world_model, record)
        before = None if before is None else before[:, :context]
        for name, given in (("own", actions), ("exchanged", jnp.roll(actions, 1, axis=0))):
            scores = _scores(world_model, record["frames"], record["frames"][:, :context], given, before)
            found[name].append([np.asarray(score)[:count] for score in scores])
    return _summary(found["own"]) | {"exchanged": _summary(found["exchanged"])}


def _summary(parts: Sequence[Sequence[np.ndarray]]) -> dict[str, Any]:
    psnr, error, count = (np.concatenate(values) for values in zip(*parts, strict=True))
    moving = metrics.to_psnr(jnp.asarray(error.sum(axis=0) / np.maximum(count.sum(axis=0), 1)))
    return {
        "psnr": rounded(psnr.mean(axis=0)),
        "psnr_mean": rounded(psnr.mean()),
        "moving_psnr_mean": rounded(np.asarray(moving).mean()),
    }


__all__ = ["transfer"]
