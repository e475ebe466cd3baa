"""A data set on disk: made once, found again, checked before it is used."""

import contextlib
import functools
import importlib
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from data_pipelines.data_card import DataCard, read_preview
from data_pipelines.errors import DataError
from data_pipelines.locks import FileLock, describe_lock_error
from data_pipelines.paths import replacing
from data_pipelines.progress import progress
from data_pipelines.recipe import Recipe, make_recipe
from data_pipelines.registry import DATASETS, definition, source_of
from data_pipelines.source import ClipSource, open_splits
from data_pipelines.spec import DatasetSpec

if TYPE_CHECKING:
    from data_pipelines.builder import RecordBuilder

_MEDIAN = "median_frame.npy"
_FRAMES_OF_MEDIAN = 512


@dataclass(frozen=True)
class Dataset:
    """Clips of video in three splits. Made by `prepare`."""

    directory: Path
    recipe: Recipe
    spec: DatasetSpec
    splits: dict[str, ClipSource]
    builder: "type[RecordBuilder]"

    def split(self, name: str) -> ClipSource:
        """The records of `"train"`, `"val"` or `"test"`.

        Raises:
          KeyError: there is no such split.
        """
        return self.splits[name]

    @functools.cached_property
    def median_frame(self) -> UInt8[np.ndarray, "H W 3"]:
        """The median over frames of the training split: what stays when everything that moves is erased."""
        return _load_median(self.directory)

    @property
    def num_frames(self) -> int:
        """Over all splits."""
        return sum(map(len, self.splits.values())) * self.recipe.clip_length

    def displaced(self, record: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Another clip in which all actors do what they do in a record, from another start.

        The honest test of a latent action is what it does in a clip that it was not inferred from.

        Raises:
          DataError: this data set has none, or the library that makes them is missing.
        """
        return self.builder.displaced(self.recipe, record)

    def describe(self) -> str:
        """One line for logs, and one more for each file with records that cannot be read and are skipped."""
        counts = ", ".join(f"{len(source)} {name}" for name, source in self.splits.items())
        size = sum(file.stat().st_size for file in self.directory.iterdir() if file.is_file())
        recipe = self.recipe
        line = (
            f"{recipe.dataset} {recipe.label}: {counts} clips of {recipe.clip_length} frames,"
            f" {recipe.height}x{recipe.width}, {size / 2**20:.1f} MiB in {self.directory}"
        )
        card = [] if self.card is None else [*self.card.describe(), *self.builder.changes(self.recipe, self.card)]
        return "\n".join([line, *card, *self.faults()])

    def faults(self) -> list[str]:
        """One line for each file with records that cannot be read and are skipped, as far as they have been met."""
        return [line for source in self.splits.values() for line in source.faults()]

    @functools.cached_property
    def card(self) -> DataCard | None:
        """What the data were read from; None for data that are generated."""
        return DataCard.read(self.directory) if self.recipe.source else None

    @functools.cached_property
    def preview(self) -> UInt8[np.ndarray, "H W 3"] | None:
        """The picture of the data card, if there is one."""
        return read_preview(self.directory) if self.recipe.source else None


def prepare(data: Any, show_progress: bool = True) -> Dataset:
    """Finds the data set that a configuration asks for, and generates it first when it is not there.

    Args:
      data: the `data` node of a configuration: `name`, `path`, `seed`, `frame_size` (height and width in pixels),
        `num_frames`, `clip_length` (frames), `generate_workers` (processes; 0: as many cores as it is worth),
        `on_corrupt` (`stop` or `skip`: what to do about records that cannot be read, see `ClipSource`) and a node of
        the data set's own name.
      show_progress: while generating, on standard error.

    Raises:
      DataError: a library is missing, the path cannot be written, or what lies there is not the whole data set (with
        `on_corrupt = "skip"`: has no record of a split).
    """
    found = definition(data.name)
    if not found.builder:
        readable = ", ".join(name for name in DATASETS if definition(name).builder)
        raise DataError(f"config.data.name = {data.name!r}: there is no reader of it; there is {readable}")
    module, _, name = found.builder.partition(":")
    builder_class: type[RecordBuilder] = getattr(importlib.import_module(module), name)
    recipe, spec = make_recipe(data, found.variant(data), source_of(data)), found.spec(data)
    directory = Path(data.path) / recipe.dataset / recipe.label / str(builder_class.VERSION)
    if not os.path.exists(directory):  # Path.exists raises where a folder above it cannot be read
        _generate(builder_class, recipe, spec, directory, data, show_progress)
    splits = open_splits(directory, recipe, spec, skips=data.on_corrupt == "skip")
    spec = spec.resized({name: splits["train"].fields[name].shape[1:] for name in spec.open_annotations})
    dataset = Dataset(directory, recipe, spec, splits, builder_class)
    if not _has_median(dataset):  # or a damaged one: it is made from the clips
        _save_median(dataset)
    return dataset


def _generate(
    builder_class: "type[RecordBuilder]",
    recipe: Recipe,
    spec: DatasetSpec,
    directory: Path,
    data: Any,
    show_progress: bool,
) -> None:
    with _only_one(directory), _writing(directory):
        if os.path.exists(directory):  # another process was faster
            return
        for leftover in directory.parent.glob("incomplete.*"):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        builder = builder_class(recipe, builder_class.measured(recipe, spec), str(data.path), data.generate_workers)
        builder.plan(directory.parent, show_progress)
        for split, units in builder.planned.items():
            if not any(count for _, count in units):
                raise DataError(
                    f"config.data: the split {split} of {recipe.dataset} would have no clips; more data is needed"
                )
        title = f"{'Writing' if recipe.source else 'Generating'} {recipe.dataset} {recipe.label}"
        with progress(title, builder.num_frames, "frames", enabled=show_progress) as advance:
            builder.write(advance)


@contextlib.contextmanager
def _writing(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # those of reading are told where they come up
        raise DataError(f"config.data.path: cannot write to {directory}: {error}") from error


@contextlib.contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """Lets one process at a time generate; the lock ends with its process, however that ends."""
    path = directory.parent / ".lock"
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
    except OSError as error:
        raise DataError(f"config.data.path: {describe_lock_error(path, error)}") from error
    with lock:
        try:
            lock.acquire(wait=False)
        except BlockingIOError:
            if getattr(multiprocessing.current_process(), "_inheriting", False):
                # The generating process starts this one, which runs its script anew: both would wait for ever.
                raise DataError("a script that calls prepare() needs `if __name__ == '__main__':`") from None
            print(f"Waiting for another process that generates {directory.parent}", file=sys.stderr, flush=True)
            lock.acquire(wait=True)
        yield


def _load_median(directory: Path) -> np.ndarray:
    return np.load(directory / _MEDIAN, allow_pickle=False)


def _has_median(dataset: Dataset) -> bool:
    try:
        median = _load_median(dataset.directory)
    except (OSError, ValueError, EOFError):
        return False
    shape = (dataset.recipe.height, dataset.recipe.width, 3)
    return isinstance(median, np.ndarray) and median.dtype == np.uint8 and median.shape == shape


def _save_median(dataset: Dataset) -> None:
    """Stores the median over frames spread evenly over the training clips, one frame a clip."""
    train = dataset.split("train")
    clips = np.unique(np.linspace(0, len(train) - 1, min(len(train), _FRAMES_OF_MEDIAN)).astype(int))
    middle = dataset.recipe.clip_length // 2
    frames = np.stack([train.read(int(clip), ("frames",))["frames"][middle] for clip in clips])
    # The lower of the two middle values when there are two, so that it is a value that was seen.
    median = np.percentile(frames, 50, axis=0, method="lower").astype(np.uint8)
    try:
        with replacing(dataset.directory / _MEDIAN) as file:
            np.save(file, median)
    except OSError as error:
        raise DataError(f"config.data.path: cannot write to {dataset.directory}: {error.strerror or error}") from error
