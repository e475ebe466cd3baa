"""How far a long job is: a bar on a terminal, a line every few seconds elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

_SECONDS_BETWEEN_LINES = 5.0


@contextlib.contextmanager
def progress(title: str, total: int, unit: str, enabled: bool = True) -> Iterator[Callable[[int], None]]:
    """Shows on standard error how much of `total` is done and how long the rest will take.

    Args:
      title: what is being done.
      total: amount of work.
      unit: what is counted, for example `"frames"`.
      enabled: False shows nothing.

    Yields:
      A function to call with the amount done since the last call.
    """
    if not enabled:
        yield lambda amount: None
    elif sys.stderr.isatty():
        with _bar(title, total, unit) as advance:
            yield advance
    else:
        with _lines(title, total, unit) as advance:
            yield advance


@contextlib.contextmanager
def _bar(title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda amount: bar.advance(task, amount)


@contextlib.contextmanager
def _lines(title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    begun = last = time.monotonic()
    done = 0
    # The rate counts from the first amount that was done: starting processes takes seconds that are no measure of it.
    first: tuple[float, int] | None = None

    def advance(amount: int) -> None:
        nonlocal done, last, first
        done += amount
        now = time.monotonic()
        if first is None:
            first = (now, done)
        elif now - last >= _SECONDS_BETWEEN_LINES and done > first[1]:
            last = now
            left = (total - done) * (now - first[0]) / (done - first[1])
            print(
                f"{title}: {done} of {total} {unit} ({done / total:.0%}), {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    yield advance
    seconds = time.monotonic() - begun
    print(f"{title}: {done} {unit} in {seconds:.1f} s", file=sys.stderr, flush=True)
