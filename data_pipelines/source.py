"""Random access to the records of one split."""

import functools
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.recipe import SPLITS, Recipe


@dataclass(frozen=True)
class Field:
    """How one field of a record is stored."""

    shape: tuple[int, ...]  # of the whole clip; () for a number
    dtype: np.dtype


class ClipSource:
    """Records of one split; `source[i]` is a dict of arrays.

    Opens its files when they are first read, and can be pickled for other processes.
    """

    def __init__(self, split: str, files: list[tuple[Path, int]], fields: dict[str, Field]):
        self.split = split
        self.fields = fields
        self._files = files
        self._ends = np.cumsum([count for _, count in files]).tolist()
        self._readers: dict[int, Any] = {}
        self._lock = threading.Lock()
        # Here, where one thread runs: when several import TFDS at once, as the first reads would, they can deadlock.
        _example_type()

    def __len__(self) -> int:
        return self._ends[-1]

    def __repr__(self) -> str:
        return f"ClipSource({self.split}: {len(self)} records in {self._files[0][0].parent})"

    def __getstate__(self) -> tuple[Any, ...]:
        return self.split, self._files, self.fields

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """All fields of one record, read-only; `fields` has their shapes and types.

        Raises:
          IndexError: there is no such record.
          DataError: it cannot be read; names the file and the record's number in it.
        """
        return self.read(index, self.fields)

    def read(self, index: int, keys: Iterable[str]) -> dict[str, np.ndarray]:
        """Some fields of one record; errors as for `source[index]`, and KeyError for a field that there is not."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self!r} has no record {index}")
        index = int(index) % len(self)
        shard = next(number for number, end in enumerate(self._ends) if index < end)
        file, count = self._files[shard]
        position = index - self._ends[shard] + count
        try:
            record = self._reader(shard).read([position])[0]
            return _parse(record, {key: self.fields[key] for key in keys})
        except KeyError:
            raise
        except Exception as error:  # the reader's own errors have no common type
            raise DataError(
                f"{file}: record {position} cannot be read ({_one_line(error)}); delete the folder to generate it again"
            ) from error

    def _reader(self, shard: int) -> Any:
        with self._lock:
            if shard not in self._readers:
                self._readers[shard] = _open(self._files[shard][0])
            return self._readers[shard]


def _open(file: Path) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader

    # Random access gains nothing from reading ahead.
    return ArrayRecordReader(str(file), "readahead_buffer_size:0", file_reader_buffer_size=32768)


@functools.cache
def _example_type() -> Any:
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]


def _parse(record: bytes, fields: dict[str, Field]) -> dict[str, np.ndarray]:
    # TFDS's own decoder gives the same arrays and takes ten times as long.
    stored = _example_type().FromString(record).features.feature
    result = {}
    for key, field in fields.items():
        if field.shape:
            result[key] = np.frombuffer(stored[key].bytes_list.value[0], field.dtype).reshape(field.shape)
        else:
            result[key] = np.array(stored[key].int64_list.value[0], field.dtype)
    return result


def _one_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__


def open_splits(directory: Path, recipe: Recipe) -> dict[str, ClipSource]:
    """Opens a generated data set and checks that every file of it is whole.

    Raises:
      DataError: names the file that is missing, empty or cut off, or the size that the frames have.
    """
    import tensorflow_datasets as tfds

    remedy = "delete the folder to generate it again"
    try:
        builder = tfds.builder_from_directory(str(directory))
        features: Any = builder.info.features
        splits = builder.info.splits
        fields = {name: Field(tuple(feature.shape), np.dtype(feature.np_dtype)) for name, feature in features.items()}
        files = {name: list(zip(split.filepaths, split.shard_lengths, strict=True)) for name, split in splits.items()}
        frames = fields["frames"].shape
    except Exception as error:  # whatever TFDS stumbles over in a folder that it has not written
        raise DataError(f"{directory} is not a whole data set ({_one_line(error)}); {remedy}") from error
    expected = (recipe.clip_length, recipe.frame_size, recipe.frame_size, 3)
    if frames != expected:
        raise DataError(
            f"{directory}: clips of {frames[0]} frames of {frames[1]}x{frames[2]} pixels, but config.data asks for"
            f" {expected[0]} frames of {expected[1]}x{expected[2]}; {remedy}"
        )
    if set(files) != set(SPLITS):
        raise DataError(f"{directory} has the splits {', '.join(files) or 'none'}, not {', '.join(SPLITS)}; {remedy}")
    for file, count in (pair for pairs in files.values() for pair in pairs):
        _check_file(Path(file), count, remedy)
    return {name: ClipSource(name, [(Path(f), n) for f, n in files[name]], fields) for name in SPLITS}


def _check_file(file: Path, count: int, remedy: str) -> None:
    if not file.is_file():
        raise DataError(f"{file} is missing; {remedy}")
    if file.stat().st_size == 0:
        raise DataError(f"{file} is empty; {remedy}")
    try:
        reader = _open(file)
        found = reader.num_records()  # from the index at the end of the file, which a cut-off file lacks
        reader.close()
    except Exception as error:
        raise DataError(f"{file} is cut off or damaged ({_one_line(error)}); {remedy}") from error
    if found != count:
        raise DataError(f"{file} holds {found} records instead of {count}; {remedy}")
