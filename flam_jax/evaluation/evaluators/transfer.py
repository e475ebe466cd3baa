"""Transfer: is a latent action an action? It is taken out of one clip and used in another.

A rollout with the actions inferred from its own frames may look perfect because they tell the answer (leak). Actions
inferred from a *displaced clip*, in which all entities do the same in other places, cannot: what they are still
worth in this clip is what they say of the actions themselves. Whatever is blocked is blocked in both, so that a model
whose latent actions are the true effects of actions would lose nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8

from data_pipelines.errors import DataError
from data_pipelines.spec import DatasetSpec
from flam_jax import metrics
from flam_jax.evaluation.context import EvaluationContext
from flam_jax.evaluation.rollouts import rounded, true_actions_for
from flam_jax.world_model import WorldModel

KEY = ("actions", "transfer")


def needs(data: DatasetSpec, model: WorldModel) -> str:
    """Clips in which the same is done elsewhere, and latent actions."""
    if not model.action_dim:
        return "the model has no actions"
    return "" if data.displaced_clips else "clips with the same actions in other places cannot be had"


def run(context: EvaluationContext) -> tuple[dict[str, Any] | str, dict[str, np.ndarray]]:
    """Of the scored clips under the actions of their displaced ones."""
    batches, elsewhere = [], []
    try:
        for record, count in context.played.batches:
            clips = [{key: value[row] for key, value in record.items()} for row in range(len(record["frames"]))]
            displaced = [context.dataset.displaced(clip) for clip in clips]
            others = {key: np.stack([clip[key] for clip in displaced]) for key in displaced[0]}
            batches.append((record, others, count))
            elsewhere.append((others["positions"] != record["positions"]).any(axis=(1, 3))[:count])
    except DataError as error:  # the environment may be missing where a trained model is evaluated
        return f"not computed: {error}", {}
    values = transfer(context.world_model, batches, context.settings.context)
    return values | {"displaced": rounded(np.concatenate(elsewhere).mean())}, {}


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
    """Rollouts of clips under the actions inferred from their displaced clips.

    Args:
      world_model: the model.
      batches: records of clips, those of their displaced clips in the same order, and how many are not filling.
      context: true frames of the clip before the rollout starts.

    Returns:
      `psnr` per step and `psnr_mean` (over frames, dB), `moving_psnr_mean` (pooled over moving pixels, mean over the
      steps, dB); and under `exchanged` the same with the actions of the next clip's displaced clip, which are other
      actions: what is left when an action carries nothing.
    """
    found: dict[str, list[Any]] = {"own": [], "exchanged": []}
    for record, displaced, count in batches:
        given = true_actions_for(world_model, displaced)
        actions = world_model.infer_actions(displaced["frames"], given)[:, context - 1 :]
        before = true_actions_for(world_model, record)
        before = None if before is None else before[:, :context]
        for name, used in (("own", actions), ("exchanged", jnp.roll(actions, 1, axis=0))):
            scores = _scores(world_model, record["frames"], record["frames"][:, :context], used, before)
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


__all__ = ["KEY", "needs", "run", "transfer"]
