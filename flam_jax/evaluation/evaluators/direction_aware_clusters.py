"""Direction-aware cluster accuracy: groups of latent actions against what actions look like from above.

A step to the right is another change of the frame than a step to the left, and a step that something blocks is none.
"""

from typing import Any

import numpy as np
from jaxtyping import Int

from data_pipelines.spec import DatasetSpec
from flam_jax.evaluation.context import EvaluationContext
from flam_jax.evaluation.evaluators import clusters
from flam_jax.world_model import WorldModel

KEY = ("actions", "direction_aware_clusters")


def needs(data: DatasetSpec, model: WorldModel) -> str:
    """As for clusters; and an action that goes ahead in a known direction."""
    there = data.forward_action is not None and data.has("directions")
    return clusters.needs(data, model) or ("" if there else "no action goes ahead in a known direction")


def run(context: EvaluationContext) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Against each direction with each action, a blocked step being one more."""
    spec, record = context.spec, context.record
    directions = spec.annotations["directions"].classes
    seen = directed_actions(
        record["actions"].astype(np.int32),
        context.cells,
        record["directions"],
        forward=spec.forward_action,
        blocked=spec.num_actions,
        count=directions,
    )
    choices = (spec.num_actions + 1) * directions
    return clusters.cluster_accuracy(context.observation.action_mean, seen, context.holders, choices), {}


def directed_actions(
    true_actions: Int[np.ndarray, "b t n"],
    positions: Int[np.ndarray, "b t n 2"],
    directions: Int[np.ndarray, "b t n"],
    forward: int,
    blocked: int,
    count: int,
) -> Int[np.ndarray, "b t-1 n"]:
    """What entities do as it looks from above.

    Args:
      true_actions: that of the last frame included.
      positions: of the entities.
      directions: in which they look, 0 to `count` - 1.
      forward: the action that goes ahead.
      blocked: the number that stands for it where the entity stays where it is.
      count: of directions.

    Returns:
      Number of the action times `count`, plus the direction.
    """
    now = true_actions[:, :-1]
    stays = (now == forward) & (positions[:, 1:] == positions[:, :-1]).all(axis=-1)
    return np.where(stays, blocked, now) * count + directions[:, :-1]


__all__ = ["KEY", "directed_actions", "needs", "run"]
