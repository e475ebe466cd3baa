"""Where a program runs: the cluster, if any, and what cannot end well, found before anything is compiled."""

import importlib.util
import os
import sys
from collections.abc import Mapping

from flam_jax.process import has_tpu

# What JAX takes for yes.
_YES = ("y", "yes", "t", "true", "on", "1")
# JAX's switches under which this package's programs do not compile or compute other numbers.
_SWITCHES = {
    "JAX_ENABLE_X64": "arrays of 64 bits do not fit the checkpoints and records of 32",
    "JAX_DISABLE_JIT": "the training step is compiled ahead",
}


class SurroundingsError(RuntimeError):
    """Surroundings in which this package cannot work; the message is one line."""


def find_problems(environment: Mapping[str, str] | None = None) -> list[str]:
    """What cannot work, one line each, as far as it can be told without asking JAX.

    Args:
      environment: variables, those of this process by default.
    """
    environment = os.environ if environment is None else environment
    problems = []
    for name, reason in _SWITCHES.items():
        if environment.get(name, "").lower() in _YES:
            problems.append(f"{name}={environment[name]}: expected unset, {reason}")
        elif name == "JAX_ENABLE_X64" and "jax" in sys.modules and sys.modules["jax"].config.jax_enable_x64:
            problems.append(f"jax_enable_x64 is set: expected False, {reason}")
    return problems


def detect_cluster(environment: Mapping[str, str]) -> str:
    """The name of the cluster that started this process as one of several; empty on a single machine.

    A job of one process needs no coordinator, and a shell within a job is not one of its processes: both run alone.
    Of those that JAX cannot join by itself, `cluster.start` says what to do.
    """
    if "SLURM_STEP_ID" in environment and _count(environment, "SLURM_STEP_NUM_TASKS") > 1:
        return "SLURM"
    if _count(environment, "OMPI_COMM_WORLD_SIZE") > 1:
        return "Open MPI"
    if _count(environment, "PMI_SIZE") > 1:
        return "MPI"
    if environment.get("JAX_PLATFORMS", "").startswith("cpu"):
        return ""
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES") or ""
    if "," in hosts:
        return "TPU pod on GKE"
    # A Cloud TPU machine says by its metadata whether it is one of several; asking costs time, and nothing elsewhere.
    if has_tpu() and importlib.util.find_spec("libtpu") and "TPU_SKIP_MDS_QUERY" not in environment:
        return "Cloud TPU"
    return ""


def _count(environment: Mapping[str, str], name: str) -> int:
    """A number of processes; 1 where the variable is unset or no number."""
    text = environment.get(name, "")
    return int(text) if text.isdecimal() else 1


def check_surroundings() -> None:
    """Refuses to begin where it cannot end well. Call it before JAX is asked for its devices.

    Raises:
      SurroundingsError: names the variable, and what was expected.
    """
    for problem in find_problems():
        raise SurroundingsError(problem)


def check_devices() -> None:
    """Asks JAX for its devices, once all processes of the run are joined.

    Raises:
      SurroundingsError: there are none of the kind that was asked for.
    """
    import jax

    try:
        jax.devices()
    except RuntimeError as error:
        line = str(error).strip().splitlines()[0][:300]
        asked = os.environ.get("JAX_PLATFORMS")
        what = f"JAX_PLATFORMS={asked}" if asked else "JAX finds no device"
        raise SurroundingsError(f"{what}: {line}") from error


__all__ = ["SurroundingsError", "check_devices", "check_surroundings", "detect_cluster", "find_problems"]
