"""The dynamics models by name: one line each. A new one is a file with a function that builds it, and a line here.

Light to import: functions are named, not imported.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Model:
    """What must be known of a model before it is built.

    Attributes:
      function: `module:function`, from plain fields by name (`flam_jax.build.build_dynamics` lists them) to a
        `flam_jax.dynamics.interface.LatentActionModel`.
      one_slot: one action and one slot for the whole scene, and attention over all patches.
      slot_training_share: of models that learn slots before the dynamics, each with a learning-rate schedule of its
        own: the share of training for the slots.
      given_actions: the true actions are given, so that records must have them.
    """

    function: str
    one_slot: bool = False
    slot_training_share: float = 0.0
    given_actions: bool = False

    @property
    def build(self) -> Callable[[Mapping[str, Any]], Any]:
        """The function."""
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(module), name)


_SLOTS = 0.5  # of training

MODELS = {
    "flam": Model("flam_jax.build:flam_model"),
    "genie": Model("flam_jax.build:genie", one_slot=True),
    "adaworld": Model("flam_jax.build:adaworld", one_slot=True),
    "playslot": Model("flam_jax.build:playslot", slot_training_share=_SLOTS),
    "slotformer": Model("flam_jax.build:slotformer", slot_training_share=_SLOTS),
    "action_conditioned": Model("flam_jax.build:action_conditioned", one_slot=True, given_actions=True),
    "flam_recurrent": Model("flam_jax.build:flam_recurrent"),
    "flam_coupled": Model("flam_jax.build:flam_coupled"),
}

__all__ = ["MODELS", "Model"]
