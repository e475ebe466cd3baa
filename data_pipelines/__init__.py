"""Data sets of video clips: generated once, read at random, never the thing that training waits for.

dataset = data_pipelines.prepare(config.data)
loader = data_pipelines.make_loader(dataset.split("train"), batch_size=16, window=4, seed=0)
batch = next(loader)  # {"frames": u8[b t H W 3], "record": i64[b], "start": i64[b]}
"""

import importlib
from typing import TYPE_CHECKING, Any

from data_pipelines.errors import DataError

if TYPE_CHECKING:
    from data_pipelines.copy_paste import CopyPaste
    from data_pipelines.dataset import Dataset, prepare
    from data_pipelines.loader import Loader, make_loader
    from data_pipelines.registry import spec_of
    from data_pipelines.source import ClipSource
    from data_pipelines.spec import DatasetSpec

# Looked up when first used: importing this package imports nothing heavy.
_HOMES = {
    "ClipSource": "source",
    "CopyPaste": "copy_paste",
    "Dataset": "dataset",
    "DatasetSpec": "spec",
    "Loader": "loader",
    "make_loader": "loader",
    "prepare": "dataset",
    "spec_of": "registry",
}

__all__ = [
    "ClipSource",
    "CopyPaste",
    "DataError",
    "Dataset",
    "DatasetSpec",
    "Loader",
    "make_loader",
    "prepare",
    "spec_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
