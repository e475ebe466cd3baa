"""TFDS builder of clips of frames with the features of the user's own network."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_pipelines.builder import reading
from data_pipelines.clips import Cutting, Moment
from data_pipelines.errors import DataError
from data_pipelines.imports import Found, ImportBuilder, Source, fingerprint
from data_pipelines.pictures import VideoError, check_file
from data_pipelines.recipe import Recipe

FRAMES, FEATURES = "frames.npy", "features.npy"


class FeatureFolder(ImportBuilder):
    """Clips of one pair of arrays each."""

    name = "feature_folder"
    UNIT = "folder"
    DESCRIPTION = "Clips of frames with the features of a network."

    @staticmethod
    def listed(recipe: Recipe) -> list[tuple[str, str]]:
        return [(name, fingerprint([folder / FRAMES, folder / FEATURES])) for name, folder in _folders(recipe)]

    @staticmethod
    def find(recipe: Recipe, show_progress: bool = False) -> Found:
        sources, rejected, rate = [], {}, recipe.variant["rate"]
        for name, folder in _folders(recipe):
            try:
                frames, _ = _open(recipe, folder)
            except VideoError as error:
                rejected[name] = str(error)
                continue
            marks = fingerprint([folder / FRAMES, folder / FEATURES])
            sources.append(Source(name, len(frames) / rate, rate, f"{recipe.width}x{recipe.height}", marks))
        return Found(sources, rejected, {})

    @staticmethod
    def moments(recipe: Recipe, source: Source, start: float, stop: float, notes: list[str]) -> Iterator[Moment]:
        frames, features = _open(recipe, Path(recipe.source) / source.name)
        rate = recipe.variant["rate"]
        for number in range(0, len(frames), recipe.variant["stride"]):
            if not start <= number / rate < stop:
                continue
            with np.errstate(over="ignore"):
                stored = features[number].astype(np.float16)
            if not np.isfinite(stored).all():
                raise VideoError(f"{FEATURES}: not all features of frame {number} are finite numbers of float16")
            yield {"frames": np.array(frames[number]), "features": stored, "seconds": np.float32(number / rate)}

    @staticmethod
    def cutting(recipe: Recipe) -> Cutting:
        return Cutting(recipe.clip_length, recipe.variant["step"])


def _folders(recipe: Recipe) -> list[tuple[str, Path]]:
    """Every folder that holds one of the arrays, with its name relative to the source. Links are not followed."""
    root = Path(recipe.source)
    if not root.is_dir():
        raise DataError(f"{root} is no folder: expected folders with {FRAMES} and {FEATURES} in it")
    with reading(f"{root} cannot be read"):
        os.listdir(root)
    found = [Path(folder) for folder, _, files in os.walk(root) if {FRAMES, FEATURES} & set(files)]
    return sorted((folder.relative_to(root).as_posix(), folder) for folder in found)


def _open(recipe: Recipe, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Frames and features of one video, on the disk until they are asked for."""
    frames, features = (_array(folder / name) for name in (FRAMES, FEATURES))
    size, shape = (recipe.height, recipe.width, 3), tuple(map(int, recipe.variant["shape"].split("x")))
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != size:
        raise VideoError(f"{FRAMES} is {_told(frames)}: expected uint8 [n {' '.join(map(str, size))}]")
    if not np.issubdtype(features.dtype, np.floating) or features.shape != (len(frames), *shape):
        expected = " ".join(map(str, (len(frames), *shape)))
        raise VideoError(f"{FEATURES} is {_told(features)}: expected floats [{expected}]")
    return frames, features


def _array(path: Path) -> np.ndarray:
    if path.is_symlink():
        raise VideoError(f"{path.name} is a link: links are not followed")
    try:
        check_file(path)
    except VideoError as error:
        raise VideoError(f"{path.name}: {error}") from error
    try:  # refuses what is not a plain array: nothing is unpickled
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise VideoError(f"{path.name} is no array of NumPy that can be read") from error


def _told(array: np.ndarray) -> str:
    return f"{array.dtype} [{' '.join(map(str, array.shape))}]"
