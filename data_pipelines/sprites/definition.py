"""The sprites' fields of the configuration and their specification."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipelines.fields import Problem, choice, flag, number, whole
from data_pipelines.spec import Annotation, DatasetSpec, Definition

# Unit steps (x, y) of the actions: stay, right, down, left, up.
STEPS = ((0, 0), (1, 0), (0, 1), (-1, 0), (0, -1))

FIELDS = dict(
    num_sprites=whole(4, "moving shapes", 2, 12),
    smallest=number(10, "extent of the smallest shapes in pixels", 3, 256),
    largest=number(13, "extent of the largest", 3, 256),
    speed=number(2.5, "pixels that a shape moves in a frame", 0.1, 64),
    persistence=number(3, "mean number of frames that a shape keeps an action", 1, 1000),
    background=choice(("plain", "texture", "moving"), "one color; a texture; a texture that drifts"),
    one_color=flag(False, "all shapes have one color, so that look alone does not name an entity"),
    one_shape=flag(False, "all shapes are discs"),
    camera_speed=number(0, "pixels a frame of a camera that pans to and fro; 0 stands still", 0, 16),
)


def _spec(data: Any) -> DatasetSpec:
    fields, (height, width) = data.sprites, data.frame_size
    n = fields.num_sprites
    camera = {"camera": Annotation((), np.float32, "how far to the right of the middle it looks", unit="pixels")}
    return DatasetSpec(
        label=f"{n} sprites{_options(fields)}",
        height=height,
        width=width,
        annotations={
            "actions": Annotation((n,), np.int8, "0 stay, 1 right, 2 down, 3 left, 4 up", classes=len(STEPS)),
            "moves": Annotation((n,), np.int8, "the action where it moved the shape, else 0", classes=len(STEPS)),
            "positions": Annotation((n, 2), np.float32, "center of every shape", unit="pixels"),
            "sizes": Annotation((n,), np.float32, "extent of every shape", unit="pixels"),
            "masks": Annotation(
                (height, width), np.uint8, "the shape that a pixel shows, from 1; 0: none", classes=n + 1
            ),
            **(camera if fields.camera_speed else {}),
        },
        displaced_clips=True,
    )


def _options(fields: Any) -> str:
    named = {
        f"{fields.background} ground": fields.background != "plain",
        "one color": fields.one_color,
        "one shape": fields.one_shape,
        "panning": fields.camera_speed > 0,
    }
    return "".join(f", {name}" for name, there in named.items() if there)


def _variant(data: Any) -> dict[str, Any]:
    fields = data.sprites
    return {
        "sprites": fields.num_sprites,
        "from": float(fields.smallest),
        "to": float(fields.largest),
        "speed": float(fields.speed),
        "keep": float(fields.persistence),
        "background": fields.background,
        "color": int(fields.one_color),
        "shape": int(fields.one_shape),
        "camera": float(fields.camera_speed),
    }


def _problems(data: Any) -> Iterator[Problem]:
    fields = data.sprites
    if fields.smallest > fields.largest:
        yield "sprites.smallest", fields.smallest, f"at most data.sprites.largest = {fields.largest:g}"
    room = min(data.frame_size) - fields.speed
    if fields.largest > room:
        yield "sprites.largest", fields.largest, f"at most {room:g}, so that a shape can move within the frame"


DEFINITION = Definition(
    fields=FIELDS,
    spec=_spec,
    variant=_variant,
    builder="data_pipelines.sprites.builder:Sprites",
    problems=_problems,
)
