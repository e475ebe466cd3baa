"""The stages of training by name. A further stage is a file in this folder, a line here and a section of the config."""

import importlib
from typing import Any

import jax

from flam_jax.config import Config
from flam_jax.tokenizer.discriminator import without_discriminator
from flam_jax.training.stage import StageClass

# Module and class; imported when asked for.
STAGES = {
    "tokenizer": ("flam_jax.training.stages.tokenizer", "TokenizerStage"),
    "dynamics": ("flam_jax.training.stages.dynamics", "DynamicsStage"),
}


def find_stage(name: str) -> StageClass:
    """The class of a stage, one of `STAGES`."""
    module, class_name = STAGES[name]
    return getattr(importlib.import_module(module), class_name)


def frozen_shapes(name: str, config: Config) -> dict[str, Any]:
    """Shapes of what a stage takes as `frozen`; no parameters are made."""
    shapes = {}
    for needed in find_stage(name).needs:
        stage = find_stage(needed)(config, None, {})
        key = jax.eval_shape(lambda: jax.random.key(0))
        variables = jax.eval_shape(stage.init, key, frozen_shapes(needed, config), stage.batch_shapes(1))
        shapes[needed] = without_discriminator(variables["params"])
    return shapes


__all__ = ["STAGES", "find_stage", "frozen_shapes"]
