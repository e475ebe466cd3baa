"""Data sets that are read from files of the user: read once, cut into clips, shared out over splits, told in a card.

Every stretch of a source is read by a task of its own into a file under `reading/`, so that a start after a kill goes
on where the last one stopped. When all is read, and only then, it is known which clips there are and which split each
belongs to; the records are then copied into the files of the splits.
"""

import hashlib
import itertools
import json
import math
import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from data_pipelines.builder import RecordBuilder, clips_of_a_file, make_serializer, open_records
from data_pipelines.clips import ClipCutter, Cutting, Moment
from data_pipelines.data_card import PREVIEW_FRAMES, DataCard, histogram, preview_sheet
from data_pipelines.errors import DataError
from data_pipelines.generation import num_processes, run_tasks
from data_pipelines.metadata import MetadataError, read_json, record_fields
from data_pipelines.paths import replacing
from data_pipelines.progress import progress
from data_pipelines.recipe import SPLITS, Recipe
from data_pipelines.source import parse_record, read_records
from data_pipelines.spec import DatasetSpec
from data_pipelines.splits import share_out

# Of a source that is read by one task; a clip does not reach over its end.
_SECONDS_OF_A_TASK = 300.0
_SECONDS_A_DECODED_FRAME = 4e-3  # a guess, for the number of processes


