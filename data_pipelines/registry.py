"""The data sets: one line each. A data set lives in the folder of its definition and touches nothing outside it."""

import importlib
from typing import Any

from data_pipelines.spec import DatasetSpec, Definition

# Name in `config.data.name` -> module with a `DEFINITION`.
DATASETS = {
    "multigrid": "data_pipelines.multigrid.definition",
    "procgen": "data_pipelines.procgen.definition",
    "sprites": "data_pipelines.sprites.definition",
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


__all__ = ["DATASETS", "definition", "spec_of"]
