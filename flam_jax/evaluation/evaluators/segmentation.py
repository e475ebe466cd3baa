"""Attention as a segmentation: does every entity have a slot, and does it keep it?

A pixel belongs to the slot with the largest mask at its patch, so that edges are as coarse as the patches are.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8
from scipy.optimize import linear_sum_assignment

from data_pipelines.spec import DatasetSpec
from flam_jax.evaluation.context import EvaluationContext
from flam_jax.evaluation.rollouts import rounded
from flam_jax.metrics import adjusted_rand_index, overlaps
from flam_jax.world_model import WorldModel

KEY = ("segmentation",)
LEAST_PIXELS = 4  # of an entity that counts as visible in a frame


def needs(data: DatasetSpec, model: WorldModel) -> str:
    """Masks of a known number of entities."""
    del model
    masks = data.annotations.get("masks")
    return "" if masks and masks.classes else "the records have no masks of a known number of entities"


def run(context: EvaluationContext) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Of the true frames of the scored clips."""
    masks = context.record["masks"]
    table = frame_overlaps(
        jnp.asarray(masks), jnp.asarray(context.observation.attention), context.spec.annotations["masks"].classes
    )
    return segmentation(np.asarray(table)), {}


@functools.partial(jax.jit, static_argnames="classes")
def frame_overlaps(
    masks: UInt8[Array, "b t H W"], attention: Float[Array, "b t k h w"], classes: int
) -> Float[Array, "b t i k"]:
    """Pixels of every frame that show entity i (0: none) and belong to slot k."""

    def of_one(clip: tuple[Array, Array]) -> Array:
        shown, weights = clip
        owner = jnp.argmax(weights, axis=1)
        owner = owner.repeat(shown.shape[1] // owner.shape[1], axis=1).repeat(shown.shape[2] // owner.shape[2], axis=2)
        flat = (labels.reshape(len(labels), -1) for labels in (shown, owner))
        return overlaps(*flat, classes=(classes, weights.shape[1]))

    return jax.lax.map(of_one, (masks, attention))


def segmentation(table: Float[np.ndarray, "b t i k"]) -> dict[str, Any]:
    """Scores of clips whose entities and slots overlap as `frame_overlaps` says.

    Returns:
      `fg_ari` and `ari`: adjusted Rand index of all pixels of a clip that show an entity, and of all pixels; `miou`:
      intersection over union of entities and slots, matched one to one over a clip; means over clips, the last over
      entities first. `switches`: how often in 100 frames the slot that overlaps an entity best (by intersection over
      union) is another than in the frame before, where the entity is visible in both.
    """
    clips = jnp.asarray(table.sum(axis=1))
    return {
        "fg_ari": rounded(np.asarray(adjusted_rand_index(clips[:, 1:])).mean()),
        "ari": rounded(np.asarray(adjusted_rand_index(clips)).mean()),
        "miou": rounded(np.mean([_matched(clip) for clip in np.asarray(clips)])),
        "switches": rounded(100 * _share_of_switches(table)),
    }


def holders_of_masks(table: Float[np.ndarray, "b t i k"]) -> Int[np.ndarray, " n"]:
    """For every entity the slot that overlaps it best over all clips (intersection over union)."""
    whole = table.sum(axis=(0, 1))
    return (whole / np.maximum(_union(whole), 1))[1:].argmax(axis=-1)


def _union(table: Float[np.ndarray, "*b i k"]) -> Float[np.ndarray, "*b i k"]:
    """Pixels of entity i or slot k."""
    return table.sum(axis=-1, keepdims=True) + table.sum(axis=-2, keepdims=True) - table


def _matched(table: Float[np.ndarray, "i k"]) -> float:
    """Mean over the entities that the clip shows; an entity without a slot counts 0."""
    shares = (table / np.maximum(_union(table), 1))[1:][table[1:].sum(axis=1) > 0]
    entities, slots = linear_sum_assignment(-shares)
    return float(shares[entities, slots].sum() / max(len(shares), 1))


def _share_of_switches(table: Float[np.ndarray, "b t i k"]) -> float:
    holder = (table / np.maximum(_union(table), 1)).argmax(axis=-1)[:, :, 1:]
    visible = (table.sum(axis=-1) >= LEAST_PIXELS)[:, :, 1:]
    both = visible[:, 1:] & visible[:, :-1]
    return float(((holder[:, 1:] != holder[:, :-1]) & both).sum() / max(both.sum(), 1))


__all__ = ["KEY", "frame_overlaps", "holders_of_masks", "needs", "run", "segmentation"]
