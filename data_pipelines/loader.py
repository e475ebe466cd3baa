"""Batches of windows from the records of a split, in one order whatever reads them."""

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np
from absl import flags

from data_pipelines.errors import DataError
from data_pipelines.generation import usable_cores

# Threads that read; unpacking a record leaves Python to others. Each has one batch in the making.
_MOST_THREADS = 8
_BATCHES_AHEAD = 2
_FOR_EVER = 2**40


@runtime_checkable
class Records(Protocol):
    """What the loader reads: records by number, each a dict of arrays with time first.

    One that knows of records that cannot be read has `find`, `skips`, `mark_unreadable` and `faults` too
    (`ClipSource`).
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, np.ndarray]: ...


@dataclass(frozen=True)
class WindowPlan:
    """Which windows make up a batch, as a function of the batch's number alone: sliceable, resumable, shareable.

    An epoch takes one window from every record. The order of records and the starts of their windows are drawn anew for
    every epoch from `(seed, epoch)`. Batches run on across the end of an epoch when `repeat`.
    """

    num_records: int
    record_length: int  # frames
    window: int  # frames
    batch_size: int  # windows, over all processes
    seed: int
    shuffle: bool
    repeat: bool
    rows: tuple[int, ...]  # of every batch, those that this process reads

    def __len__(self) -> int:
        return _FOR_EVER if self.repeat else math.ceil(self.num_records / self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """`(record, start)`, int64[b] each: those rows of batch `index` that this process reads."""
        step = int(index)
        if not 0 <= step < len(self):
            raise IndexError(step)
        numbers = [step * self.batch_size + row for row in self.rows]
        rows = [divmod(number, self.num_records) for number in numbers if self.repeat or number < self.num_records]
        orders = {epoch: _order(self, epoch) for epoch, _ in rows}
        records = np.array([orders[epoch][0][place] for epoch, place in rows], np.int64)
        starts = np.array([orders[epoch][1][place] for epoch, place in rows], np.int64)
        return records, starts


@functools.lru_cache(maxsize=8)
def _order(plan: WindowPlan, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Records and starts of one epoch, in order."""
    rng = np.random.default_rng((plan.seed, epoch))
    records = np.arange(plan.num_records)
    shuffled = rng.permutation(plan.num_records)
    starts = rng.integers(plan.record_length - plan.window + 1, size=plan.num_records)
    return (shuffled if plan.shuffle else records), starts


class _ReadWindows(grain.transforms.Map):
    def __init__(self, source: Records, window: int, keys: Sequence[str]):
        self._source = source
        self._window = window
        self._keys = tuple(keys)

    def map(self, element: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
        records, starts = element
        find = getattr(self._source, "find", None)
        columns: dict[str, list[np.ndarray]] = {key: [] for key in self._keys}
        found = records.copy()
        for row, (record, start) in enumerate(zip(records.tolist(), starts.tolist(), strict=True)):
            found[row], fields = find(record, self._keys) if find else (record, self._source[record])
            for key in self._keys:
                columns[key].append(fields[key][start : start + self._window])
        batch = {key: np.stack(column) for key, column in columns.items()} | {"record": found, "start": starts}
        if getattr(self._source, "skips", False):
            batch["skipped"] = np.where(found == records, -1, records)
        return batch


class Loader(Iterator[dict[str, np.ndarray]]):
    """Iterates over batches. Its state is the number of the next batch, whatever the processes and workers."""

    def __init__(self, source: Records, dataset: grain.MapDataset, plan: WindowPlan, num_workers: int):
        self._source: Any = source
        self._dataset = dataset
        self._plan = plan
        self._num_workers = num_workers
        self._step = 0
        self._iterator: Any = None
        self._told: set[str] = set()

    @property
    def batches_per_epoch(self) -> float:
        """Batches in which every record comes up once."""
        return self._plan.num_records / self._plan.batch_size

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        """Raises DataError when a record cannot be read, StopIteration at the end when not repeating."""
        if self._iterator is None:
            self._iterator = self._start()
        batch = next(self._iterator)
        self._step += 1
        if "skipped" in batch:  # what worker processes have met
            self._source.mark_unreadable(batch["skipped"][batch["skipped"] >= 0].tolist())
        # Batches of worker processes lie in shared memory, which complains when it outlives the loader.
        return {key: np.array(value) for key, value in batch.items()} if self._num_workers else batch

    def faults(self, records: Iterable[int]) -> list[str]:
        """One line for each file in which some of these skipped records lie; no line twice."""
        lines = [line for line in self._source.faults(records) if line not in self._told]
        self._told.update(lines)
        return lines

    def get_state(self) -> dict[str, int]:
        """The number of the next batch; plain numbers, fit for JSON."""
        return {"step": self._step}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes on with the batch that `get_state` named, at no cost, on whatever number of processes or workers."""
        self.close()
        self._step = int(state["step"])

    def close(self) -> None:
        """Ends the threads and worker processes; the next batch starts them again."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _start(self) -> Any:
        dataset = self._dataset[self._step :] if self._step else self._dataset
        threads = max(2, min(_MOST_THREADS, usable_cores() // max(1, self._num_workers)))
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + _BATCHES_AHEAD)
        dataset = dataset.to_iter_dataset(options)
        if self._num_workers:
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # grain's workers ask for flags, which only absl programs have parsed
            dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=self._num_workers))
        return iter(dataset)


def make_loader(
    source: Records,
    *,
    batch_size: int,
    window: int,
    seed: int,
    shuffle: bool = True,
    repeat: bool = True,
    num_workers: int = 0,
    rows: Sequence[int] | None = None,
    keys: Sequence[str] = ("frames",),
) -> Loader:
    """Batches of random windows.

    Args:
      source: records; those of `Dataset.split`, or any sequence of dicts of arrays with time first.
      batch_size: windows a batch over all processes.
      window: consecutive frames of one record.
      seed: of the order and of the windows' starts.
      shuffle: a new order of records every epoch; otherwise the records' own order. Starts are random in both cases.
      repeat: go on for ever, batches running across the ends of epochs; otherwise one epoch, whose last batch may be
        smaller.
      num_workers: processes that read; 0 reads in threads.
      rows: of every batch, those that this process reads, from 0; all of them by default.
      keys: fields to cut windows from.

    Returns:
      An iterator of `{key: [b window ...] for key in keys}` with `"record"` and `"start"`, int64[b]: which record, and
      which of its frames comes first. From records that are skipped where they cannot be read, also `"skipped"`,
      int64[b]: the record that `"record"` stands in for, or -1.

    Raises:
      DataError: there are no records, or their clips are shorter than the window.
      ValueError: a batch has no such rows.
    """
    rows = tuple(range(batch_size) if rows is None else rows)
    if not rows or not all(0 <= row < batch_size for row in rows):
        raise ValueError(f"rows = {rows}: expected some of 0 to {batch_size - 1}")
    if not len(source):
        raise DataError(f"{source!r} has no records")
    length = len(source[0][keys[0]])
    if window > length:
        raise DataError(f"a window of {window} frames does not fit into clips of {length}")
    plan = WindowPlan(len(source), length, window, batch_size, seed, shuffle, repeat, rows)
    dataset = grain.MapDataset.source(plan).map(_ReadWindows(source, window, keys))
    return Loader(source, dataset, plan, num_workers)
