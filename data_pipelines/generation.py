"""Runs tasks on several processes that end with this one."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from data_pipelines.errors import DataError

# A process spends about two seconds on starting; one more must have this much to do.
_SECONDS_WORTH_A_PROCESS = 5.0

T = TypeVar("T")


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_processes(requested: int, seconds: float) -> int:
    """Processes to use: `requested`, or when that is 0 as many usable cores as work of so many seconds is worth."""
    if requested > 0:
        return requested
    return max(1, min(usable_cores(), int(seconds / _SECONDS_WORTH_A_PROCESS)))


def run_tasks(
    function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], num_workers: int
) -> Iterator[tuple[int, T]]:
    """Calls `function(*task)` for each task on `num_workers` processes.

    Yields:
      `(number of the task, result)` as they come; the first error ends everything.

    Raises:
      DataError: a process died; besides, what `function` raises.
    """
    # Not fork: the parent may already hold the threads of an accelerator runtime.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_start_worker)
    try:
        numbers = {pool.submit(function, *task): number for number, task in enumerate(tasks)}
        for future in as_completed(numbers):
            yield numbers[future], future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "a process that generates data died: with too little memory config.data.generate_workers = 1 may help,"
            " and a script that calls prepare() needs `if __name__ == '__main__':`"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A killed parent cannot tell its workers, which would wait for work for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
