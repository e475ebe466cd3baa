"""Control: does an entity follow the latent action of a move, and do the others stay as they are?

The latent action of a move is the mean of what was inferred where the entity made it, in clips of another split. It is
given to the factor that holds the entity, for a few frames; the other factors get the mean latent action of staying, or
of all frames where they hold no entity or several. The start is a true one, of unseen clips; what happens is read from
the imagined frame. A model with one factor has one handle for all: its mean over the frames in which the entity moved.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from data_pipelines.spec import DatasetSpec
from flam_jax.evaluation.context import EvaluationContext, Record
from flam_jax.evaluation.entity_pixels import background, colors, owners, to_unit, visible
from flam_jax.evaluation.evaluators.segmentation import frame_overlaps, holders_of_masks
from flam_jax.evaluation.rollouts import rounded, to_uint8
from flam_jax.world_model import WorldModel

KEY = ("control",)
FRAMES = 4  # under one action: an entity is then far enough from where it was
CLIPS = 40  # that are tried at most
# Of its largest area in the clip, for an entity to be scored; of its area at the start, for it to be still there.
VISIBLE, LEFT = 0.9, 0.25


def needs(data: DatasetSpec, model: WorldModel) -> str:
    """Latent actions, and masks, positions in pixels and visible moves of a known number of entities."""
    if model.spec.action_source != "inferred":
        return "the model infers no actions"
    masks, moves = data.annotations.get("masks"), data.annotations.get("moves")
    there = masks and masks.classes and moves and moves.classes and data.has("positions") and not data.cells
    return "" if there else "the records have no masks, moves and positions in pixels"


def run(context: EvaluationContext) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Of the scored clips.

    Returns:
      `followed`: share of entities that end nearer to where the move leads than half of its way; `followed_per_move`;
      `disturbed`: share of other entities that end farther than that from where they were, or are not drawn; `holders`:
      the factor of every entity.
    """
    spec, fit, model = context.spec, context.fitting, context.world_model
    choices, entities = spec.annotations["moves"].classes, spec.annotations["masks"].classes - 1
    record = {name: values[:CLIPS] for name, values in context.record.items()}
    seen = jnp.asarray(context.observation.attention)
    table = np.asarray(frame_overlaps(jnp.asarray(context.record["masks"]), seen, entities + 1))
    holders = holders_of_masks(table)
    latent, ways = vocabulary(fit.action_mean, fit.values, holders, choices)
    resting = np.asarray(fit.action_mean).mean(axis=(0, 1))
    for entity, holder in enumerate(holders):
        if (holders == holder).sum() == 1:
            resting[holder] = latent[entity, 0]
    last = context.settings.context - 1
    state = model.start(record[model.reads][:, : last + 1])
    low, high = (f(fit.values["positions"], axis=(0, 1)) for f in (np.min, np.max))
    half = FRAMES * np.linalg.norm(ways[1:], axis=-1).mean() / 2
    followed, disturbed = np.zeros((2, choices, 2), int)
    for entity in range(entities):
        for move in range(choices):
            actions = resting.copy()
            actions[holders[entity]] = latent[entity, move]
            given = jnp.broadcast_to(jnp.asarray(actions), (len(record["masks"]), FRAMES, *actions.shape))
            imagined = np.asarray(to_uint8(model.rollout(state, given)))[:, -1]
            start, end = places(record, imagined, last, entities)
            at = record["positions"][:, last]
            leads = np.clip(at + FRAMES * ways[move], low, high) - at
            leads[:, np.arange(entities) != entity] = 0
            # An entity that is not drawn has no place, and is near to none.
            right = np.linalg.norm(end - start - leads, axis=-1) < half
            scored = np.asarray(np.isfinite(start).all(axis=-1))
            own, others = scored[:, entity], np.delete(scored, entity, axis=1)
            followed[move] += (right[:, entity] & own).sum(), own.sum()
            disturbed[move] += (~np.delete(right, entity, axis=1) & others).sum(), others.sum()
    share = lambda counts: rounded(counts[..., 0] / np.maximum(counts[..., 1], 1))  # noqa: E731
    return {
        "followed": share(followed.sum(axis=0)),
        "followed_per_move": share(followed),
        "disturbed": share(disturbed.sum(axis=0)),
        "holders": holders.tolist(),
    }, {}


def vocabulary(
    action_mean: Float[np.ndarray, "b t k a"],
    values: Mapping[str, np.ndarray],
    holders: Int[np.ndarray, " n"],
    choices: int,
) -> tuple[Float[np.ndarray, "n m a"], Float[np.ndarray, "m 2"]]:
    """The mean latent action of every entity's moves, and the way of a move in a frame (x, y; pixels, a median).

    Args:
      action_mean: means of the latent actions.
      values: `moves` and `positions` of the same frames and of the last one.
      holders: the factor of every entity.
      choices: m.
    """
    moves = values["moves"][:, :-1].astype(int)
    ways = np.diff(values["positions"], axis=1)
    where = [[moves[:, :, entity] == move for move in range(choices)] for entity in range(len(holders))]
    latent = [
        [
            action_mean[:, :, holder][there].mean(axis=0) if there.any() else np.zeros_like(action_mean[0, 0, 0])
            for there in rows
        ]
        for rows, holder in zip(where, holders, strict=True)
    ]
    of_moves = [ways[moves == move] for move in range(choices)]
    return np.asarray(latent), np.stack([np.median(w, axis=0) if len(w) else np.zeros(2) for w in of_moves])


def places(
    record: Record, imagined: np.ndarray, last: int, entities: int
) -> tuple[Float[np.ndarray, "b n 2"], Float[np.ndarray, "b n 2"]]:
    """x and y of the entities in the last frame of the context, and in an imagined one; nan where one is not seen.

    Args:
      record: frames and masks of clips.
      imagined: u8[b H W 3].
      last: number of the last frame of the context.
      entities: n.
    """
    found = np.full((2, len(imagined), entities, 2), np.nan)
    for clip, (frames, masks, image) in enumerate(zip(record["frames"], record["masks"], imagined, strict=True)):
        true, mask = to_unit(frames), masks[last]
        ground, of_entities = background(true, masks), colors(true, masks, entities)
        owner = owners(to_unit(image), ground, of_entities, mask)
        for entity in np.flatnonzero(visible(masks, entities, VISIBLE)[last]):
            there, after = (np.argwhere(labels == entity + 1)[:, ::-1] for labels in (mask, owner))
            found[0, clip, entity] = np.median(there, axis=0)
            if len(after) >= LEFT * len(there):
                found[1, clip, entity] = np.median(after, axis=0)
    return found[0], found[1]


__all__ = ["KEY", "needs", "places", "run", "vocabulary"]
