"""Who runs alone and who is one of several. Two processes that train as one are in `training/test_meshes.py`."""

import os
import socket
import subprocess
import sys

import pytest

from flam_jax import cluster

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
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ""),  # a pod that is one of several has a cluster's other signs
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, ""),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "TPU pod on GKE"),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "JAX_PLATFORMS": "cpu"}, ""),
    ],
)
def test_a_process_is_one_of_several_only_where_a_cluster_says_so(environment: dict[str, str], expected: str) -> None:
    assert cluster.detect(environment) == expected


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


def test_a_process_alone_does_what_the_first_would() -> None:
    assert cluster.on_first_process(lambda: (1, "a")) == (1, "a")
    with pytest.raises(ValueError, match="why"):
        cluster.on_first_process(lambda: int("why"), errors=ValueError)


@pytest.mark.long
def test_the_others_wait_longer_than_a_first_exchange_of_devices_would() -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    commands = [[sys.executable, "-c", LATE, coordinator, str(index)] for index in range(2)]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for command in commands
    ]
    try:
        said = [process.communicate(timeout=200) for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], said
    assert all(out.endswith(b"done\n") for out, _ in said)
