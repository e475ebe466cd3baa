"""Asking a run to end: SIGTERM from a scheduler or a spot machine, SIGINT from the keyboard, SIGHUP from a terminal
that is closed."""

import signal
import threading
from types import FrameType
from typing import Any

from jax.experimental import multihost_utils

# Exit status of a run that saved a checkpoint and can go on with the same command (sysexits: EX_TEMPFAIL).
PREEMPTED_STATUS = 75
_HANG_UP = getattr(signal, "SIGHUP", 0)  # not on every system


class Preempted(Exception):
    """The run was asked to end; a checkpoint of `step` is on disk."""

    def __init__(self, stage: str, step: int):
        super().__init__(f"{stage}: stopped at step {step} with a checkpoint; the same command resumes from there")
        self.stage, self.step = stage, step


class StopRequest:
    """While open, the first SIGTERM, SIGINT or SIGHUP only sets `asked`; a second one acts as usual.

    A terminal that closes may send SIGHUP twice: more of them change nothing. Where they are ignored, as under `nohup`,
    they stay so.

    Several processes must end at the same step, whichever of them is asked, and when. There JAX's coordination service
    listens for SIGTERM and agrees on the step; SIGHUP is passed on to it, SIGINT acts as usual.
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
        if threading.current_thread() is not threading.main_thread():
            return self
        alone = self._processes == 1
        handlers: dict[int, Any] = dict.fromkeys((signal.SIGTERM, signal.SIGINT), self._ask) if alone else {}
        if _HANG_UP and signal.getsignal(_HANG_UP) is not signal.SIG_IGN:
            handlers[_HANG_UP] = self._ask if alone else _terminate
        self._previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore(signal.SIGTERM, signal.SIGINT)

    def _restore(self, *numbers: int) -> None:
        for number in numbers:
            if number in self._previous:
                signal.signal(number, self._previous.pop(number))

    def __exit__(self, *_: object) -> None:
        self._restore(*self._previous)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGTERM)
