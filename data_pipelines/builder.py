"""What the TFDS builders share: the features of a clip, and record files written on several processes."""

import contextlib
import math
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core import example_serializer, file_adapters, splits

from data_pipelines.data_card import DataCard
from data_pipelines.errors import DataError
from data_pipelines.generation import num_processes, run_tasks
from data_pipelines.metadata import record_fields
from data_pipelines.paths import take_folders_literally
from data_pipelines.recipe import Recipe
from data_pipelines.spec import DatasetSpec

take_folders_literally()  # here, so that the processes that write records do it too

# Raw bytes per record file. A process holds one file in memory, and reports when it is written.
_SHARD_BYTES = 32 * 2**20
_FORMAT = file_adapters.FileFormat.ARRAY_RECORD

# `(unit, number of clips)`: a unit is made by itself and belongs to one split.
Unit = tuple[Any, int]


class RecordBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Writes clips, one a record, to ArrayRecord files.

    Built on TFDS's shard-wise builder because its example-wise one sorts data sets above one gigabyte through
    TensorFlow's file system. It writes to a folder of another name, which it renames when everything is written. The
    record files are written here, so that one process and several write the same.

    Args:
      recipe: what to make.
      spec: what the records hold beside `frames`, `episode` and `clip`.
      data_dir: folder of all data sets.
      workers: processes; 0 means one per core as far as that is worth it.
    """

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION: ClassVar[str]
    SECONDS_PER_FRAME: ClassVar[float]  # a guess, for the number of processes

    def __init__(self, recipe: Recipe, spec: DatasetSpec, data_dir: str, workers: int = 1):
        self.recipe, self.spec, self.workers = recipe, spec, workers
        self.planned: dict[str, list[Unit]] = {}
        self._advance: Callable[[int], None] = lambda _: None
        super().__init__(data_dir=data_dir, config=tfds.core.BuilderConfig(name=recipe.label))

    def plan(self, folder: Path, show_progress: bool) -> None:
        """Finds out which units each split has, in order: `planned`.

        Args:
          folder: of the data set, for what is kept between two starts.
          show_progress: of what takes long, on standard error.

        Raises:
          DataError: there is too little for three splits, or what is to be read cannot be.
        """
        raise NotImplementedError

    @classmethod
    def serialized(cls, recipe: Recipe, spec: DatasetSpec, units: list[Unit]) -> Iterator[bytes]:
        """The records of some units, as they are stored; runs in any process."""
        raise NotImplementedError

    @staticmethod
    def displaced(recipe: Recipe, record: dict[str, Any]) -> dict[str, Any]:
        """A clip with the actions of a record in other places, where that can be had (`DatasetSpec`)."""
        raise DataError(f"the clips of {recipe.dataset} cannot be played again with the same actions")

    @classmethod
    def measured(cls, recipe: Recipe, spec: DatasetSpec) -> DatasetSpec:
        """The specification with the sizes that only the data tell (`spec.ANY_SIZE`).

        Raises:
          DataError: what is to be read cannot be.
        """
        return spec

    @staticmethod
    def changes(recipe: Recipe, card: DataCard) -> list[str]:
        """Lines on what has changed in the source since it was read."""
        return []

    @property
    def num_frames(self) -> int:
        """Frames of all splits, after `plan`."""
        return sum(count for units in self.planned.values() for _, count in units) * self.recipe.clip_length

    def write(self, advance: Callable[[int], None]) -> None:
        """Writes what was planned.

        Args:
          advance: called with the number of frames written since the last call.
        """
        self._advance = advance
        self.download_and_prepare()

    def shards(self) -> dict[str, list[list[Unit]]]:
        """The units of each record file of each split."""
        limit = clips_of_a_file(self.recipe, self.spec)
        shards: dict[str, list[list[Unit]]] = {}
        for name, units in self.planned.items():
            shards[name] = [[]]
            clips = 0
            for unit in units:
                if clips and clips + unit[1] > limit:
                    shards[name].append([])
                    clips = 0
                shards[name][-1].append(unit)
                clips += unit[1]
        return shards

    def _info(self) -> tfds.core.DatasetInfo:
        features = stored_features(self.recipe, self.spec)
        info = tfds.core.DatasetInfo(
            builder=self, description=self.DESCRIPTION, features=features, disable_shuffling=True
        )
        info.set_file_format(_FORMAT)
        return info

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, Any]:
        raise NotImplementedError  # of TFDS, which `_download_and_prepare` does without

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        shards = self.shards()
        templates = {name: self._get_filename_template(split_name=name) for name in shards}
        tasks, places = [], []
        for name, parts in shards.items():
            for number, units in enumerate(parts):
                path = templates[name].sharded_filepath(shard_index=number, num_shards=len(parts))
                tasks.append((type(self), self.recipe, self.spec, units, str(path)))
                places.append((name, number))
        lengths = {name: [0] * len(parts) for name, parts in shards.items()}
        sizes = dict.fromkeys(lengths, 0)
        for task, count in self._written(tasks):
            name, number = places[task]
            lengths[name][number] = count
            sizes[name] += Path(tasks[task][4]).stat().st_size
        infos = [
            splits.SplitInfo(
                name=name, shard_lengths=lengths[name], num_bytes=sizes[name], filename_template=templates[name]
            )
            for name in lengths
        ]
        self.info.set_splits(splits.SplitDict(infos))

    def _written(self, tasks: list[tuple[Any, ...]]) -> Iterator[tuple[int, int]]:
        """Number of a task and of the records that it wrote, as they come."""
        workers = num_processes(self.workers, self.num_frames * self.SECONDS_PER_FRAME)
        if workers == 1:
            for number, task in enumerate(tasks):
                yield number, _write_shard(*task, advance=self._advance)
            return
        for number, count in run_tasks(_write_shard, tasks, workers):
            self._advance(count * self.recipe.clip_length)
            yield number, count

    def _create_builder_config(self, builder_config: Any, version: Any) -> Any:
        return builder_config  # without TFDS's warning that it is not in a fixed list

    def _make_download_manager(self, **unused: Any) -> Any:
        # Nothing is downloaded: no folder for that, no list of checksums (which would need one package more), no word.
        return types.SimpleNamespace(downloaded_size=0)

    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass


class ClipBuilder(RecordBuilder, skip_registration=True):
    """Makes what it writes.

    The records are a function of the recipe alone: units, which are episodes or levels, seed themselves and come in
    order, and so do files of them.
    """

    @staticmethod
    def units(recipe: Recipe) -> dict[str, list[Unit]]:
        """The units of each split, in order."""
        raise NotImplementedError

    @staticmethod
    def make_unit(recipe: Recipe, unit: int, num_clips: int) -> list[dict[str, Any]]:
        """Makes the records of one unit; runs in any process."""
        raise NotImplementedError

    def plan(self, folder: Path, show_progress: bool) -> None:
        self.planned = self.units(self.recipe)

    @classmethod
    def serialized(cls, recipe: Recipe, spec: DatasetSpec, units: list[Unit]) -> Iterator[bytes]:
        serialize = make_serializer(recipe, spec)
        for unit, num_clips in units:
            with reading(f"{recipe.dataset} cannot be made"):
                records = cls.make_unit(recipe, unit, num_clips)
            yield from map(serialize, records)


def stored_features(recipe: Recipe, spec: DatasetSpec) -> tfds.features.FeaturesDict:
    """What a record holds, for TFDS."""
    # "bytes": the numbers as they lie in memory. The default spends up to two bytes and a Python object on a pixel.
    return tfds.features.FeaturesDict(
        {
            name: tfds.features.Tensor(shape=field.shape, dtype=field.dtype, encoding="bytes")
            if field.shape
            else tfds.features.Scalar(field.dtype)
            for name, field in record_fields(recipe, spec).items()
        }
    )


def make_serializer(recipe: Recipe, spec: DatasetSpec) -> Callable[[dict[str, Any]], bytes]:
    """A function from the fields of a record to its bytes."""
    features = stored_features(recipe, spec)
    described: Any = features.get_serialized_info()
    serializer = example_serializer.ExampleSerializer(described)
    return lambda record: serializer.serialize_example(features.encode_example(record))


def clips_of_a_file(recipe: Recipe, spec: DatasetSpec) -> int:
    """How many clips a record file holds, at most, unless one unit has more."""
    fields = record_fields(recipe, spec).values()
    return max(1, _SHARD_BYTES // sum(abs(math.prod(field.shape)) * field.dtype.itemsize for field in fields))


@contextlib.contextmanager
def open_records(path: str | Path) -> Iterator[Callable[[bytes], None]]:
    """A new record file; gives the function that adds a record."""
    writer = ArrayRecordWriter(str(path), "group_size:1")  # a record can be read without its neighbors
    try:
        yield writer.write
    finally:
        writer.close()


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Tells errors of the disk that come up here from those of writing records."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{what}: {error.filename or ''} {error.strerror or error}".replace(":  ", ": ")) from error


def _write_shard(
    builder: type[RecordBuilder],
    recipe: Recipe,
    spec: DatasetSpec,
    units: list[Unit],
    path: str,
    advance: Callable[[int], None] = lambda _: None,
) -> int:
    """Writes a record file; returns its number of records."""
    count = 0
    with open_records(path) as add:
        for record in builder.serialized(recipe, spec, units):
            add(record)
            advance(recipe.clip_length)
            count += 1
    return count
