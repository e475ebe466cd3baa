"""Fields of the configuration for LeRobot data sets, and their specification."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.fields import Problem, choice, folder, text, whole
from data_pipelines.spec import ANY_SIZE, SECONDS, Annotation, DatasetSpec, Definition

FIELDS = dict(
    source=folder("", "folder of the data set, with meta, data and videos"),
    camera=text("", "name of the camera, such as observation.images.top; empty: the only one"),
    action=text("action", "name of the continuous action that is kept for probes; empty: none"),
    state=text("observation.state", "name of the state that is kept for probes; empty: none"),
    stride=whole(1, "every how many-th frame is taken", 1, 1000),
    fit=choice(("crop", "letterbox", "stretch"), "how a frame of another shape is made to fit"),
    clip_step=whole(0, "frames from the start of a clip to the next one's; 0: clip_length, without overlap", 0, 10_000),
)


def _spec(data: Any) -> DatasetSpec:
    fields, (height, width) = data.lerobot, data.frame_size
    kept = {
        "controls": (fields.action, Annotation((ANY_SIZE,), np.float32, "continuous action taken at frame t")),
        "state": (fields.state, Annotation((ANY_SIZE,), np.float32, "measured state at frame t")),
    }
    return DatasetSpec(
        label=f"lerobot {Path(fields.source).name}".strip(),
        height=height,
        width=width,
        annotations={"seconds": SECONDS} | {name: kind for name, (column, kind) in kept.items() if column},
    )


def _variant(data: Any) -> dict[str, Any]:
    fields = data.lerobot
    return {
        "camera": fields.camera,
        "action": fields.action,
        "state": fields.state,
        "stride": fields.stride,
        "fit": fields.fit,
        "step": fields.clip_step,
    }


def _problems(data: Any) -> Iterator[Problem]:
    step = data.lerobot.clip_step
    if step > data.clip_length:
        yield "lerobot.clip_step", step, f"at most data.clip_length = {data.clip_length}"


DEFINITION = Definition(
    fields=FIELDS,
    spec=_spec,
    variant=_variant,
    builder="data_pipelines.lerobot.builder:LeRobot",
    reads="lerobot.source",
    problems=_problems,
    extra="lerobot",
)
