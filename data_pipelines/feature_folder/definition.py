"""Fields of the configuration for features of the user's own network, and their specification."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.fields import Problem, folder, number, shape
from data_pipelines.import_fields import CLIP_FIELDS, import_problems, import_variant
from data_pipelines.spec import SECONDS, Annotation, DatasetSpec, Definition

FIELDS = dict(
    source=folder("", "folder in which every folder with frames.npy and features.npy is a video"),
    shape=shape((16, 16, 384), "rows, columns and channels of the features of a frame", 1, 4096),
    frame_rate=number(10, "frames a second in the arrays", 1e-3, 1000),
    **CLIP_FIELDS,
)


def _spec(data: Any) -> DatasetSpec:
    fields, (height, width) = data.feature_folder, data.frame_size
    return DatasetSpec(
        label=f"features {Path(fields.source).name}".strip(),
        height=height,
        width=width,
        annotations={
            "seconds": SECONDS,
            "features": Annotation(tuple(fields.shape), np.float16, "of the user's own network"),
        },
        frame_rate=fields.frame_rate / fields.stride,
    )


def _variant(data: Any) -> dict[str, Any]:
    fields = data.feature_folder
    return {"shape": "x".join(map(str, fields.shape)), "rate": float(fields.frame_rate)} | import_variant(data)


def _problems(data: Any) -> Iterator[Problem]:
    (rows, columns, _), (height, width) = data.feature_folder.shape, data.frame_size
    if height % rows or width % columns or height // rows != width // columns:
        expected = f"as many rows and columns as square patches of data.frame_size = {height},{width} give"
        yield "feature_folder.shape", data.feature_folder.shape, expected
    yield from import_problems(data)


DEFINITION = Definition(
    fields=FIELDS,
    spec=_spec,
    variant=_variant,
    builder="data_pipelines.feature_folder.builder:FeatureFolder",
    reads="feature_folder.source",
    problems=_problems,
)
