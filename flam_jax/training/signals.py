"""Asking a run to end: SIGTERM from a scheduler or a spot machine, SIGINT from the keyboard."""

import signal
import threading
from types import FrameType
from typing import Any

from jax.experimental import multihost_utils

# Exit status of a run that saved a checkpoint and can go on with the same command (sysexits: EX_TEMPFAIL).
PREEMPTED_STATUS = 75


class Preempted(Exception):
    """The run was asked to end; a checkpoint of `step` is on disk."""

    def __init__(self, stage: str, step: int):
        super().__init__(f"{stage}: stopped at step {step} with a checkpoint; the same command resumes from there")
        self.stage, self.step = stage, step


class StopRequest:
    """While open, the first SIGTERM or SIGINT only sets `asked`; a second one acts as usual.

    Several processes must end at the same step, whichever of them is asked, and when. There JAX's coordination service
    listens for SIGTERM and agrees on the step; SIGINT acts as usual.
    """

    def __init__(self, processes: int = 1) -> None:
        """Takes the number of processes that run as one."""
        self.asked = False
        self._processes = processes
        self._previous: dict[int, Any] = {}

    def before(self, step: int) -> bool:
        """Whether the run is to end before `step`: the same answer on all processes, which must ask for every step."""
        if self._processes > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.asked

    def __enter__(self) -> "StopRequest":
        # Python allows handlers in the main thread only.
        if self._processes == 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def __exit__(self, *_: object) -> None:
        self._restore()
