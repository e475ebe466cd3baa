"""Small LeRobot data sets of both formats: an arm's mark that walks, with its action and state."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from tests.data_pipelines.videos import write_video

RATE = 30
# The quicker presets of AV1's encoder mix neighboring frames.
_SHARP = {"crf": "1", "preset": "6", "svtav1-params": "enable-tf=0"}
CAMERAS = ("observation.images.top", "observation.images.wrist")


def episode(number: int, length: int) -> dict[str, Any]:
    """Frames in which a mark stands where the state says and moves as the action says."""
    rng = np.random.default_rng(number)
    action = np.clip(rng.normal(size=(length, 2)).cumsum(axis=0) * 0.3, -2, 2).astype(np.float32)
    state = np.clip(24 + np.concatenate([np.zeros((1, 2)), action[:-1]]).cumsum(axis=0), 4, 44).astype(np.float32)
    frames = []
    for t, (x, y) in enumerate(state.round().astype(int)):
        frame = np.full((48, 48, 3), 40, np.uint8)
        frame[y - 4 : y + 4, x - 4 : x + 4] = 230
        frame[0:8, 0:8], frame[0:8, 8:16] = number * 16 + 30, 8 * (t % 27) + 20  # episode and frame
        frames.append(frame)
    return {"frames": frames, "action": action, "observation.state": state}


def info(version: str, lengths: list[int]) -> dict[str, Any]:
    shared = {"robot_type": "test", "total_episodes": len(lengths), "total_frames": sum(lengths), "fps": RATE}
    features = {camera: {"dtype": "video", "shape": [48, 48, 3], "names": None} for camera in CAMERAS}
    features |= {name: {"dtype": "float32", "shape": [2], "names": None} for name in ("action", "observation.state")}
    features |= {name: {"dtype": "int64", "shape": [1]} for name in ("frame_index", "episode_index")}
    return shared | {"codebase_version": version, "chunks_size": 1000, "features": features}


def write_old(root: Path, lengths: list[int]) -> Path:
    """Format 2.1: one mp4 and one parquet file an episode."""
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info("v2.1", lengths)))
    rows = [{"episode_index": number, "tasks": ["walk"], "length": length} for number, length in enumerate(lengths)]
    (root / "meta" / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number, length in enumerate(lengths):
        made = episode(number, length)
        table = root / "data" / "chunk-000" / f"episode_{number:06d}.parquet"
        table.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(_table(number, made), table)
        for camera in CAMERAS:
            video = root / "videos" / "chunk-000" / camera / f"episode_{number:06d}.mp4"
            video.parent.mkdir(parents=True, exist_ok=True)
            write_video(video, _seen(made["frames"], camera), rate=RATE, options={"crf": "1", "g": "2"})
    return root


def write_new(root: Path, lengths: list[int], codec: str = "libsvtav1") -> Path:
    """Format 3.0: many episodes in one mp4 (AV1) and in one parquet file, told by parquet files of metadata."""
    (root / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info("v3.0", lengths)))
    made = [episode(number, length) for number, length in enumerate(lengths)]
    (root / "data" / "chunk-000").mkdir(parents=True)
    tables = [_table(number, one) for number, one in enumerate(made)]
    parquet.write_table(pa.concat_tables(tables), root / "data" / "chunk-000" / "file-000.parquet")
    half = len(lengths) // 2 + 1  # two files of videos
    starts: list[float] = []
    for file, part in enumerate((made[:half], made[half:])):
        begins = np.cumsum([0, *(len(one["frames"]) for one in part)])[:-1]
        starts += (begins / RATE).tolist()
        for camera in CAMERAS:
            video = root / "videos" / camera / "chunk-000" / f"file-{file:03d}.mp4"
            video.parent.mkdir(parents=True, exist_ok=True)
            frames = [frame for one in part for frame in _seen(one["frames"], camera)]
            write_video(video, frames, codec, rate=RATE, options=_SHARP)
    rows: dict[str, list[Any]] = {"episode_index": list(range(len(lengths))), "length": lengths}
    rows |= {"data/chunk_index": [0] * len(lengths), "data/file_index": [0] * len(lengths)}
    for camera in CAMERAS:
        rows |= {
            f"videos/{camera}/chunk_index": [0] * len(lengths),
            f"videos/{camera}/file_index": [int(number >= half) for number in range(len(lengths))],
            f"videos/{camera}/from_timestamp": starts,
            f"videos/{camera}/to_timestamp": [s + n / RATE for s, n in zip(starts, lengths, strict=True)],
        }
    parquet.write_table(pa.table(rows), root / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    return root


def _table(number: int, made: dict[str, Any]) -> Any:
    length = len(made["frames"])
    columns = {name: made[name].tolist() for name in ("action", "observation.state")}
    columns |= {"frame_index": list(range(length)), "episode_index": [number] * length}
    return pa.table(columns | {"timestamp": (np.arange(length) / RATE).astype(np.float32).tolist()})


def _seen(frames: list[np.ndarray], camera: str) -> list[np.ndarray]:
    return frames if camera == CAMERAS[0] else [frame[::-1] for frame in frames]
