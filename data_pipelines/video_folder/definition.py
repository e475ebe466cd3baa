"""Fields of the configuration for a folder of videos, and its specification."""

from pathlib import Path
from typing import Any

from data_pipelines.fields import folder, number
from data_pipelines.import_fields import IMPORT_FIELDS, import_problems, import_variant
from data_pipelines.spec import SECONDS, DatasetSpec, Definition

PICTURES_A_SECOND = 10.0  # of a folder of pictures, where no rate is asked for

FIELDS = dict(
    source=folder("", "folder of videos (mp4, webm, mov, avi, mkv, gif) and of folders of pictures (png, jpg)"),
    frame_rate=number(10, "frames a second, taken by their time stamps; 0: every frame of the file", 0, 1000),
    cut_threshold=number(
        0.12, "mean change of a color value from frame to frame, of 1, above which a scene may be cut; 0: no cuts", 0, 1
    ),
    still_seconds=number(0, "a stretch in which nothing moves is cut off after so many seconds; 0: kept", 0, 3600),
    **IMPORT_FIELDS,
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
    numbers = {"rate": fields.frame_rate, "cut": fields.cut_threshold, "still": fields.still_seconds}
    return {name: float(value) for name, value in numbers.items()} | import_variant(data)


DEFINITION = Definition(
    fields=FIELDS,
    spec=_spec,
    variant=_variant,
    builder="data_pipelines.video_folder.builder:VideoFolder",
    reads="video_folder.source",
    problems=import_problems,
    extra="video",
)
