"""A folder for mistakes, and nothing may be done before they are told."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

import data_pipelines

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file where a folder is expected, and the other way round."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "folder.py").mkdir()
    (folder / "file").touch()
    return folder


@pytest.fixture(autouse=True)
def nothing_is_done(monkeypatch: pytest.MonkeyPatch, here: Path) -> Iterator[None]:
    """Data that are asked for, a program that is traced or compiled, or a file in the workdir fails the test."""

    def asked(*_: Any, **__: Any) -> None:
        raise AssertionError("data were asked for")

    def listen(event: str, *_: Any, **__: Any) -> None:
        compiled.append(event)

    compiled: list[str] = []
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(data_pipelines, "prepare", asked)
    before = sorted(here.rglob("*"))
    jax.monitoring.register_event_duration_secs_listener(listen)
    yield
    jax.monitoring.unregister_event_duration_listener(listen)
    assert not [event for event in compiled if "compile" in event]
    left = set(here.rglob("*")) - {*before, here / "run", here / "__pycache__"}
    assert not {path for path in left if path.parent.name != "__pycache__"}
