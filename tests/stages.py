"""Stages of a configuration with random parameters and batches, for tests of single steps."""

from typing import Any

import jax
import numpy as np

from flam_jax.config import Config
from flam_jax.training.stage import Stage
from flam_jax.training.stages import find_stage, frozen_shapes
from flam_jax.training.state import TrainState
from flam_jax.training.step import init_state


def filled(shapes: Any) -> Any:
    """Small random numbers in the shapes of parameters: compiling their initialization would take longer."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: (0.05 * rng.standard_normal(leaf.shape)).astype(leaf.dtype), shapes)


def make_stage(config: Config, name: str, dataset: Any = None) -> Stage:
    return find_stage(name)(config, dataset, filled(frozen_shapes(name, config)))


def make_batch(config: Config, stage: Any) -> dict[str, Any]:
    """Random frames of which a small part moves; and random features, for a stage that reads these."""
    training, size = config[stage.name].training, config.data.frame_size
    rng = np.random.default_rng(0)
    frames = np.broadcast_to(rng.integers(0, 256, (*size, 3), np.uint8), (training.batch_size, 1, *size, 3))
    frames = frames.repeat(training.window, axis=1)
    frames[:, :, :8, :8] = rng.integers(0, 256, (training.batch_size, training.window, 8, 8, 3), np.uint8)
    features = stage.batch_shapes(training.batch_size).get("features")
    if features is None:
        return {"frames": frames}
    return {"frames": frames, "features": rng.standard_normal(features.shape).astype(features.dtype)}


def state_shapes(config: Config, stage: Any, batch: Any) -> TrainState:
    training = config[stage.name].training
    return jax.eval_shape(
        lambda key, frozen, batch: init_state(key, frozen, batch, stage=stage, training=training),
        jax.random.key(0),
        stage.frozen,
        batch,
    )
