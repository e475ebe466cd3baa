"""Locks keep others out where a file system has them, and are done without where it has none."""

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from data_pipelines import DataError, prepare
from data_pipelines.locks import FileLock, describe_lock_error, has_locks
from flam_jax.config import ConfigError
from flam_jax.main import open_workdir
from tests.data_pipelines.conftest import data_config

WITHOUT = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_lock_keeps_others_out_until_it_is_closed(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock") as first, FileLock(tmp_path / ".lock") as second:
        first.acquire(wait=False)
        with pytest.raises(BlockingIOError):
            second.acquire(wait=False)
        first.close()
        second.acquire(wait=False)
        assert first.works
        assert second.works
    assert has_locks(tmp_path)


@pytest.mark.parametrize("number", WITHOUT)
def test_without_locks_work_goes_on_after_one_line(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(monkeypatch, number)
    with open_workdir(tmp_path / "run") as workdir:
        assert workdir.is_dir()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path}/run: no locks here")
    assert not has_locks(tmp_path)


def test_data_are_generated_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(monkeypatch, errno.ENOLCK)
    assert len(prepare(data_config(tmp_path), show_progress=False).split("train")) == 16
    assert "no locks here" in capsys.readouterr().err


def test_another_fault_of_a_lock_is_none_of_a_file_system_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, errno.EIO)
    with FileLock(tmp_path / ".lock") as lock, pytest.raises(OSError, match="Input/output"):
        lock.acquire(wait=False)


def forbid(monkeypatch: pytest.MonkeyPatch, modes: str) -> None:
    """Opening a lock file in one of these modes fails, as with one that belongs to somebody else."""
    opened = Path.open

    def open_file(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if self.name == ".lock" and mode in modes:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return opened(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_file)


def test_a_lock_file_of_another_user_can_still_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".lock").touch(stat.S_IRUSR)
    forbid(monkeypatch, "a")
    with (
        open_workdir(tmp_path),
        pytest.raises(ConfigError, match="another run is at work there"),
        open_workdir(tmp_path),
    ):
        pass


def test_a_lock_file_that_cannot_even_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".lock").touch()
    forbid(monkeypatch, "ar")
    expected = r"\.lock belongs to another user: ask for its deletion, or take another folder$"
    with pytest.raises(ConfigError, match=f"^--workdir: .*{expected}"), open_workdir(tmp_path):
        pass
    data = data_config(tmp_path)
    folder = tmp_path / "multigrid" / make_label(data)
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    with pytest.raises(DataError, match=rf"^config\.data\.path: .*{expected}"):
        prepare(data, show_progress=False)


def make_label(data: Any) -> str:
    from data_pipelines.recipe import make_recipe
    from data_pipelines.registry import definition

    return make_recipe(data, definition(data.name).variant(data)).label


def test_a_folder_that_cannot_be_written_to_is_told_so() -> None:
    error = PermissionError(errno.EACCES, "Permission denied")
    assert describe_lock_error("/nowhere/.lock", error) == "cannot write to /nowhere: Permission denied"
