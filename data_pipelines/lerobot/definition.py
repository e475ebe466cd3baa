"""Fields of the configuration for LeRobot data sets, and their specification."""

from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.fields import folder, text
from data_pipelines.import_fields import IMPORT_FIELDS, import_problems, import_variant
from data_pipelines.spec import ANY_SIZE, SECONDS, Annotation, DatasetSpec, Definition

FIELDS = dict(
    source=folder("", "folder of the data set, with meta, data and videos"),
    camera=text("", "name of the camera, such as observation.images.top; empty: the only one"),
    action=text("action", "name of the continuous action that is kept for probes; empty: none"),
    state=text("observation.state", "name of the state that is kept for probes; empty: none"),
    **IMPORT_FIELDS,
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
    names = {"camera": fields.camera, "action": fields.action, "state": fields.state}
    return names | import_variant(data)


DEFINITION = Definition(
    fields=FIELDS,
    spec=_spec,
    variant=_variant,
    builder="data_pipelines.lerobot.builder:LeRobot",
    reads="lerobot.source",
    problems=import_problems,
    extra="lerobot",
)
