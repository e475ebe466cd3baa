"""The data sets: one line each. A data set lives in the folder of its definition and touches nothing outside it."""

import importlib
import operator
from typing import Any

from data_pipelines.errors import DataError
from data_pipelines.spec import DatasetSpec, Definition

# Name in `config.data.name` -> module with a `DEFINITION`.
DATASETS = {
    "multigrid": "data_pipelines.multigrid.definition",
    "procgen": "data_pipelines.procgen.definition",
    "sprites": "data_pipelines.sprites.definition",
    "video_folder": "data_pipelines.video_folder.definition",
    "lerobot": "data_pipelines.lerobot.definition",
    "feature_folder": "data_pipelines.feature_folder.definition",
    "nuplan": "data_pipelines.nuplan.definition",
}


def definition(name: str) -> Definition:
    """Of a data set by its name.

    Raises:
      KeyError: there is no such data set.
    """
    return importlib.import_module(DATASETS[name]).DEFINITION


def spec_of(data: Any) -> DatasetSpec:
    """What the data set of a configuration's `data` node offers, without looking at any data."""
    return definition(data.name).spec(data)


def source_of(data: Any) -> str:
    """The folder of files that the data set of a configuration's `data` node reads; empty where it is generated.

    Raises:
      DataError: there should be one, and none is named.
    """
    field = definition(data.name).reads
    if not field:
        return ""
    source = operator.attrgetter(field)(data)
    if not source:
        raise DataError(f"config.data.{field} is empty: expected the folder of the files that are read")
    return source


__all__ = ["DATASETS", "definition", "source_of", "spec_of"]
