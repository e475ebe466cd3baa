"""Starts the launcher again and again and kills it at random moments, until it has ended; started by test_kills.py.

Prints as JSON how often it was killed, how often while a checkpoint was being written, and the last status. Every
start is a fork of this process, which has imported everything and has not yet asked JAX for devices: a start takes a
second instead of five.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import orbax.checkpoint  # noqa: F401  # for the forks

import data_pipelines  # noqa: F401
import flam_jax.evaluation
import flam_jax.training.stages.dynamics
import flam_jax.training.stages.tokenizer
import flam_jax.training.trainer  # noqa: F401
from flam_jax.main import main

SECONDS = 1.0  # a kill comes at random within so long after what it waits for: a little longer than a save takes


def start(arguments: list[str], output: Path) -> int:
    """A process that runs the launcher."""
    child = os.fork()
    if child == 0:
        with output.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        status = 70
        try:
            status = main(arguments)
            sys.stdout.flush()
        finally:
            os._exit(status)
    return child


def wait(child: int, seconds: float) -> int | None:
    """The exit status, or None when it still runs after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def saves(workdir: Path) -> set[str]:
    """Names of the checkpoints that are being written."""
    return {str(path) for path in workdir.glob("*/checkpoints/*tmp*")}


def wait_for(child: int, workdir: Path, number: int) -> int | None:
    """As `wait`, until so many saves have begun; for the first step where none is asked for."""
    metrics = workdir / "metrics.jsonl"
    size = metrics.stat().st_size if metrics.exists() else 0
    left_over = saves(workdir)
    begun: set[str] = set()
    while True:
        status = wait(child, 0.01)
        begun |= saves(workdir) - left_over
        stepped = metrics.exists() and metrics.stat().st_size > size
        if status is not None or (len(begun) >= number if number else stepped):
            return status


def run(workdir: Path, kills: int, arguments: list[str]) -> dict[str, int | None]:
    draw = random.Random(0)
    killed = writing = 0
    while True:
        child = start(arguments, workdir.with_suffix(".txt"))
        if killed == kills:
            return {"killed": killed, "writing": writing, "status": wait(child, 600)}
        number = draw.choice((None, 0, 1, 1, 2))  # None: at any time
        status = None if number is None else wait_for(child, workdir, number)
        if status is None:
            status = wait(child, draw.uniform(0, SECONDS if number is not None else 5 * SECONDS))
        if status is not None:  # it ended before its time
            return {"killed": killed, "writing": writing, "status": status}
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        killed += 1
        writing += bool(saves(workdir))


if __name__ == "__main__":
    workdir, kills, *arguments = sys.argv[1:]
    print(json.dumps(run(Path(workdir), int(kills), [*arguments, f"--workdir={workdir}"])))