@dataclass(frozen=True)
class Source:
    """What is read by itself and, where there are enough of them, belongs to one split: a file, an episode, a log.

    Attributes:
      name: relative to the folder.
      seconds: it lasts, about.
      rate: of its frames, a second.
      size: of its frames as shown, `WIDTHxHEIGHT`.
      fingerprint: changes with its content, as far as a look at the file's size and date tells.
      notes: what is unusual about it.
      where: for the reader of the data set, which finds it by this.
    """

    name: str
    seconds: float
    rate: float
    size: str
    fingerprint: str
    notes: tuple[str, ...] = ()
    where: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What lies in a folder.

    Attributes:
      sources: in order.
      rejected: what is of no use, with the reason.
      ignored: other files, counted by the ends of their names.
    """

    sources: Sequence[Source]
    rejected: Mapping[str, str]
    ignored: Mapping[str, int]


@dataclass(frozen=True)
class _Read:
    """What a task has found: `clips` with their first and last second."""

    clips: Sequence[tuple[float, float]]
    counts: Mapping[str, int]
    notes: Sequence[str]
    error: str = ""


@dataclass(frozen=True)
class _Task:
    number: int  # of the source
    source: Source
    start: float
    stop: float
    base: Path  # of the two files that it writes

    @property
    def records(self) -> Path:
        return self.base.with_suffix(".array_record")

    @property
    def entry(self) -> Path:
        return self.base.with_suffix(".json")


class ImportBuilder(RecordBuilder, skip_registration=True):
    """Reads what it writes from the folder of the recipe (`Recipe.source`).

    A record's `episode` is the number of its source in the data card, its `clip` the milliseconds from the source's
    beginning.
    """

    UNIT: ClassVar[str] = "file"  # what a source is, in a word
    SECONDS_PER_FRAME = 1e-5

    @staticmethod
    def listed(recipe: Recipe) -> Sequence[tuple[str, str]]:
        """Names and fingerprints of what may be a source, without opening any of it.

        Raises:
          DataError: the folder cannot be read.
        """
        raise NotImplementedError

    @staticmethod
    def find(recipe: Recipe, show_progress: bool = False) -> Found:
        """What lies in the folder.

        Raises:
          DataError: the folder cannot be read.
        """
        raise NotImplementedError

    @staticmethod
    def moments(recipe: Recipe, source: Source, start: float, stop: float, notes: list[str]) -> Iterator[Moment]:
        """The fields of every frame of a stretch of a source, with `frames` and `seconds` from its beginning.

        Args:
          recipe: of the data set.
          source: one of those that `find` found.
          start, stop: the stretch, in seconds; `stop` is not in it.
          notes: takes what goes wrong and does not end it.

        Raises:
          VideoError: the source is of no use.
        """
        raise NotImplementedError

    @staticmethod
    def cutting(recipe: Recipe) -> Cutting:
        """What makes up a clip."""
        raise NotImplementedError

    @classmethod
    def changes(cls, recipe: Recipe, card: DataCard) -> list[str]:
        try:
            same = _digest(cls.listed(recipe)) == card.listing
        except DataError:  # the records do without the source
            return []
        return [] if same else [f"{recipe.source} has changed since it was read; the records are as they were"]

    def plan(self, folder: Path, show_progress: bool) -> None:
        self._reading = folder / "reading"
        self._reading.mkdir(parents=True, exist_ok=True)
        self._listing = _digest(self.listed(self.recipe))
        found = self.find(self.recipe, show_progress)
        if not found.sources:
            raise DataError(f"{self.recipe.source}: {_nothing_usable(found.rejected, self.UNIT)}")
        tasks = [task for number, source in enumerate(found.sources) for task in self._tasks(number, source)]
        self._read(tasks, show_progress)
        entries = [_load(task) for task in tasks]
        of_source: list[list[tuple[_Task, _Read]]] = [[] for _ in found.sources]
        for task, entry in zip(tasks, entries, strict=True):
            of_source[task.number].append((task, entry))
        rejected = dict(found.rejected)
        for source, parts in zip(found.sources, of_source, strict=True):
            if not any(entry.clips for _, entry in parts):
                rejected[source.name] = _why_no_clips(self.recipe, [entry for _, entry in parts])
        times = [[clip for _, entry in parts for clip in entry.clips] for parts in of_source]
        names = [source.name for source in found.sources]
        if not any(times):
            raise DataError(f"{self.recipe.source}: {_nothing_usable(rejected, self.UNIT)}")
        splits, split_by = share_out(names, times, self.recipe)
        self.planned = {name: [] for name in SPLITS}
        for parts, assigned in zip(of_source, splits, strict=True):
            self._plan_source(parts, assigned)
        self._card = self._make_card(found, of_source, rejected, split_by)
        self._preview = self._make_preview()

    def write(self, advance: Callable[[int], None]) -> None:
        super().write(advance)
        shutil.rmtree(self._reading, ignore_errors=True)

    @classmethod
    def serialized(cls, recipe: Recipe, spec: DatasetSpec, units: list[tuple[Any, int]]) -> Iterator[bytes]:
        for (path, first), count in units:
            yield from read_records(Path(path), range(first, first + count))

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        self._card.write(Path(self.data_dir), self._preview)

    def _tasks(self, number: int, source: Source) -> Iterator[_Task]:
        parts = max(1, round(source.seconds / _SECONDS_OF_A_TASK))
        bounds = [0.0, *(source.seconds * part / parts for part in range(1, parts)), math.inf]
        for start, stop in itertools.pairwise(bounds):
            key = json.dumps([self.recipe.label, number, source.name, source.fingerprint, start, str(stop)])
            base = self._reading / hashlib.sha256(key.encode()).hexdigest()[:20]
            yield _Task(number, source, start, stop, base)

    def _read(self, tasks: list[_Task], show_progress: bool) -> None:
        """Reads what an earlier start has not read."""
        left = [(type(self), self.recipe, self.spec, task) for task in tasks if not _is_read(task)]
        if not left:
            return
        lengths = [max(1, round(_length(task))) for _, _, _, task in left]
        cost = sum(_length(task) * task.source.rate for _, _, _, task in left) * _SECONDS_A_DECODED_FRAME
        workers = min(len(left), num_processes(self.workers, cost))
        title = f"Reading {self.recipe.source}"
        with progress(title, sum(lengths), "seconds of video", enabled=show_progress) as advance:
            if workers == 1:
                for length, task in zip(lengths, left, strict=True):
                    _read_task(*task)
                    advance(length)
                return
            for number, _ in run_tasks(_read_task, left, workers):
                advance(lengths[number])

    def _plan_source(self, parts: Sequence[tuple[_Task, _Read]], assigned: Sequence[str]) -> None:
        """Adds units of consecutive clips that lie in one file and belong to one split."""
        limit, splits = clips_of_a_file(self.recipe, self.spec), iter(assigned)
        for task, entry in parts:
            places = enumerate(itertools.islice(splits, len(entry.clips)))
            for split, group in itertools.groupby(places, key=lambda place: place[1]):
                numbers = [number for number, _ in group]
                for start in range(0, len(numbers) if split else 0, limit):
                    part = numbers[start : start + limit]
                    self.planned[split].append(((str(task.records), part[0]), len(part)))

    def _make_card(
        self, found: Found, of_source: Sequence[Sequence[tuple[_Task, _Read]]], rejected: dict[str, str], split_by: str
    ) -> DataCard:
        counts: Counter[str] = Counter()
        notes, seconds = {}, 0.0
        for source, parts in zip(found.sources, of_source, strict=True):
            for _, entry in parts:
                counts.update(entry.counts)
                seconds += _covered(entry.clips)
            told = [*source.notes]
            for _, entry in parts:
                told += [*entry.notes, *filter(None, [entry.error])]
            if told and source.name not in rejected:
                notes[source.name] = list(dict.fromkeys(told))
        frames = counts.pop("frames", 0)
        used = [source for source in found.sources if source.name not in rejected]
        return DataCard(
            source=self.recipe.source,
            unit=self.UNIT,
            sources=[source.name for source in found.sources],
            seconds=round(seconds, 3),
            frames=frames,
            frame_rate=self.spec.frame_rate or 0.0,
            clips={name: sum(count for _, count in units) for name, units in self.planned.items()},
            split_by=split_by,
            rejected=rejected,
            ignored=found.ignored,
            notes=notes,
            left_out=dict(counts),
            sizes=histogram([source.size for source in used]),
            rates=histogram([f"{source.rate:.4g}" for source in used]),
            listing=self._listing,
        )

    def _make_preview(self) -> np.ndarray:
        """The middle frames of clips that are spread over everything that is used."""
        units = [unit for units in self.planned.values() for unit in units]
        chosen = np.unique(np.linspace(0, len(units) - 1, min(len(units), PREVIEW_FRAMES)).astype(int))
        field = {"frames": record_fields(self.recipe, self.spec)["frames"]}
        frames = []
        for number in chosen:
            (path, first), count = units[number]
            (record,) = read_records(Path(path), [first + count // 2])
            frames.append(parse_record(record, field)["frames"][self.recipe.clip_length // 2])
        return preview_sheet(frames)


def fingerprint(paths: Sequence[Path]) -> str:
    """Number, sizes and latest date of some files; links are not followed."""
    sizes, latest = 0, 0
    for path in paths:
        try:
            status = os.lstat(path)
        except OSError:
            continue
        sizes += status.st_size if stat.S_ISREG(status.st_mode) else 0
        latest = max(latest, status.st_mtime_ns)
    return f"{len(paths)}-{sizes}-{latest}"


def _digest(listed: Sequence[tuple[str, str]]) -> str:
    return hashlib.sha256(json.dumps(list(listed)).encode()).hexdigest()[:16]


def _read_task(builder: type[ImportBuilder], recipe: Recipe, spec: DatasetSpec, task: _Task) -> None:
    """Reads a stretch of a source into a file of records, and writes what was found beside it."""
    cutter, notes, clips, errors = ClipCutter(builder.cutting(recipe)), [], [], []
    serialize = make_serializer(recipe, spec)

    def moments() -> Iterator[Moment]:
        try:
            yield from builder.moments(recipe, task.source, task.start, task.stop, notes)
        except DataError as error:
            errors.append(str(error))
        except OSError as error:  # of reading: those of writing do not come up here
            notes.append(f"cannot be read any further: {error.strerror or error}")

    partial = task.base.with_suffix(".partial")
    with open_records(partial) as add:
        for clip in cutter.clips(moments()):
            first, last = float(clip["seconds"][0]), float(clip["seconds"][-1])
            add(serialize(clip | {"episode": task.number, "clip": round(first * 1000)}))
            clips.append((first, last))
    partial.replace(task.records)
    entry = _Read(clips, cutter.counts, notes, errors[0] if errors else "")
    with replacing(task.entry) as file:
        file.write(json.dumps(asdict(entry)).encode())


def _is_read(task: _Task) -> bool:
    return task.entry.is_file() and task.records.is_file()


def _load(task: _Task) -> _Read:
    try:
        tree = read_json(task.entry, most_bytes=64 * 2**20)
        clips = [(float(start), float(stop)) for start, stop in tree["clips"]]
        return _Read(clips, dict(tree["counts"]), list(tree["notes"]), str(tree["error"]))
    except (MetadataError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{task.entry} is damaged ({error}); delete {task.entry.parent} to read again") from error


def _length(task: _Task) -> float:
    return max(0.0, min(task.stop, task.source.seconds) - task.start)


def _covered(clips: Sequence[tuple[float, float]]) -> float:
    """Seconds that lie in a clip, those in several counted once."""
    covered, end = 0.0, -math.inf
    for start, stop in clips:
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered


def _why_no_clips(recipe: Recipe, parts: Sequence[_Read]) -> str:
    errors = [part.error for part in parts if part.error]
    if errors:
        return errors[0]
    frames = sum(part.counts["frames"] for part in parts)
    breaks = sum(part.counts[name] for part in parts for name in ("cuts", "gaps", "still frames"))
    between = " between its cuts, gaps and still stretches" if breaks else ""
    reason = f"shorter than a clip of {recipe.clip_length} frames{between}: {frames} frames"
    notes = [note for part in parts for note in part.notes]
    return f"{reason}; {notes[0]}" if notes else reason


def _nothing_usable(rejected: Mapping[str, str], unit: str) -> str:
    if not rejected:
        return f"no {unit} that can be read lies there"
    told = "; ".join(f"{name}: {reason}" for name, reason in list(rejected.items())[:3])
    more = f"; and {len(rejected) - 3} more" if len(rejected) > 3 else ""
    return f"no {unit} of it can be used ({told}{more})"


__all__ = ["Found", "ImportBuilder", "Source", "fingerprint"]
