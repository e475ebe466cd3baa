"""A small download of nuPlan: logs in SQLite, pictures of one camera, some of them missing."""

import sqlite3
from pathlib import Path

import numpy as np
from PIL import Image

_TABLES = """
    CREATE TABLE camera (token BLOB PRIMARY KEY, channel TEXT, width INTEGER, height INTEGER);
    CREATE TABLE ego_pose (token BLOB PRIMARY KEY, timestamp INTEGER, x REAL, y REAL, z REAL,
                           qw REAL, qx REAL, qy REAL, qz REAL);
    CREATE TABLE image (token BLOB PRIMARY KEY, next_token BLOB, prev_token BLOB, ego_pose_token BLOB,
                        camera_token BLOB, filename_jpg TEXT, timestamp INTEGER);
    CREATE TABLE scene (token BLOB PRIMARY KEY, name TEXT);
    CREATE TABLE lidar_pc (token BLOB PRIMARY KEY, scene_token BLOB, ego_pose_token BLOB, timestamp INTEGER);
    CREATE TABLE track (token BLOB PRIMARY KEY, category_token BLOB);
    CREATE TABLE lidar_box (token BLOB PRIMARY KEY, lidar_pc_token BLOB, track_token BLOB, x REAL, y REAL, z REAL,
                            yaw REAL);
"""
START = 1_630_000_000_000_000  # microseconds
TURN = 0.01  # radians a frame


def write_nuplan(root: Path, logs: int = 11, length: int = 40, missing: tuple[int, ...] = ()) -> Path:
    """Logs of a car that drives on a circle past two others; `missing` are numbers of pictures that are not there."""
    for number in range(logs):
        name = f"2021.08.0{number % 9 + 1}.10.00.0{number}_veh-{number:02d}_00000_00100"
        folder = root / "sensor_blobs" / name / "CAM_F0"
        folder.mkdir(parents=True)
        (root / "splits" / "mini").mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(root / "splits" / "mini" / f"{name}.db") as base:
            base.executescript(_TABLES)
            for camera in ("CAM_F0", "CAM_L0"):
                base.execute("INSERT INTO camera VALUES (?, ?, 160, 90)", (camera.encode(), camera))
            for t in range(length):
                _write_moment(base, name, number, t)
                if t not in missing:
                    Image.fromarray(picture(number, t)).save(folder / f"{t:016x}.jpg", quality=95)
        base.close()
    return root


def ego(t: int, speed: float) -> tuple[float, float, float]:
    """Where the car is after t frames: x, y in meters, heading."""
    heading = TURN * t
    return speed / TURN * np.sin(heading), speed / TURN * (1 - np.cos(heading)), heading


def speed_of(log: int) -> float:
    """Meters a frame."""
    return 0.5 + 0.1 * log


def picture(log: int, t: int) -> np.ndarray:
    """A road with a mark that comes nearer."""
    frame = np.full((90, 160, 3), 90, np.uint8)
    frame[45:] = 60
    x = (7 * t + 20 * log) % 140
    frame[50:70, x : x + 20] = (200, 180, 40)
    return frame


def _write_moment(base: sqlite3.Connection, name: str, log: int, t: int) -> None:
    x, y, heading = ego(t, speed_of(log))
    token, stamp = t.to_bytes(8, "big"), START + 100_000 * t
    quaternion = (np.cos(heading / 2), 0.0, 0.0, np.sin(heading / 2))
    base.execute("INSERT INTO ego_pose VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?)", (token, stamp, x, y, *quaternion))
    for camera in ("CAM_F0", "CAM_L0"):
        values = (camera.encode() + token, token, camera.encode(), f"{name}/{camera}/{t:016x}.jpg", stamp)
        base.execute("INSERT INTO image VALUES (?, NULL, NULL, ?, ?, ?, ?)", values)
    base.execute("INSERT INTO lidar_pc VALUES (?, NULL, ?, ?)", (token, token, stamp + 20_000))
    for track, (forward, left) in enumerate(((10.0, 2.0), (30.0 - t, -3.0))):
        place = (
            x + forward * np.cos(heading) - left * np.sin(heading),
            y + forward * np.sin(heading) + left * np.cos(heading),
        )
        box = (token + bytes([track]), token, bytes([9, track]), *place, heading + 0.1 * track)
        base.execute("INSERT INTO lidar_box VALUES (?, ?, ?, ?, ?, 0, ?)", box)
