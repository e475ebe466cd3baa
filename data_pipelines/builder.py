"""What the TFDS builders share: the features of a clip, and record files written on several processes."""

import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import example_serializer, file_adapters, splits, writer

from data_pipelines.errors import DataError
from data_pipelines.generation import num_processes, run_tasks
from data_pipelines.metadata import record_fields
from data_pipelines.paths import take_folders_literally
from data_pipelines.recipe import Recipe
from data_pipelines.spec import DatasetSpec

take_folders_literally()  # here, so that the processes that write records do it too

# Raw bytes of frames per record file. A process holds one file in memory, and reports when it is written.
_SHARD_BYTES = 32 * 2**20
_FORMAT = file_adapters.FileFormat.ARRAY_RECORD

# `(unit, number of clips)`: a unit is an episode or a level, which seeds itself and belongs to one split.
Unit = tuple[int, int]


class ClipBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Writes clips, one a record, to ArrayRecord files.

    The records are a function of the recipe alone: units seed themselves and come in order, and so do files of them.
    Built on TFDS's shard-wise builder because its example-wise one sorts data sets above one gigabyte through
    TensorFlow's file system. It writes to a folder of another name, which it renames when everything is written.

    Args:
      recipe: what to make.
      spec: what the records hold beside `frames`, `episode` and `clip`.
      data_dir: folder of all data sets.
      workers: processes; 0 means one per core as far as that is worth it.
      advance: called with the number of frames made since the last call.
    """

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION: ClassVar[str]
    SECONDS_PER_FRAME: ClassVar[float]  # a guess, for the number of processes

    def __init__(
        self,
        recipe: Recipe,
        spec: DatasetSpec,
        data_dir: str,
        workers: int = 1,
        advance: Callable[[int], None] = lambda _: None,
    ):
        self._recipe, self._spec = recipe, spec
        self._workers = num_processes(workers, recipe.num_frames * self.SECONDS_PER_FRAME)
        self._advance = advance
        super().__init__(data_dir=data_dir, config=tfds.core.BuilderConfig(name=recipe.label))

    @staticmethod
    def units(recipe: Recipe) -> dict[str, list[Unit]]:
        """The units of each split, in order."""
        raise NotImplementedError

    @staticmethod
    def make_unit(recipe: Recipe, unit: int, num_clips: int) -> list[dict[str, Any]]:
        """Makes the records of one unit; runs in any process."""
        raise NotImplementedError

    @staticmethod
    def displaced(recipe: Recipe, record: dict[str, Any]) -> dict[str, Any]:
        """A clip with the actions of a record in other places, where that can be had (`DatasetSpec`)."""
        raise DataError(f"the clips of {recipe.dataset} cannot be played again with the same actions")

    @classmethod
    def features(cls, recipe: Recipe, spec: DatasetSpec) -> tfds.features.FeaturesDict:
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

    @classmethod
    def shards(cls, recipe: Recipe) -> dict[str, list[list[Unit]]]:
        """The units of each record file of each split."""
        clip_bytes = recipe.clip_length * recipe.height * recipe.width * 3
        limit = max(1, _SHARD_BYTES // clip_bytes)
        shards: dict[str, list[list[Unit]]] = {}
        for name, units in cls.units(recipe).items():
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
        features = self.features(self._recipe, self._spec)
        info = tfds.core.DatasetInfo(
            builder=self, description=self.DESCRIPTION, features=features, disable_shuffling=True
        )
        info.set_file_format(_FORMAT)
        return info

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Callable[[], Iterator[tuple[int, Any]]]]]:
        def iterator(units: list[Unit]) -> Callable[[], Iterator[tuple[int, Any]]]:
            return lambda: _records(type(self), self._recipe, units, self._advance)

        return {name: [iterator(units) for units in shards] for name, shards in self.shards(self._recipe).items()}

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        if self._workers == 1:
            super()._download_and_prepare(dl_manager, download_config)
            return
        # The same files by the same means, each written by the process that makes its records.
        templates = {name: self._get_filename_template(split_name=name) for name in self.shards(self._recipe)}
        tasks, places = [], []
        for name, shards in self.shards(self._recipe).items():
            for number, units in enumerate(shards):
                path = templates[name].sharded_filepath(shard_index=number, num_shards=len(shards))
                tasks.append((type(self), self._recipe, self._spec, units, str(path)))
                places.append((name, number))
        lengths = {name: [0] * len(shards) for name, shards in self.shards(self._recipe).items()}
        sizes = dict.fromkeys(lengths, 0)
        for task, count in run_tasks(_write_shard, tasks, self._workers):
            name, number = places[task]
            lengths[name][number] = count
            sizes[name] += Path(tasks[task][4]).stat().st_size
            self._advance(count * self._recipe.clip_length)
        infos = [
            splits.SplitInfo(
                name=name, shard_lengths=lengths[name], num_bytes=sizes[name], filename_template=templates[name]
            )
            for name in lengths
        ]
        self.info.set_splits(splits.SplitDict(infos))

    def _create_builder_config(self, builder_config: Any, version: Any) -> Any:
        return builder_config  # without TFDS's warning that it is not in a fixed list

    def _make_download_manager(self, **unused: Any) -> Any:
        # Nothing is downloaded: no folder for that, no list of checksums (which would need one package more), no word.
        return types.SimpleNamespace(downloaded_size=0)

    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass


def _records(
    builder: type[ClipBuilder], recipe: Recipe, units: list[Unit], advance: Callable[[int], None] = lambda _: None
) -> Iterator[tuple[int, dict[str, Any]]]:
    key = 0
    for unit, num_clips in units:
        for record in builder.make_unit(recipe, unit, num_clips):
            advance(recipe.clip_length)
            yield key, record
            key += 1


def _write_shard(builder: type[ClipBuilder], recipe: Recipe, spec: DatasetSpec, units: list[Unit], path: str) -> int:
    features = builder.features(recipe, spec)
    specs: Any = features.get_serialized_info()
    serializer = example_serializer.ExampleSerializer(specs)
    shard = writer.ShardWriter(features, serializer, writer.ExampleWriter(_FORMAT))
    return shard.write(_records(builder, recipe, units), epath.Path(path))
