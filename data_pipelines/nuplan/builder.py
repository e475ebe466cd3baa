"""TFDS builder of the clips of nuPlan."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_pipelines.clips import Cutting, Moment
from data_pipelines.errors import DataError
from data_pipelines.imports import Found, ImportBuilder, Source, fingerprint
from data_pipelines.nuplan.definition import RATE
from data_pipelines.nuplan.log import read_boxes, read_images, seen_from
from data_pipelines.pictures import Fit, VideoError, check_file, fit_picture, read_picture
from data_pipelines.progress import progress
from data_pipelines.recipe import Recipe


class NuPlan(ImportBuilder):
    """Clips of one log each; logs are shared out over the splits."""

    name = "nuplan"
    UNIT = "log"
    DESCRIPTION = "Clips of one camera of nuPlan."

    @staticmethod
    def listed(recipe: Recipe) -> list[tuple[str, str]]:
        return [(_name(recipe, log), fingerprint([log, _pictures(recipe) / log.stem])) for log in _logs(recipe)]

    @staticmethod
    def find(recipe: Recipe, show_progress: bool = False) -> Found:
        sources, rejected, logs = [], {}, _logs(recipe)
        with progress(f"Looking into {recipe.source}", len(logs), "logs", show_progress) as advance:
            for log in logs:
                name = _name(recipe, log)
                try:
                    sources.append(_source(recipe, log))
                except VideoError as error:
                    rejected[name] = str(error)
                advance(1)
        return Found(sources, rejected, {})

    @staticmethod
    def moments(recipe: Recipe, source: Source, start: float, stop: float, notes: list[str]) -> Iterator[Moment]:
        fields, log = recipe.variant, Path(recipe.source) / source.name
        images = read_images(log, fields["camera"])
        boxes = read_boxes(log, images.origin)
        fit, missing, stride = Fit(recipe.height, recipe.width, fields["fit"]), 0, fields["stride"]
        for number in range(0, len(images.names), stride):
            seconds, pose = float(images.seconds[number]), images.poses[number]
            if not start <= seconds < stop:
                continue
            try:
                pixels = _read(recipe, images.names[number])
            except VideoError:
                missing += 1
                continue
            following = images.poses[min(number + stride, len(images.poses) - 1)]
            tracks, numbers = boxes.around(seconds, pose, fields["tracks"])
            yield {
                "frames": fit_picture(pixels, fit),
                "seconds": np.float32(seconds),
                "controls": seen_from(pose, following[None])[0].astype(np.float32),
                "tracks": tracks,
                "track_ids": numbers,
            }
        if missing:
            notes.append(f"{missing} pictures are missing or cannot be read")

    @staticmethod
    def cutting(recipe: Recipe) -> Cutting:
        fields = recipe.variant
        return Cutting(recipe.clip_length, fields["step"], longest_gap=1.5 * fields["stride"] / RATE)


def _logs(recipe: Recipe) -> list[Path]:
    splits = Path(recipe.source) / "splits"
    if not splits.is_dir():
        raise DataError(f"{recipe.source} is no download of nuPlan: expected splits/*/LOG.db and sensor_blobs in it")
    return sorted(path for path in splits.glob("*/*.db") if not path.is_symlink())


def _name(recipe: Recipe, log: Path) -> str:
    return log.relative_to(recipe.source).as_posix()


def _pictures(recipe: Recipe) -> Path:
    return Path(recipe.source) / "sensor_blobs"


def _source(recipe: Recipe, log: Path) -> Source:
    check_file(log)
    images = read_images(log, recipe.variant["camera"])
    folder = _pictures(recipe) / log.stem / recipe.variant["camera"]
    try:
        there = len(os.listdir(folder))
    except OSError as error:
        raise VideoError(f"no pictures of it in sensor_blobs/{log.stem}/{recipe.variant['camera']}") from error
    notes = (f"{there} of {len(images.names)} pictures are there",) if there < len(images.names) else ()
    size = "unknown"
    for name in images.names:
        if (_pictures(recipe) / name).is_file():
            height, width = _read(recipe, name).shape[:2]
            size = f"{width}x{height}"
            break
    marks = fingerprint([log, _pictures(recipe) / log.stem])
    return Source(_name(recipe, log), float(images.seconds[-1]), RATE, size, marks, notes)


def _read(recipe: Recipe, name: str) -> np.ndarray:
    root = _pictures(recipe)
    path = root / name
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise VideoError("the picture does not lie in sensor_blobs")
    check_file(path)
    return read_picture(path)
