"""Random access to the records of one split."""

import functools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from data_pipelines.errors import DataError
from data_pipelines.metadata import Field, MetadataError, check_features, record_fields, record_files
from data_pipelines.recipe import SPLITS, Recipe
from data_pipelines.spec import DatasetSpec


class ClipSource:
    """Records of one split; `source[i]` is a dict of arrays.

    Opens its files when they are first read, and can be pickled for other processes.

    Every record carries checksums, so one that was changed is noticed. It is an error, or is skipped: then another
    record of the split stands in for it wherever it is asked for, so that all others stay where they are. Which one is
    a function of its number and of what else cannot be read, hence the same in every process.

    Attributes:
      split: name.
      fields: of a record.
      skips: whether a record that cannot be read is skipped.
      unreadable: numbers of the records that cannot be read, as far as this process has met them.
    """

    def __init__(
        self,
        split: str,
        files: list[tuple[Path, int]],
        fields: dict[str, Field],
        skips: bool = False,
        lost: dict[int, str] | None = None,
    ):
        """Takes the record files with the number of records of each, and what is wrong with those that are no use."""
        self.split, self.fields, self.skips = split, fields, skips
        self._files = files
        self._ends = np.cumsum([count for _, count in files]).tolist()
        self._readers: dict[int, Any] = {}
        self._lost = dict(lost or {})
        self.unreadable = {number for shard in self._lost for number in self._numbers(shard)}
        self._lock = threading.Lock()
        # Here, where one thread runs: when several import TFDS at once, as the first reads would, they can deadlock.
        _example_type()

    def __len__(self) -> int:
        return self._ends[-1]

    def __repr__(self) -> str:
        return f"ClipSource({self.split}: {len(self)} records in {self._files[0][0].parent})"

    def __getstate__(self) -> tuple[Any, ...]:
        return self.split, self._files, self.fields, self.skips, self._lost

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """All fields of one record, read-only; `fields` has their shapes and types.

        Raises:
          IndexError: there is no such record.
          DataError: it cannot be read and is not skipped, or none can; names the file and the record's number in it.
        """
        return self.read(index, self.fields)

    def read(self, index: int, keys: Iterable[str]) -> dict[str, np.ndarray]:
        """Some fields of one record; errors as for `source[index]`, and KeyError for a field that there is not."""
        return self.find(index, keys)[1]

    def find(self, index: int, keys: Iterable[str]) -> tuple[int, dict[str, np.ndarray]]:
        """As `read`, with the number of the record that was read: another one where `index` is skipped."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self!r} has no record {index}")
        index = int(index) % len(self)
        fields = {key: self.fields[key] for key in keys}
        try:
            return index, self._read(index, fields)
        except DataError as error:
            if not self.skips:
                raise DataError(f"{error}; {_REMEDY_OR_SKIP}") from error
            self.unreadable.add(index)
            first_error = error
        # Not simply the next record: the same one would stand in for all records of a file that is lost.
        for number in np.random.default_rng(index).permutation(len(self)).tolist():
            if number in self.unreadable:
                continue
            try:
                return number, self._read(number, fields)
            except DataError:
                self.unreadable.add(number)
        raise DataError(f"no record of {self.split} can be read: {first_error}; {_REMEDY}") from first_error

    def check(self) -> None:
        """Opens every file. Of one that is missing, empty or cut off, no record can be read.

        Raises:
          DataError: there is such a file and its records are not skipped, or no other one.
        """
        for shard, (file, count) in enumerate(self._files):
            try:
                _open(file, count).close()
            except _LostFileError as error:
                if not self.skips:
                    numbers = self._numbers(shard)
                    which = f"records {numbers[0]} to {numbers[-1]}" if count > 1 else f"record {numbers[0]}"
                    raise DataError(
                        f"{file} {error}: {which} of {self.split} cannot be read; {_REMEDY_OR_SKIP}"
                    ) from error
                self._lose(shard, error)
        if len(self._lost) == len(self._files):
            raise DataError(f"no record of {self.split} can be read: {self._files[0][0]} {self._lost[0]}; {_REMEDY}")

    def mark_unreadable(self, numbers: Iterable[int]) -> None:
        """Takes over what another process has met."""
        self.unreadable.update(numbers)

    def faults(self, records: Iterable[int] | None = None) -> list[str]:
        """One line for each file with records that cannot be read.

        Args:
          records: those to tell of, one in a lost file for the whole file; all that are known by default.
        """
        told = self.unreadable if records is None else set(records)
        lines = []
        for shard, (file, count) in enumerate(self._files):
            numbers = self._numbers(shard)
            bad = sorted(told.intersection(numbers))
            if bad:
                lost = shard in self._lost
                number = count if lost else len(bad)
                what, verb = ("1 record", "is") if number == 1 else (f"{number} records", "are")
                which = f"the file {self._lost[shard]}" if lost else f"record {_listed(bad, numbers[0])}"
                lines.append(f"{what} of {file} cannot be read and {verb} skipped: {which}")
        return lines

    def _numbers(self, shard: int) -> range:
        """The records that lie in a file."""
        return range(self._ends[shard] - self._files[shard][1], self._ends[shard])

    def _lose(self, shard: int, error: "_LostFileError") -> None:
        """Remembers that a file is lost, so that it is tried once and not for every record."""
        self._lost[shard] = str(error)
        self.unreadable.update(self._numbers(shard))

    def _read(self, index: int, fields: dict[str, Field]) -> dict[str, np.ndarray]:
        shard = next(number for number, end in enumerate(self._ends) if index < end)
        file, count = self._files[shard]
        position = index - self._ends[shard] + count
        try:
            return parse_record(self._reader(shard).read([position])[0], fields)
        except _LostFileError as error:
            reason = f"the file {error}"
        except _READ_ERRORS as error:
            reason = _one_line(error)
        raise DataError(f"{file}: record {position} cannot be read ({reason})")

    def _reader(self, shard: int) -> Any:
        with self._lock:
            if shard in self._lost:
                raise _LostFileError(self._lost[shard])
            if shard not in self._readers:
                try:
                    self._readers[shard] = _open(*self._files[shard])
                except _LostFileError as error:
                    self._lose(shard, error)
                    raise
            return self._readers[shard]


class _LostFileError(Exception):
    """A record file none of whose records can be read. What is wrong with it, after "the file"."""


# What the reader raises, and what `parse_record` does with bytes that are no record.
_READ_ERRORS = (RuntimeError, OSError, ValueError, IndexError, DecodeError)
_REMEDY = "delete the folder to generate it again"
_REMEDY_OR_SKIP = f"{_REMEDY}, or go on without what is lost by --config.data.on_corrupt=skip"


def _open(file: Path, count: int) -> Any:
    """Opens a record file that holds `count` records."""
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        if not file.is_file():
            raise _LostFileError("is missing")
        if file.stat().st_size == 0:
            raise _LostFileError("is empty")
        # Random access gains nothing from reading ahead.
        reader = ArrayRecordReader(str(file), "readahead_buffer_size:0", file_reader_buffer_size=32768)
        found = reader.num_records()  # from the index at the end of the file, which a cut-off file lacks
        if found != count:
            reader.close()  # tells what is wrong with the index
    except (RuntimeError, OSError) as error:
        raise _LostFileError(f"is cut off or damaged ({_one_line(error)})") from error
    if found != count:
        raise _LostFileError(f"holds {found} records instead of {count}")
    return reader


@functools.cache
def _example_type() -> Any:
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]


def parse_record(record: bytes, fields: Mapping[str, Field]) -> dict[str, np.ndarray]:
    """Some fields of a record, read-only."""
    # TFDS's own decoder gives the same arrays and takes ten times as long.
    stored = _example_type().FromString(record).features.feature
    result = {}
    for key, field in fields.items():
        if field.shape:
            result[key] = np.frombuffer(stored[key].bytes_list.value[0], field.dtype).reshape(field.shape)
        else:
            result[key] = np.array(stored[key].int64_list.value[0], field.dtype)
    return result


def read_records(file: Path, numbers: Sequence[int]) -> Iterator[bytes]:
    """Some records of a file as they are stored.

    Raises:
      DataError: one cannot be read.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        reader = ArrayRecordReader(str(file), "readahead_buffer_size:0")
        try:
            for number in numbers:
                yield reader.read([number])[0]
        finally:
            reader.close()
    except (RuntimeError, OSError, IndexError) as error:
        raise DataError(f"{file} cannot be read ({_one_line(error)}); delete {file.parent} to read again") from error


def _one_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__


def _listed(numbers: list[int], first: int) -> str:
    """Places in a file of records of a split, the first few; the file begins with record `first`."""
    more = f" and {len(numbers) - 10} more" if len(numbers) > 10 else ""
    return ", ".join(str(number - first) for number in numbers[:10]) + more


def open_splits(directory: Path, recipe: Recipe, spec: DatasetSpec, skips: bool = False) -> dict[str, ClipSource]:
    """Opens a generated data set and checks that every file of it is whole, or, if it `skips`, that some are.

    Raises:
      DataError: names the file that is missing, empty or cut off, or what of its description is not as it is written.
    """
    fields = record_fields(recipe, spec)
    try:
        fields = check_features(directory, fields)
        files = record_files(directory, recipe.dataset)
    except MetadataError as error:
        raise DataError(f"{directory} is not a whole data set of config.data ({error}); {_REMEDY}") from error
    if set(files) != set(SPLITS):
        raise DataError(f"{directory} has the splits {', '.join(files) or 'none'}, not {', '.join(SPLITS)}; {_REMEDY}")
    sources = {name: ClipSource(name, files[name], fields, skips) for name in SPLITS}
    for source in sources.values():
        source.check()
    return sources
