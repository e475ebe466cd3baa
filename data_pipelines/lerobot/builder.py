"""TFDS builder of the clips of a LeRobot data set."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.clips import Cutting, Moment
from data_pipelines.errors import DataError
from data_pipelines.imports import Found, ImportBuilder, Source, fingerprint
from data_pipelines.lerobot.layout import Episode, Layout, read_table
from data_pipelines.pictures import Fit, VideoError
from data_pipelines.recipe import Recipe
from data_pipelines.spec import DatasetSpec
from data_pipelines.video import VideoFile


class LeRobot(ImportBuilder):
    """Clips of one episode each; episodes are shared out over the splits."""

    name = "lerobot"
    UNIT = "episode"
    DESCRIPTION = "Clips of one camera of a LeRobot data set."

    @classmethod
    def measured(cls, recipe: Recipe, spec: DatasetSpec) -> DatasetSpec:
        layout = Layout.of(Path(recipe.source))
        kept = {"controls": "action", "state": "state"}
        sizes = {name: (layout.size(field, recipe.variant[field]),) for name, field in kept.items() if spec.has(name)}
        return spec.resized(sizes)

    @staticmethod
    def listed(recipe: Recipe) -> list[tuple[str, str]]:
        _, episodes = _episodes(recipe)
        return [(_name(episode), fingerprint([episode.video, episode.table])) for episode in episodes]

    @staticmethod
    def find(recipe: Recipe, show_progress: bool = False) -> Found:
        layout, episodes = _episodes(recipe)
        sources, rejected = [], {}
        sizes: dict[Path, str | DataError] = {}
        for episode in episodes:
            if episode.video not in sizes:  # many episodes lie in one file
                sizes[episode.video] = _size(episode.video)
            size = sizes[episode.video]
            if isinstance(size, DataError):
                rejected[_name(episode)] = str(size)
                continue
            where = {"length": episode.length, "table": str(episode.table), "video": str(episode.video)}
            where |= {"start": episode.start, "number": episode.number, "rate": layout.rate}
            marks = fingerprint([episode.video, episode.table])
            sources.append(Source(_name(episode), episode.length / layout.rate, layout.rate, size, marks, where=where))
        return Found(sources, rejected, {})

    @staticmethod
    def moments(recipe: Recipe, source: Source, start: float, stop: float, notes: list[str]) -> Iterator[Moment]:
        where, fields = source.where, recipe.variant
        rate, length = where["rate"], where["length"]
        rows = _rows(recipe, Path(where["table"]), where["number"], length)
        half = 0.5 / rate  # times are rounded: a frame is told by the nearest
        video = VideoFile(Path(where["video"]), notes)
        begin = where["start"] + start
        end = where["start"] + min(stop, length / rate)
        fit = Fit(recipe.height, recipe.width, fields["fit"])
        found = 0
        for seconds, frame in video.frames(fit, 0.0, max(begin - half, 0.0), end - half):
            number = round((seconds - where["start"]) * rate)
            found += 1
            if number % fields["stride"] == 0 and number < length:
                values = {name: column[number] for name, column in rows.items()}
                yield values | {"frames": frame, "seconds": np.float32(number / rate)}
        expected = round((end - begin) * rate)
        if found < expected:
            notes.append(f"{expected - found} of {expected} frames are missing in {Path(where['video']).name}")

    @staticmethod
    def cutting(recipe: Recipe) -> Cutting:
        fields = recipe.variant
        rate = Layout.of(Path(recipe.source)).rate
        gap = 1.5 * fields["stride"] / rate
        return Cutting(recipe.clip_length, fields["step"], longest_gap=gap)


def _episodes(recipe: Recipe) -> tuple[Layout, Sequence[Episode]]:
    layout = Layout.of(Path(recipe.source))
    return layout, layout.episodes(layout.camera(recipe.variant["camera"]))


def _name(episode: Episode) -> str:
    return f"episode {episode.number}"


def _size(video: Path) -> str | DataError:
    try:
        facts = VideoFile(video).facts()
    except VideoError as error:
        return VideoError(f"{video.name}: {error}")
    return f"{round(facts.width)}x{round(facts.height)}"


def _rows(recipe: Recipe, table: Path, number: int, length: int) -> dict[str, np.ndarray]:
    """What is kept of an episode, f32[t n], one row a frame, in the order of its frames."""
    fields, sizes = recipe.variant, Layout.of(Path(recipe.source)).sizes
    columns = {name: fields[key] for name, key in (("controls", "action"), ("state", "state")) if fields[key]}
    if not columns:
        return {}
    read = read_table(table, ["frame_index", *columns.values()], episode=number)
    order = np.argsort(read["frame_index"])
    if len(order) != length:
        raise VideoError(f"{table.name} has {len(order)} of its {length} rows")
    rows = {}
    for name, column in columns.items():
        try:
            rows[name] = read[column][order].astype(np.float32).reshape(length, sizes[column])
        except ValueError as error:
            raise VideoError(f"{table.name}: {column} is not {sizes[column]} numbers a frame") from error
    return rows
