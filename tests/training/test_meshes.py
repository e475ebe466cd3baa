"""The same training on any mesh and any number of processes, also when these change on the way."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flam_jax.checkpoints import restore_parameters
from flam_jax.metrics_file import read_metrics

SCRIPT = Path(__file__).with_name("run_mesh.py")
STEPS = 20


def launch(workdir: Path, devices: int, mesh: dict[str, int], processes: int = 1, stop_at: int = 0) -> list[int]:
    """Statuses of the processes; the last of them is asked to end at batch `stop_at`."""
    number = f"--xla_force_host_platform_device_count={devices // processes}"
    environment = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {number}", "JAX_PLATFORMS": "cpu"}
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    running = []
    for index in range(processes):
        flags = {"coordinator": f"localhost:{port}", "num_processes": str(processes), "process_id": str(index)}
        asked = stop_at if index == processes - 1 else 0
        arguments = [
            workdir,
            workdir.parent / "data",
            json.dumps(mesh),
            asked,
            json.dumps(flags if processes > 1 else {}),
        ]
        command = [sys.executable, str(SCRIPT), *map(str, arguments)]
        running.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
    errors = [process.communicate(timeout=540)[1].decode() for process in running]
    assert not any("Traceback" in error for error in errors), errors
    return [process.returncode for process in running]


def losses(workdir: Path) -> list[float]:
    entries = [entry for entry in read_metrics(workdir, "dynamics") if "speed" in entry]
    assert [entry["step"] for entry in entries] == list(range(1, STEPS + 1))
    return [entry["values"]["loss"] for entry in entries]


def batches(workdir: Path) -> list[dict[int, tuple[int, int]]]:
    """For every step, of every row of the global batch, the record and the checksum of its frames."""
    found: dict[int, dict[int, tuple[int, int]]] = {}
    for log in workdir.parent.glob(f"{workdir.name}.rows*"):
        for line in map(json.loads, log.read_text().splitlines()):
            rows = dict(zip(line["rows"], zip(line["record"], line["crc"], strict=True), strict=True))
            for row, content in rows.items():
                assert found.setdefault(line["step"], {}).setdefault(row, content) == content
    return [dict(sorted(found[step].items())) for step in range(1, STEPS + 1)]


@pytest.fixture(scope="module")
def one_device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("meshes") / "one"
    assert launch(workdir, 1, {}) == [0]
    assert [list(batch) for batch in batches(workdir)] == [list(range(8))] * STEPS
    return workdir


def assert_same_training(workdir: Path, one_device: Path) -> None:
    np.testing.assert_allclose(losses(workdir), losses(one_device), rtol=2e-5)
    assert batches(workdir) == batches(one_device)
    pairs: Any = [restore_parameters(folder / "dynamics") for folder in (workdir, one_device)]
    flat = [np.concatenate([np.ravel(leaf) for leaf in _leaves(tree)]) for tree in pairs]
    assert np.abs(flat[0] - flat[1]).max() < 1e-4


def _leaves(tree: Any) -> list[np.ndarray]:
    return (
        [leaf for value in tree.values() for leaf in _leaves(value)] if isinstance(tree, dict) else [np.asarray(tree)]
    )


@pytest.mark.long
@pytest.mark.xdist_group("meshes")
@pytest.mark.parametrize("mesh", [{"data": 8}, {"data": 2, "fsdp": 2, "factor": 2}], ids=["data", "all_axes"])
def test_eight_devices_train_as_one(mesh: dict[str, int], one_device: Path) -> None:
    workdir = one_device.with_name("_".join(["eight", *mesh]))
    assert launch(workdir, 8, mesh) == [0]
    assert_same_training(workdir, one_device)


@pytest.mark.long
@pytest.mark.xdist_group("meshes")
def test_a_run_moves_from_eight_devices_on_all_axes_to_two_and_to_one(one_device: Path) -> None:
    workdir = one_device.with_name("moved")
    assert launch(workdir, 8, {"data": 2, "fsdp": 2, "factor": 2}, stop_at=8) == [75]
    assert launch(workdir, 2, {"data": 1, "factor": 2}, stop_at=15) == [75]
    assert launch(workdir, 1, {}) == [0]
    assert_same_training(workdir, one_device)


@pytest.mark.long
@pytest.mark.xdist_group("meshes")
def test_two_processes_train_as_one(one_device: Path) -> None:
    workdir = one_device.with_name("two_processes")
    assert launch(workdir, 4, {"data": 2, "factor": 2}, processes=2) == [0, 0]
    assert_same_training(workdir, one_device)


@pytest.mark.long
@pytest.mark.xdist_group("meshes")
def test_two_processes_end_together_when_one_is_asked_and_one_process_goes_on(one_device: Path) -> None:
    workdir = one_device.with_name("processes")
    assert launch(workdir, 4, {"data": 2, "factor": 2}, processes=2, stop_at=10) == [75, 75]
    assert launch(workdir, 1, {}) == [0]
    assert_same_training(workdir, one_device)
