"""Fields and specification of the dots."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipelines.fields import Problem, whole
from data_pipelines.spec import Annotation, DatasetSpec, Definition

CELL = 4  # pixels per side; a dot fills one cell and moves by one


def _spec(data: Any) -> DatasetSpec:
    (height, width), dots = data.frame_size, data.dots.num_dots
    return DatasetSpec(
        label=f"{dots} dots",
        height=height,
        width=width,
        annotations={
            "actions": Annotation((dots,), np.int8, "0 stays, 1 right, 2 down, 3 left, 4 up", classes=5),
            "positions": Annotation((dots, 2), np.int16, "column and row of every dot's cell", unit="cells"),
        },
        cells=(height // CELL, width // CELL),
    )


def _problems(data: Any) -> Iterator[Problem]:
    if any(side % CELL for side in data.frame_size):
        yield "frame_size", data.frame_size, f"multiples of {CELL}"


DEFINITION = Definition(
    fields=dict(num_dots=whole(2, "dots, each of its own colour", 1, 3)),
    spec=_spec,
    variant=lambda data: {"dots": data.dots.num_dots},
    builder="tests.toy.dots.builder:Dots",
    problems=_problems,
)
