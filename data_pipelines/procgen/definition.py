"""Procgen's fields of the configuration and its specification."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipelines.fields import Problem, choice, number, whole
from data_pipelines.spec import Annotation, DatasetSpec, Definition

NUM_ACTIONS = 15  # Procgen's own numbering

FIELDS = dict(
    game=choice(("bigfish", "leaper", "starpilot"), "the game"),
    num_levels=whole(500, "levels over all splits", 10, 2**31 - 1),
    action_repeat=number(4, "mean number of steps that the random policy keeps an action", 1),
)


def _spec(data: Any) -> DatasetSpec:
    height, width = data.frame_size
    return DatasetSpec(
        label=data.procgen.game,
        height=height,
        width=width,
        annotations={
            "actions": Annotation((), np.int8, "the player's action, by Procgen's number", classes=NUM_ACTIONS),
            "rewards": Annotation((), np.float32, "the player's reward"),
            "level": Annotation((), np.int64, "Procgen's level number", per_clip=True),
        },
    )


def _variant(data: Any) -> dict[str, Any]:
    fields = data.procgen
    return {"game": fields.game, "levels": fields.num_levels, "repeat": float(fields.action_repeat)}


def _problems(data: Any) -> Iterator[Problem]:
    height, width = data.frame_size
    if height != width:
        yield "frame_size", data.frame_size, "a square: the games draw one"


DEFINITION = Definition(
    fields=FIELDS,
    spec=_spec,
    variant=_variant,
    builder="data_pipelines.procgen.builder:Procgen",
    problems=_problems,
    extra="procgen",
)
