"""Rollouts, entity by entity: is each still drawn where it is, and is it drawn once?

PSNR hides what is counted here: a small entity that dissolves costs few pixels.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from data_pipelines.spec import DatasetSpec
from flam_jax.evaluation.context import EvaluationContext
from flam_jax.evaluation.entity_pixels import background, colors, owners, to_unit, visible
from flam_jax.evaluation.rollouts import rounded
from flam_jax.world_model import WorldModel

KEY = ("entities",)
# Of an entity's largest area in the clip; with less of it to be seen it is covered by others, and not scored.
VISIBLE = 0.5
# Of the pixels that show an entity at least so many are drawn; of its area at most so many show it elsewhere.
DRAWN, DOUBLED = 0.5, 0.5
# Squared distance of colors in [0, 1]; pixels nearer to the background than that do not tell whether it is drawn.
CONTRAST = 0.01


def needs(data: DatasetSpec, model: WorldModel) -> str:
    """Masks of a known number of entities."""
    del model
    masks = data.annotations.get("masks")
    return "" if masks and masks.classes else "the records have no masks of a known number of entities"


def run(context: EvaluationContext) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Of the scored clips, rolled out: shares of the visible entities at every step; `lost` is either of the two."""
    entities = context.spec.annotations["masks"].classes - 1
    predicted = np.concatenate([part.predicted for part in context.played.parts])
    clips = zip(context.record["frames"], context.record["masks"], predicted, strict=True)
    found = [entities_of_rollout(*clip, entities) for clip in clips]
    seen, dissolved, doubled = (np.stack(values) for values in zip(*found, strict=True))
    count = np.maximum(seen.sum(axis=(0, 2)), 1)
    share = lambda kind: rounded((kind & seen).sum(axis=(0, 2)) / count)  # noqa: E731
    values = {"dissolved": share(dissolved), "doubled": share(doubled), "lost": share(dissolved | doubled)}
    return {**values, "visible": int(seen.sum())}, {}


def entities_of_rollout(
    frames: UInt8[np.ndarray, "t H W 3"],
    masks: UInt8[np.ndarray, "t H W"],
    imagined: UInt8[np.ndarray, "steps H W 3"],
    entities: int,
) -> tuple[Bool[np.ndarray, "steps n"], Bool[np.ndarray, "steps n"], Bool[np.ndarray, "steps n"]]:
    """What becomes of the entities of a clip in its rollout.

    A pixel of an entity is drawn where the imagined color is nearer to the true one than to the background.

    Args:
      frames: true ones, those of the context first.
      masks: the entity that a pixel shows, from 1; 0: none.
      imagined: what follows the context.
      entities: n.

    Returns:
      For every step and entity whether it is visible; whether it is dissolved: less than `DRAWN` of it is drawn; and
      whether it is doubled: its color covers more than `DOUBLED` of its area where there is background.
    """
    true, guess, steps = to_unit(frames), to_unit(imagined), len(imagined)
    ground, of_entities = background(true, masks), colors(true, masks, entities)
    dissolved, doubled = np.zeros((2, steps, entities), bool)
    for step, (frame, mask, image) in enumerate(zip(true[-steps:], masks[-steps:], guess, strict=True)):
        drawn = np.square(image - frame).sum(axis=-1) < np.square(image - ground).sum(axis=-1)
        told = np.square(frame - ground).sum(axis=-1) > CONTRAST
        owner = owners(image, ground, of_entities, mask)
        for number in range(1, entities + 1):
            own = mask == number
            dissolved[step, number - 1] = drawn[own & told].sum() < DRAWN * (own & told).sum()
            doubled[step, number - 1] = ((owner == number) & (mask == 0)).sum() > DOUBLED * own.sum()
    return visible(masks, entities, VISIBLE)[-steps:], dissolved, doubled


__all__ = ["KEY", "entities_of_rollout", "needs", "run"]
