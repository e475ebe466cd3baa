"""Several processes that run one program: how they find each other, and what one of them does for all."""

import inspect
import itertools
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from flam_jax.surroundings import detect_cluster

Result = TypeVar("Result")

# How long processes wait for one that is at work: the first evaluates a finished model while the others have nothing
# left to do but to leave together with it.
_PATIENCE_SECONDS = 7 * 86_400
_REMEDY = (
    "; tell each process by --coordinator=HOST:PORT --num_processes=N --process_id=I, for example from the variables of"
    " the cluster"
)
# What exchanges between devices and the coordination service say of a process that is gone (Gloo, NCCL, gRPC).
_SIGNS_OF_LOSS = (
    *("Connection reset by peer", "Connection closed by peer", "Socket closed", "heartbeat timeout"),
    *("Barrier failed because", "The task is not connected", "unhealthy", "remote process exited"),
)
_meetings = itertools.count()


class ClusterError(RuntimeError):
    """The processes of a run cannot find each other; the message is one line."""


def start(flags: Mapping[str, str] | None = None) -> None:
    """Joins the processes of this run, before anything asks JAX for its devices. A single machine never needs it.

    Processes are joined where `flags` say so, and where a cluster says that there are several: a step of SLURM, Open
    MPI, a TPU pod or GKE. JAX then finds the coordinator by itself.

    Args:
      flags: `coordinator` (host:port of process 0), `num_processes` and `process_id`; all of them or none.

    Raises:
      ClusterError: the others did not come.
    """
    arguments: dict[str, Any] = {}
    if flags:
        arguments = {
            "coordinator_address": flags["coordinator"],
            "num_processes": int(flags["num_processes"]),
            "process_id": int(flags["process_id"]),
            "cluster_detection_method": "deactivate",  # JAX would look into a cluster's variables for what is left
        }
    elif not detect_cluster(os.environ):
        return
    if "shutdown_timeout_seconds" in inspect.signature(jax.distributed.initialize).parameters:  # not in older versions
        arguments["shutdown_timeout_seconds"] = _PATIENCE_SECONDS
    try:
        jax.distributed.initialize(**arguments)
    except Exception as error:  # what JAX makes of a cluster's variables that are not there is of any kind
        lines = str(error).strip().splitlines()
        line = f"{lines[0]}" if lines and not isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        where = "the coordinator" if flags else detect_cluster(os.environ)
        raise ClusterError(f"{where}: processes cannot be joined: {line}{'' if flags else _REMEDY}") from error


def has_lost_peer(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that another process of this run has ended."""
    while error is not None:
        # Asked last: where there are no devices, their number is an error of its own.
        if any(sign in str(error) for sign in _SIGNS_OF_LOSS) and jax.process_count() > 1:
            return True
        error = error.__cause__ or error.__context__
    return False


def wait_for_all() -> None:
    """Returns when every process has come here, however long the slowest takes; all of them must come.

    By way of the coordinator. What devices exchange is not for waiting: on CPUs the first exchange fails when one
    process comes half a minute after another ("Gloo context initialization failed"), and where processes compile or
    prepare data each for itself, on a machine with other work to do, they do not come closer together than that.
    """
    if jax.process_count() == 1:
        return
    from orbax.checkpoint import multihost  # slow to import, and of no use to a process alone

    multihost.get_barrier_sync_fn()(key=f"flam_jax.{next(_meetings)}", timeout_ms=1000 * _PATIENCE_SECONDS)


def on_first_process(
    function: Callable[[], Result], *, errors: type[Exception] | tuple[type[Exception], ...] = ()
) -> Result:
    """What `function` gives on process 0, on every process; the others wait for it.

    Args:
      function: its result must survive JSON (tuples come back as lists).
      errors: those that it may raise, with one text as their only argument. They are raised on every process: one
        that went on alone would wait for ever.
    """
    if jax.process_count() == 1:
        return function()
    message: dict[str, Any] = {}
    kinds = errors if isinstance(errors, tuple) else (errors,)
    if jax.process_index() == 0:
        try:
            message = {"result": function()}
        except kinds as error:
            message = {"error": str(error), "kind": [isinstance(error, kind) for kind in kinds].index(True)}
    wait_for_all()
    message = json.loads(_broadcast(json.dumps(message).encode()))
    if "error" in message:
        raise kinds[message["kind"]](message["error"])
    return message["result"]


def _broadcast(data: bytes) -> bytes:
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = np.zeros(size, np.uint8)
    if jax.process_index() == 0:
        padded[:] = np.frombuffer(data, np.uint8)
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded)))


def log_line(text: str) -> None:
    """Prints a line, once for all processes."""
    if jax.process_index() == 0:
        print(text, flush=True)


def from_all_processes(array: np.ndarray) -> np.ndarray:
    """Arrays of one shape that every process has, joined along their first axis on every process."""
    if jax.process_count() == 1:
        return array
    return np.concatenate(list(np.asarray(multihost_utils.process_allgather(array))))


def on_this_process(tree: Any) -> Any:
    """Arrays that are spread over processes, whole on the first device of each; others as they are."""
    if jax.process_count() == 1:
        return tree

    def whole(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        return jax.device_put(np.asarray(multihost_utils.process_allgather(leaf, tiled=True)), jax.local_devices()[0])

    return jax.tree.map(whole, tree)
