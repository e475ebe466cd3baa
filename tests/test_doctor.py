"""The doctor tells what is there and what is missing, and stumbles over nothing."""

import errno
import importlib.metadata
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flam_jax import doctor
from flam_jax.doctor import Line


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two devices, told at once."""
    monkeypatch.chdir(tmp_path)
    devices = subprocess.CompletedProcess([], 0, "cpu|cpu|0\ncpu|cpu|0\n", "")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: devices)


def diagnose(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Line]]:
    status = doctor.main([])
    lines = capsys.readouterr().out.splitlines()
    found = [Line(line[:8].strip(), line[9:31].strip(), line[32:]) for line in lines]
    assert {line.mark for line in found} <= {doctor.OK, doctor.MISSING, doctor.WRONG}
    return status, {line.name: line for line in found}


def test_on_a_machine_that_works_nothing_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = diagnose(capsys)
    assert [line for line in found.values() if line.mark == doctor.WRONG] == []
    assert status == 0
    assert found["devices"].text == "2 cpu (cpu)"
    for name in ("python", "cores", "memory", "disk", "locks", "encoding", "experiments", "networks' weights"):
        assert name in found
    assert "multigrid" in found["experiments"].text


def test_devices_are_asked_for_in_earnest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    (line,) = doctor.find_devices()
    assert line.mark == doctor.OK
    assert "cpu" in line.text


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("Traceback\nRuntimeError: Unable to initialize backend 'gpu'\n", "Unable to initialize backend 'gpu'"),
        (
            "F0101 parse_flags_from_env.cc:234] Unknown flag in XLA_FLAGS: --x\n    @ 0x7f\n",
            "Unknown flag in XLA_FLAGS",
        ),
        ("", "status -6"),
    ],
)
def test_a_jax_that_does_not_start_is_one_line(
    error: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = subprocess.CompletedProcess([], -6, "", error)
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: dead)
    status, found = diagnose(capsys)
    assert status == 1
    assert found["devices"].mark == doctor.WRONG
    assert expected in found["devices"].text


def test_packages_that_are_missing_or_too_old_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = {"jax": "0.1.0", "grain": None}
    true_version = importlib.metadata.version

    def version(name: str) -> str:
        found = versions.get(name, "") if name in versions else true_version(name)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    requires = ["jax>=0.6", "grain>=0.2", "rich>=1; sys_platform == 'nowhere'", 'multigrid>=99; extra == "multigrid"']
    metadata = importlib.metadata.metadata("rich")
    metadata["Provides-Extra"] = "multigrid"
    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: requires)
    monkeypatch.setattr(importlib.metadata, "metadata", lambda _: metadata)
    status, found = diagnose(capsys)
    assert status == 1
    assert (found["jax"].mark, found["jax"].text) == (doctor.WRONG, "0.1.0 (>=0.6)")
    assert found["grain"].text.startswith("not installed")
    assert "rich" not in found
    assert found["extra multigrid"].mark == doctor.MISSING
    assert 'pip install "flam_jax[multigrid]"' in found["extra multigrid"].text


def test_surroundings_that_cannot_work_are_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setattr(doctor, "has_locks", lambda _: False)
    status, found = diagnose(capsys)
    assert status == 1
    assert found["variables"].text.startswith("JAX_ENABLE_X64=1")
    assert found["cluster"].text.startswith("Open MPI")
    assert found["locks"].mark == doctor.MISSING


def test_a_folder_that_cannot_be_written_to_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: Any) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(doctor, "has_locks", refuse)
    status, found = diagnose(capsys)
    assert status == 1
    assert "Permission denied" in found["folder"].text


def test_a_check_that_stumbles_is_one_line_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find_nothing() -> Iterator[Line]:
        raise ImportError("no module of that name\nand more")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (find_nothing, doctor.find_python))
    status, found = diagnose(capsys)
    assert status == 1
    assert found["nothing"].text == "no answer: ImportError: no module of that name"
    assert found["python"].mark == doctor.OK


def test_words_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["more"]) == 2
    assert capsys.readouterr().err.startswith("flam_jax.doctor: unexpected argument 'more'")
