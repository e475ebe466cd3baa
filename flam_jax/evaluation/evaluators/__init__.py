"""The measures of `evaluation.json`: one file each, in the order in which they are run.

An evaluator is a module with

    KEY     where its values stand in `evaluation.json`
    needs   what the data set or the model lacks for it, in words; empty where nothing is missing
    run     its values, as JSON takes them, and pictures by `group/name`

A new measure is a file here and its name in `EVALUATORS`.
"""

import importlib
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from data_pipelines.spec import DatasetSpec
from flam_jax.evaluation.context import EvaluationContext
from flam_jax.world_model import WorldModel

Pictures = Mapping[str, np.ndarray]  # u8[H W 3] by `group/name`; a group is a section of the report

EVALUATORS = (
    "rollout",
    "actions",
    "binding",
    "dci",
    "cells",
    "segmentation",
    "positions",
    "entities",
    "control",
    "controls",
    "leak",
    "clusters",
    "direction_aware_clusters",
    "transfer",
)


@runtime_checkable
class Evaluator(Protocol):
    """What a module of this package offers."""

    KEY: tuple[str, ...]

    def needs(self, data: DatasetSpec, model: WorldModel) -> str:
        """What is missing; empty for nothing."""
        ...

    def run(self, context: EvaluationContext) -> tuple[Any, Pictures]:
        """Values and pictures."""
        ...


def evaluator(name: str) -> Evaluator:
    """One of `EVALUATORS`."""
    module: Any = importlib.import_module(f"{__name__}.{name}")
    return module


__all__ = ["EVALUATORS", "Evaluator", "Pictures", "evaluator"]
