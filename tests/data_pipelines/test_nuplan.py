"""nuPlan: pictures with the car's motion and with who else is there."""

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data_pipelines
from data_pipelines import DataError, Dataset
from flam_jax.config import default_config, validate
from tests.data_pipelines import driving


def prepare(source: Path, path: Path, **fields: Any) -> Dataset:
    config = default_config()
    config.data.update(name="nuplan", path=str(path), frame_size=(64, 64), clip_length=8, generate_workers=1)
    config.data.nuplan.update(source=str(source), tracks=3)
    config.data.nuplan.update(fields)
    config.evaluation.update(context=2, steps=3)
    for stage in (config.tokenizer, config.dynamics):
        stage.training.window = 6
    return data_pipelines.prepare(validate(config).data, show_progress=False)


def records(dataset: Dataset) -> list[dict[str, Any]]:
    return [source[i] for source in dataset.splits.values() for i in range(len(source))]


@pytest.fixture(scope="module")
def download(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return driving.write_nuplan(tmp_path_factory.mktemp("nuplan") / "nuplan-v1.1", missing=(20,))


@pytest.mark.parametrize("stride", [1, 2])
def test_motion_and_road_users_are_those_of_the_log(stride: int, download: Path, tmp_path: Path) -> None:
    dataset = prepare(download, tmp_path, stride=stride)
    assert dataset.spec.frame_rate == 10 / stride
    assert dataset.card is not None
    for record in records(dataset):
        log = int(dataset.card.sources[int(record["episode"])].split("veh-")[1][:2])
        speed = driving.speed_of(log)
        for t in range(8):
            number = round(float(record["seconds"][t]) * 10)
            if number + stride < 40:
                turn = driving.TURN * stride
                ahead = speed / driving.TURN * np.array([np.sin(turn), 1 - np.cos(turn)])
                np.testing.assert_allclose(record["controls"][t], [*ahead, turn], atol=1e-4)
            near = [(10.0, 2.0), (30.0 - number, -3.0)]
            order = np.argsort([np.hypot(*place) for place in near])
            np.testing.assert_allclose(record["tracks"][t, :2, :2], np.array(near)[order], atol=1e-3)
            np.testing.assert_allclose(record["tracks"][t, :, 3], [1, 1, 0])
            assert record["track_ids"][t, 2] == -1
            shown = driving.picture(log, number)[:, 35:125]
            assert np.abs(record["frames"][t].mean(axis=(0, 1)) - shown.mean(axis=(0, 1))).max() < 4
    users = {name: set(np.unique(r["track_ids"])) for r in records(dataset) for name in [int(r["episode"])]}
    assert all(len(found - {-1}) == 2 for found in users.values())


def test_no_clip_goes_over_a_picture_that_is_missing(download: Path, tmp_path: Path) -> None:
    dataset = prepare(download, tmp_path)
    assert dataset.card is not None
    assert dataset.card.unit == "log"
    assert dataset.card.split_by == "source"
    assert all(
        notes == ["39 of 40 pictures are there", "1 pictures are missing or cannot be read"]
        for notes in dataset.card.notes.values()
    )
    assert dataset.card.left_out["gaps"] == 11
    for record in records(dataset):
        np.testing.assert_allclose(np.diff(record["seconds"]), 0.1, atol=1e-4)


def test_logs_that_cannot_be_read_or_have_no_pictures_are_named(tmp_path: Path) -> None:
    root = driving.write_nuplan(tmp_path / "nuplan", logs=12)
    logs = sorted((root / "splits" / "mini").glob("*.db"))
    logs[0].write_bytes(b"SQLite format 3\0 nothing more")
    blobs = root / "sensor_blobs" / logs[1].stem
    blobs.rename(root / "elsewhere")
    with sqlite3.connect(logs[2]) as base:
        base.execute("UPDATE image SET filename_jpg = '../../' || filename_jpg")
    base.close()
    with sqlite3.connect(logs[3]) as base:
        base.execute("UPDATE ego_pose SET x = 'east'")
    base.close()
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*")}
    card = prepare(root, tmp_path / "data").card
    assert before == {file: file.stat().st_mtime_ns for file in root.rglob("*")}
    assert card is not None
    reasons = [card.rejected[f"splits/mini/{log.name}"] for log in logs[:4]]
    assert reasons[0].startswith("not a log that can be read")
    assert reasons[1].startswith("no pictures of it in sensor_blobs/")
    assert reasons[2].startswith("shorter than a clip")
    assert reasons[3] == "not a log that can be read (times or places are no numbers)"


def test_a_folder_that_is_no_download_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no download of nuPlan: expected splits/\*/LOG\.db"):
        prepare(tmp_path, tmp_path / "data")
