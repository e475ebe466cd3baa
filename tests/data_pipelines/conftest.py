"""Small data sets that the tests share."""

from collections.abc import Callable
from pathlib import Path

import pytest
from ml_collections import ConfigDict

import data_pipelines

MakeConfig = Callable[..., ConfigDict]


def data_config(path: Path, **changes: object) -> ConfigDict:
    """The `data` node of a configuration, small: 20 clips of 8 frames."""
    config = ConfigDict(
        {
            "name": "multigrid",
            "path": str(path),
            "seed": 0,
            "frame_size": (32, 32),
            "num_frames": 160,
            "clip_length": 8,
            "generate_workers": 1,
            "on_corrupt": "stop",
            "multigrid": {"grid_size": 8, "num_agents": 4, "shared_actions": 0},
            "procgen": {"game": "bigfish", "num_levels": 10, "action_repeat": 4},
        }
    )
    config.update_from_flattened_dict(changes)
    return config


def damage(file: Path) -> None:
    """Changes bytes of the first records of a file and nothing of its index."""
    content = bytearray(file.read_bytes())
    content[1_000:1_500] = bytes(value ^ 0xFF for value in content[1_000:1_500])
    file.write_bytes(content)


@pytest.fixture
def make_config(tmp_path: Path) -> MakeConfig:
    return lambda **changes: data_config(tmp_path, **changes)


@pytest.fixture(scope="session")
def multigrid(tmp_path_factory: pytest.TempPathFactory) -> data_pipelines.Dataset:
    return data_pipelines.prepare(data_config(tmp_path_factory.mktemp("multigrid")), show_progress=False)


@pytest.fixture(scope="session")
def procgen(tmp_path_factory: pytest.TempPathFactory) -> data_pipelines.Dataset:
    path = tmp_path_factory.mktemp("procgen")
    return data_pipelines.prepare(data_config(path, name="procgen", frame_size=(64, 64)), show_progress=False)
