"""Fields of the configuration for a folder of videos, and its specification."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipelines.fields import Problem, choice, folder, number, whole
from data_pipelines.spec import SECONDS, DatasetSpec, Definition

PICTURES_A_SECOND = 10.0  # of a folder of pictures, where no rate is asked for

FIELDS = dict(
    source=folder("", "folder of videos (mp4, webm, mov, avi, mkv, gif) and of folders of pictures (png, jpg)"),
    frame_rate=number(10, "frames a second, taken by their time stamps; 0: every frame of the file", 0, 1000),
    stride=whole(1, "of these frames, every how many-th is taken", 1, 1000),
    fit=choice(("crop", "letterbox", "stretch"), "how a frame of another shape is made to fit"),
    clip_step=whole(0, "frames from the start of a clip to the next one's; 0: clip_length, without overlap", 0, 10_000),
    cut_threshold=number(
        0.12, "mean change of a color value from frame to frame, of 1, above which a scene may be cut; 0: no cuts", 0, 1
    ),
    still_seconds=number(0, "a stretch in which nothing moves is cut off after so many seconds; 0: kept", 0, 3600),
)


def _spec(data: Any) -> DatasetSpec:
    fields, (height, width) = data.video_folder, data.frame_size
    return DatasetSpec(
        label=f"video folder {Path(fields.source).name}".strip(),
        height=height,
        width=width,
        annotations={"seconds": SECONDS},
        frame_rate=fields.frame_rate / fields.stride or None,
    )


def _variant(data: Any) -> dict[str, Any]:
    fields = data.video_folder
    return {
        "rate": float(fields.frame_rate),
        "stride": fields.stride,
        "fit": fields.fit,
        "step": fields.clip_step,
        "cut": float(fields.cut_threshold),
        "still": float(fields.still_seconds),
    }


def _problems(data: Any) -> Iterator[Problem]:
    step = data.video_folder.clip_step
    if step > data.clip_length:
        yield "video_folder.clip_step", step, f"at most data.clip_length = {data.clip_length}"


DEFINITION = Definition(
    fields=FIELDS,
    spec=_spec,
    variant=_variant,
    builder="data_pipelines.video_folder.builder:VideoFolder",
    reads="video_folder.source",
    problems=_problems,
    extra="video",
)
