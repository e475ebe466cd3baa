"""Rolled-out clips for the pictures of the run report."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from flam_jax.config import Config
from flam_jax.evaluation import rollouts as rolling
from flam_jax.reports.run_report import RolloutExample
from flam_jax.world_model import WorldModel


def rollout_examples(config: Config, world_model: WorldModel, dataset: Any) -> list[RolloutExample]:
    """Rolls out the clips of the scored split that a report shows.

    Args:
      config: the run's configuration; `evaluation.num_pictures` is their number.
      world_model: the model.
      dataset: the data set.
    """
    settings = config.evaluation
    if not settings.num_pictures:
        return []
    source = dataset.split(settings.split)
    clips = rolling.choose(len(source), settings.num_pictures)
    found: list[RolloutExample] = []
    for record, count in rolling.batches(source, clips, settings.batch_size, settings.context + settings.steps):
        frames = record["frames"]
        given = rolling.told(world_model, record)
        part = rolling.roll_out(world_model, frames, jnp.asarray(dataset.blank), settings.context, given)
        predicted, masks = np.asarray(part.predicted), np.asarray(part.observation.attention)
        for i in range(count):
            found.append(RolloutExample(clips[len(found)], frames[i], predicted[i], masks[i]))
    return found


__all__ = ["rollout_examples"]
