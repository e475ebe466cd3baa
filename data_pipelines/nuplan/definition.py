"""nuPlan's fields of the configuration and its specification."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipelines.fields import Problem, choice, folder, whole
from data_pipelines.spec import SECONDS, Annotation, DatasetSpec, Definition

RATE = 10.0  # frames a second of its cameras
CAMERAS = tuple(f"CAM_{place}" for place in ("F0", "L0", "L1", "L2", "R0", "R1", "R2", "B0"))

FIELDS = dict(
    source=folder("", "folder of the download, with splits and sensor_blobs"),
    camera=choice(CAMERAS, "the camera"),
    tracks=whole(16, "other road users that are kept for probes, the nearest", 1, 256),
    stride=whole(1, "of ten frames a second, every how many-th is taken", 1, 100),
    fit=choice(("crop", "letterbox", "stretch"), "how a frame of another shape is made to fit"),
    clip_step=whole(0, "frames from the start of a clip to the next one's; 0: clip_length, without overlap", 0, 10_000),
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
    fields = data.nuplan
    return {
        "camera": fields.camera,
        "tracks": fields.tracks,
        "stride": fields.stride,
        "fit": fields.fit,
        "step": fields.clip_step,
    }


def _problems(data: Any) -> Iterator[Problem]:
    step = data.nuplan.clip_step
    if step > data.clip_length:
        yield "nuplan.clip_step", step, f"at most data.clip_length = {data.clip_length}"


DEFINITION = Definition(
    fields=FIELDS,
    spec=_spec,
    variant=_variant,
    builder="data_pipelines.nuplan.builder:NuPlan",
    reads="nuplan.source",
    problems=_problems,
)
