"""Where things lie in a LeRobot data set. Its own templates of paths are not used: they are text of a stranger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import DataError, missing_extra
from data_pipelines.metadata import MetadataError, read_json

_MOST_BYTES = 256 * 2**20
_MOST = 10**8  # frames, episodes or seconds
_EPISODES_A_CHUNK = 1000  # where the data set does not say


@dataclass(frozen=True)
class Episode:
    """One episode.

    Attributes:
      number: in the data set.
      length: in frames.
      table: parquet file of its rows.
      video: file of its frames.
      start: seconds at which it begins in the video.
    """

    number: int
    length: int
    table: Path
    video: Path
    start: float


@dataclass(frozen=True)
class Layout:
    """A data set.

    Attributes:
      root: its folder.
      version: of the format, `2.1` or `3.0`.
      rate: frames a second.
      cameras: names of its videos.
      sizes: how many numbers each of its other features has.
      info: all of `meta/info.json`.
    """

    root: Path
    version: str
    rate: float
    cameras: Sequence[str]
    sizes: Mapping[str, int]
    info: Mapping[str, Any]

    @classmethod
    def of(cls, root: Path) -> "Layout":
        """Reads `meta/info.json`.

        Raises:
          DataError: it is not there, of another version, or says what cannot be.
        """
        file = root / "meta" / "info.json"
        try:
            info = read_json(file, _MOST_BYTES)
        except MetadataError as error:
            raise DataError(f"{root} is no LeRobot data set: meta/{error}") from error
        version = str(info.get("codebase_version", "")).removeprefix("v")
        if version not in ("2.0", "2.1", "3.0"):
            raise DataError(f"{file}: codebase_version is {version!r:.40}, expected v2.1 or v3.0")
        features, rate = info.get("features"), info.get("fps")
        if not isinstance(features, dict) or not isinstance(rate, int | float) or not 0 < rate <= 1000:
            raise DataError(f"{file}: expected features, and fps from 0 to 1000")
        kinds = {str(name): one for name, one in features.items() if isinstance(one, dict)}
        cameras = [name for name, one in kinds.items() if one.get("dtype") == "video"]
        sizes = {}
        for name, one in kinds.items():
            shape = one.get("shape")
            if name not in cameras and isinstance(shape, list) and all(isinstance(n, int) and n > 0 for n in shape):
                sizes[name] = int(np.prod(shape, dtype=int))
        return cls(root, version, float(rate), cameras, sizes, info)

    def camera(self, name: str) -> str:
        """The camera of that name, or the only one.

        Raises:
          DataError: there is none of that name, or several and none is named.
        """
        known = ", ".join(self.cameras) or "none"
        if name and name not in self.cameras:
            raise DataError(f"config.data.lerobot.camera = {name!r}: the cameras of {self.root} are {known}")
        if not name and len(self.cameras) != 1:
            raise DataError(f"config.data.lerobot.camera is empty: expected one of the cameras of {self.root}: {known}")
        return name or self.cameras[0]

    def size(self, field: str, name: str) -> int:
        """How many numbers a feature has.

        Raises:
          DataError: there is no such feature, or it has too many.
        """
        size = self.sizes.get(name, 0)
        if not 0 < size <= 4096:
            known = ", ".join(self.sizes) or "none"
            raise DataError(f"config.data.lerobot.{field} = {name!r}: the features of {self.root} are {known}")
        return size

    def episodes(self, camera: str) -> list[Episode]:
        """All episodes, in order.

        Raises:
          DataError: their list cannot be read.
        """
        self._inside(self.root / "videos" / camera)
        found = self._episodes_of_files(camera) if self.version == "3.0" else self._files_of_episodes(camera)
        for episode in found:
            if not (0 <= episode.number < _MOST and 0 < episode.length < _MOST and 0 <= episode.start < _MOST):
                raise DataError(f"{self.root}/meta: episode {episode.number} of {episode.length} frames cannot be")
        return found

    def _files_of_episodes(self, camera: str) -> list[Episode]:
        file, chunk = self.root / "meta" / "episodes.jsonl", self.info.get("chunks_size", _EPISODES_A_CHUNK)
        try:
            content = file.read_bytes()
            rows = [_json_line(line) for line in content.decode("utf-8").splitlines() if line.strip()]
            found = [(int(row["episode_index"]), int(row["length"])) for row in rows]
            parts = [(number // int(chunk), number, length) for number, length in found]
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
            raise DataError(f"{file} cannot be read as a list of episodes ({error!r:.80})") from error
        return [
            Episode(
                number,
                length,
                self.root / "data" / f"chunk-{part:03d}" / f"episode_{number:06d}.parquet",
                self.root / "videos" / f"chunk-{part:03d}" / camera / f"episode_{number:06d}.mp4",
                0.0,
            )
            for part, number, length in sorted(parts, key=lambda entry: entry[1])
        ]

    def _episodes_of_files(self, camera: str) -> list[Episode]:
        columns = ["episode_index", "length", "data/chunk_index", "data/file_index"]
        columns += [f"videos/{camera}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
        files = sorted((self.root / "meta" / "episodes").glob("chunk-*/file-*.parquet"))
        if not files:
            raise DataError(f"{self.root}: no meta/episodes/chunk-*/file-*.parquet")
        episodes = []
        for file in files:
            table = read_table(file, columns)
            for number, length, *places, start in zip(*(table[name] for name in columns), strict=True):
                rows, video = places[:2], places[2:]
                episodes.append(
                    Episode(
                        int(number),
                        int(length),
                        self.root / "data" / _numbered(rows, "parquet"),
                        self.root / "videos" / camera / _numbered(video, "mp4"),
                        float(start),
                    )
                )
        return sorted(episodes, key=lambda episode: episode.number)

    def _inside(self, path: Path) -> None:
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise DataError(f"{path} does not lie in {self.root}")


def read_table(file: Path, columns: Sequence[str], **rows: int) -> dict[str, np.ndarray]:
    """Columns of a parquet file.

    Args:
      file: parquet.
      columns: to read; each of numbers, or of lists of numbers of one length.
      rows: `episode=n` takes the rows whose `episode_index` is n.

    Raises:
      DataError: it cannot be read, or lacks a column.
    """
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise missing_extra("lerobot", error) from error
    chosen = [("episode_index", "==", rows["episode"])] if "episode" in rows else None
    try:
        table = parquet.read_table(file, columns=list(columns), filters=chosen)
        missing = [name for name in columns if name not in table.column_names]
        if missing:
            raise ValueError(f"no column {missing[0]}")
        return {name: np.asarray(table.column(name).to_pylist()) for name in columns}
    except (OSError, ValueError, TypeError, pyarrow.ArrowException) as error:
        raise DataError(f"{file} cannot be read ({' '.join(str(error).split())[:120]})") from error


def _numbered(place: Sequence[Any], suffix: str) -> Path:
    chunk, file = place
    return Path(f"chunk-{int(chunk):03d}") / f"file-{int(file):03d}.{suffix}"


def _json_line(line: str) -> dict[str, Any]:
    import json

    row = json.loads(line)
    if not isinstance(row, dict):
        raise TypeError(line[:40])
    return row


__all__ = ["Episode", "Layout", "read_table"]
