"""One log of nuPlan: a SQLite file that says which pictures there are, where the car was, and who else was there."""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from data_pipelines.pictures import VideoError

_IMAGES = """
    SELECT image.filename_jpg, image.timestamp, ego_pose.x, ego_pose.y,
           ego_pose.qw, ego_pose.qx, ego_pose.qy, ego_pose.qz
    FROM image JOIN camera ON image.camera_token = camera.token
               JOIN ego_pose ON image.ego_pose_token = ego_pose.token
    WHERE camera.channel = ? ORDER BY image.timestamp
"""
_BOXES = """
    SELECT lidar_pc.timestamp, lidar_box.track_token, lidar_box.x, lidar_box.y, lidar_box.yaw
    FROM lidar_box JOIN lidar_pc ON lidar_box.lidar_pc_token = lidar_pc.token ORDER BY lidar_pc.timestamp
"""


@dataclass(frozen=True)
class Images:
    """The pictures of one camera, in order of time.

    Attributes:
      names: relative to the folder of the pictures.
      seconds: since the first.
      poses: x and y in meters and heading in radians of the car.
    """

    names: list[str]
    seconds: Float[np.ndarray, " m"]
    poses: Float[np.ndarray, "m 3"]
    origin: int  # time stamp of the first, microseconds


@dataclass(frozen=True)
class Boxes:
    """What the car's laser has seen, in order of time.

    Attributes:
      seconds: on the clock of the images.
      tracks: a number for every road user.
      poses: x and y in meters and heading in radians.
    """

    seconds: Float[np.ndarray, " m"]
    tracks: Int[np.ndarray, " m"]
    poses: Float[np.ndarray, "m 3"]

    def around(self, seconds: float, pose: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest road users as the car sees them, at the time of the laser's sweep that is nearest.

        Args:
          seconds: the time.
          pose: of the car.
          count: of rows.

        Returns:
          float32[count 4] and int64[count], see the package.
        """
        values, numbers = np.zeros((count, 4), np.float32), np.full(count, -1, np.int64)
        if len(self.seconds):
            place = np.searchsorted(self.seconds, seconds)
            near = [self.seconds[at] for at in (max(place - 1, 0), min(place, len(self.seconds) - 1))]
            sweep = min(near, key=lambda time: abs(time - seconds))
            rows = slice(*np.searchsorted(self.seconds, (sweep, np.nextafter(sweep, np.inf))))
            seen = seen_from(pose, self.poses[rows])
            order = np.argsort(np.hypot(seen[:, 0], seen[:, 1]))[:count]
            values[: len(order), :3], values[: len(order), 3] = seen[order], 1
            numbers[: len(order)] = self.tracks[rows][order]
        return values, numbers


def seen_from(pose: np.ndarray, others: np.ndarray) -> Float[np.ndarray, "m 3"]:
    """Poses as seen from another: forward, left, and the difference of headings from -pi to pi."""
    offset = others[:, :2] - pose[:2]
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    forward, left = offset[:, 0] * cos + offset[:, 1] * sin, offset[:, 1] * cos - offset[:, 0] * sin
    turn = (others[:, 2] - pose[2] + np.pi) % (2 * np.pi) - np.pi
    return np.stack([forward, left, turn], axis=-1)


def read_images(file: Path, camera: str) -> Images:
    """The pictures of a camera.

    Raises:
      VideoError: the file cannot be read, or has none.
    """
    rows = _select(file, _IMAGES, (camera,))
    if not rows:
        raise VideoError(f"no pictures of {camera}")
    names, stamps, *pose = zip(*rows, strict=True)
    with _numbers():
        times = np.asarray(stamps, np.int64)
        x, y, w, i, j, k = (np.asarray(part, np.float64) for part in pose)
    heading = np.arctan2(2 * (w * k + i * j), 1 - 2 * (j * j + k * k))
    poses = np.stack([x, y, heading], axis=-1)
    return Images([str(name) for name in names], (times - times[0]) / 1e6, poses, int(times[0]))


def read_boxes(file: Path, origin: int) -> Boxes:
    """The road users; times count from `origin`, in microseconds.

    Raises:
      VideoError: the file cannot be read.
    """
    rows = _select(file, _BOXES, ())
    if not rows:
        return Boxes(np.zeros(0), np.zeros(0, np.int64), np.zeros((0, 3)))
    stamps, tokens, *pose = zip(*rows, strict=True)
    _, numbers = np.unique([str(token) for token in tokens], return_inverse=True)
    with _numbers():
        poses = np.stack([np.asarray(part, np.float64) for part in pose], axis=-1)
        times = np.asarray(stamps, np.int64)
    return Boxes((times - origin) / 1e6, numbers.astype(np.int64), poses)


@contextlib.contextmanager
def _numbers() -> Iterator[None]:
    """A column of SQLite may hold anything."""
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        raise VideoError("not a log that can be read (times or places are no numbers)") from error


def _select(file: Path, query: str, values: tuple[str, ...]) -> list[tuple]:
    try:
        with _open(file) as connection:
            return connection.execute(query, values).fetchall()
    except sqlite3.Error as error:
        raise VideoError(f"not a log that can be read ({error})") from error


@contextlib.contextmanager
def _open(file: Path) -> Iterator[sqlite3.Connection]:
    """Read only, without a journal beside the file, and without functions that a stranger's views might call."""
    with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        connection.execute("PRAGMA trusted_schema = OFF")
        yield connection


__all__ = ["Boxes", "Images", "read_boxes", "read_images", "seen_from"]
