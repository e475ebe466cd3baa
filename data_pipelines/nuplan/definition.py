"""nuPlan's fields of the configuration and its specification."""

from typing import Any

import numpy as np

from data_pipelines.fields import choice, folder, whole
from data_pipelines.import_fields import IMPORT_FIELDS, import_problems, import_variant
from data_pipelines.spec import SECONDS, Annotation, DatasetSpec, Definition

RATE = 10.0  # frames a second of its cameras
CAMERAS = tuple(f"CAM_{place}" for place in ("F0", "L0", "L1", "L2", "R0", "R1", "R2", "B0"))

FIELDS = dict(
    source=folder("", "folder of the download, with splits and sensor_blobs"),
    camera=choice(CAMERAS, "the camera"),
    tracks=whole(16, "other road users that are kept for probes, the nearest", 1, 256),
    **IMPORT_FIELDS,
)


def _spec(data: Any) -> DatasetSpec:
    fields, (height, width) = data.nuplan, data.frame_size
    return DatasetSpec(
        label="nuplan",
        height=height,
        width=width,
        annotations={
            "seconds": SECONDS,
            "controls": Annotation((3,), np.float32, "motion to the next frame: forward and left in meters, turn"),
            "tracks": Annotation((fields.tracks, 4), np.float32, "forward, left, heading, whether there is one"),
            "track_ids": Annotation((fields.tracks,), np.int64, "of the road users, -1 for none"),
        },
        frame_rate=RATE / fields.stride,
    )


def _variant(data: Any) -> dict[str, Any]:
    return {"camera": data.nuplan.camera, "tracks": data.nuplan.tracks} | import_variant(data)


DEFINITION = Definition(
    fields=FIELDS,
    spec=_spec,
    variant=_variant,
    builder="data_pipelines.nuplan.builder:NuPlan",
    reads="nuplan.source",
    problems=import_problems,
)
