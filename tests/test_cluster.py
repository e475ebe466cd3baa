"""Who runs alone and who is one of several. Two processes that train as one are in `training/test_meshes.py`."""

import os
import socket
import subprocess
import sys
from typing import Any

import pytest
from jax._src import distributed

from flam_jax import cluster
from flam_jax.command_line import CLUSTER_FLAGS
from flam_jax.surroundings import detect_cluster

LATE = """
import sys, time
from flam_jax import cluster

coordinator, index = sys.argv[1:]
cluster.start({"coordinator": coordinator, "num_processes": "2", "process_id": index})
print(cluster.on_first_process(lambda: time.sleep(35) or "done"))
"""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ""),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}, ""),  # a shell within an allocation
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"}, ""),
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"}, "SLURM"),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, ""),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI"),
        ({"OMPI_COMM_WORLD_SIZE": ""}, ""),
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "many"}, ""),
        ({"PMI_SIZE": "2"}, "MPI"),
        ({"PMI_SIZE": "2", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}, "SLURM"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ""),  # a pod that is one of several has a cluster's other signs
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, ""),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "TPU pod on GKE"),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "JAX_PLATFORMS": "cpu"}, ""),
    ],
)
def test_a_process_is_one_of_several_only_where_a_cluster_says_so(environment: dict[str, str], expected: str) -> None:
    assert detect_cluster(environment) == expected


def test_a_single_machine_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_STEP_ID", "OMPI_COMM_WORLD_SIZE", "TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cluster.jax.distributed, "initialize", lambda **_: pytest.fail("asked for others"))
    cluster.start()
    cluster.start({})


def test_others_that_do_not_come_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**given: object) -> None:
        assert given["coordinator_address"] == "host:1234"
        assert (given["num_processes"], given["process_id"]) == (2, 1)
        raise RuntimeError("DEADLINE_EXCEEDED: no one there\n and more")

    monkeypatch.setattr(cluster.jax.distributed, "initialize", fail)
    flags = {"coordinator": "host:1234", "num_processes": "2", "process_id": "1"}
    with pytest.raises(cluster.ClusterError, match="processes cannot be joined: DEADLINE_EXCEEDED") as caught:
        cluster.start(flags)
    assert "\n" not in str(caught.value)


HALF_SET = [
    {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"},
    {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "a"},
    {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "PMIX_RANK": "1"},  # Open MPI 5
    {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "nonsense"},
    {"PMI_SIZE": "2", "PMI_RANK": "0"},
]


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "PMI", "TPU_", "JAX_COORDINATOR")):
            monkeypatch.delenv(name)
    # As in a process that has asked for nothing: other tests have.
    monkeypatch.setattr(distributed.xla_bridge, "backends_are_initialized", lambda: False)
    monkeypatch.setattr(distributed, "global_state", distributed.State())


@pytest.mark.parametrize("environment", HALF_SET)
def test_a_cluster_that_jax_does_not_find_is_one_line_that_names_the_flags(
    environment: dict[str, str], no_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JAX itself is asked, and finds no coordinator."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(cluster.ClusterError, match="processes cannot be joined: ") as caught:
        cluster.start()
    message = str(caught.value)
    assert message.startswith(detect_cluster(environment))
    assert "\n" not in message
    assert all(flag in message for flag in CLUSTER_FLAGS)


@pytest.mark.parametrize("environment", HALF_SET)
def test_flags_win_over_the_variables_of_a_cluster(
    environment: dict[str, str], no_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JAX takes the flags as they are and looks for no cluster: it comes as far as making its client."""

    def client(address: str, process_id: int, **_: object) -> None:
        raise RuntimeError(f"client of {address} as {process_id}")

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed._jax, "get_distributed_runtime_client", client)
    flags = {"coordinator": "host:1234", "num_processes": "3", "process_id": "2"}
    with pytest.raises(cluster.ClusterError, match="client of host:1234 as 2"):
        cluster.start(flags)


@pytest.mark.parametrize(
    "said",
    [
        "UNKNOWN: Gloo AllGather failed: [pair.cc:538] Read error [10.0.0.1]:39327: Connection reset by peer",
        "INTERNAL: Barrier failed because: task is set to ERROR: UNAVAILABLE: Task 1 heartbeat timeout.",
        "UNAVAILABLE: Socket closed",
    ],
)
def test_a_peer_that_ended_is_told_from_errors_of_this_process(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("dynamics: checkpoint 3 could not be written")
    error.__cause__ = ValueError(said)
    assert not cluster.has_lost_peer(error)  # there is no other process
    monkeypatch.setattr(cluster.jax, "process_count", lambda: 2)
    assert cluster.has_lost_peer(error)
    assert not cluster.has_lost_peer(RuntimeError("another error"))


def test_a_process_alone_does_what_the_first_would() -> None:
    assert cluster.on_first_process(lambda: (1, "a")) == (1, "a")
    with pytest.raises(ValueError, match="why"):
        cluster.on_first_process(lambda: int("why"), errors=ValueError)


def run_two(code: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...]]:
    """What two processes that run as one say on standard error and output, and their statuses."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    pipes: Any = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    commands = [[sys.executable, "-c", code, coordinator, str(index)] for index in range(2)]
    running = [subprocess.Popen(command, env=environment, **pipes) for command in commands]
    try:
        said = [process.communicate(timeout=200) for process in running]
    finally:
        for process in running:
            process.kill()
    outputs, errors = zip(*said, strict=True)
    return errors, outputs, tuple(process.returncode for process in running)


PEER = """
import os, signal, sys
import numpy as np
from flam_jax import cluster
from flam_jax.main import _guarded

coordinator, index = sys.argv[1:]

def work(_):
    for number in range(5):
        cluster.from_all_processes(np.zeros(3))
        if number == 3 and index == "1":
            os.kill(os.getpid(), signal.SIGKILL)

sys.exit(_guarded([], work, {"coordinator": coordinator, "num_processes": "2", "process_id": index}))
"""


@pytest.mark.long
def test_a_process_whose_peer_dies_ends_with_one_line() -> None:
    (first, _), _, (status, _) = run_two(PEER)
    assert status == 1, first
    assert "flam_jax: another process of the run ended" in first
    assert "Traceback" not in first


@pytest.mark.long
def test_the_others_wait_longer_than_a_first_exchange_of_devices_would() -> None:
    errors, outputs, statuses = run_two(LATE)
    assert statuses == (0, 0), errors
    assert all(out.endswith("done\n") for out in outputs)
