"""LeRobot data sets: every frame with its own action and state, whatever the format."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

import data_pipelines
from data_pipelines import DataError, Dataset
from flam_jax.config import default_config, validate
from tests.data_pipelines import robots

LENGTHS = [24, 30, 17, 40, 33, 24, 24, 26, 41, 24, 24, 5]


def prepare(source: Path, path: Path, **fields: Any) -> Dataset:
    config = default_config()
    config.data.update(name="lerobot", path=str(path), frame_size=(48, 48), clip_length=8, generate_workers=1)
    config.data.lerobot.update(source=str(source), camera=robots.CAMERAS[0])
    config.data.lerobot.update(fields)
    config.evaluation.update(context=2, steps=3)
    for stage in (config.tokenizer, config.dynamics):
        stage.training.window = 6
    return data_pipelines.prepare(validate(config).data, show_progress=False)


def records(dataset: Dataset) -> list[dict[str, Any]]:
    return [source[i] for source in dataset.splits.values() for i in range(len(source))]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("lerobot")
    return {
        "2.1": robots.write_old(root / "old", LENGTHS),
        "3.0": robots.write_new(root / "new", LENGTHS),
    }


@pytest.mark.parametrize("version", ["2.1", "3.0"])
@pytest.mark.parametrize("stride", [1, 3])
def test_frames_go_with_their_actions_and_states(
    version: str, stride: int, sources: dict[str, Path], tmp_path: Path
) -> None:
    dataset = prepare(sources[version], tmp_path, stride=stride, clip_step=0)
    assert dataset.spec.annotations["controls"].shape == (2,)
    seen = set()
    for record in records(dataset):
        made = robots.episode(int(record["episode"]), LENGTHS[int(record["episode"])])
        for t in range(8):
            number = round(float(record["seconds"][t]) * robots.RATE)
            np.testing.assert_allclose(record["controls"][t], made["action"][number], atol=1e-6)
            np.testing.assert_allclose(record["state"][t], made["observation.state"][number], atol=1e-6)
            marks = [record["frames"][t, 2:6, x : x + 4].mean() for x in (2, 10)]
            assert abs(marks[0] - (int(record["episode"]) * 16 + 30)) < 7
            assert abs(marks[1] - (8 * (number % 27) + 20)) < 3.9, (t, number)
            seen.add((int(record["episode"]), number))
    assert len(seen) > 0.5 * sum(LENGTHS) / stride
    assert dataset.card is not None
    assert dataset.card.split_by == "source"
    assert dataset.card.rejected["episode 11"].startswith("shorter than a clip")


def test_both_formats_and_both_cameras_give_the_same_clips(sources: dict[str, Path], tmp_path: Path) -> None:
    old, new = (records(prepare(sources[version], tmp_path / version)) for version in ("2.1", "3.0"))
    assert len(old) == len(new)
    for first, second in zip(old, new, strict=True):
        assert first["episode"] == second["episode"]
        np.testing.assert_array_equal(first["controls"], second["controls"])
    wrist = records(prepare(sources["2.1"], tmp_path / "wrist", camera=robots.CAMERAS[1]))
    difference = np.abs(wrist[0]["frames"][:, ::-1].astype(int) - old[0]["frames"]).mean()
    assert difference < 3


def test_a_missing_video_and_missing_rows_are_named(tmp_path: Path) -> None:
    root = robots.write_old(tmp_path / "old", [24] * 14)
    (root / "videos" / "chunk-000" / robots.CAMERAS[0] / "episode_000003.mp4").unlink()
    (root / "data" / "chunk-000" / "episode_000005.parquet").write_bytes(b"PAR1")
    wrong = pa.table({"action": [[1.0, 2.0, 3.0]] * 24, "observation.state": [["a", "b"]] * 24} | numbered(6, 24))
    parquet.write_table(wrong, root / "data" / "chunk-000" / "episode_000006.parquet")
    card = prepare(root, tmp_path / "data").card
    assert card is not None
    assert card.rejected["episode 3"].startswith("episode_000003.mp4: cannot be read: No such file")
    assert "episode_000005.parquet cannot be read" in card.rejected["episode 5"]
    assert card.rejected["episode 6"] == "episode_000006.parquet: action is not 2 numbers a frame"


def numbered(episode: int, length: int) -> dict[str, list[int]]:
    return {"frame_index": list(range(length)), "episode_index": [episode] * length}


def test_episodes_that_cannot_be_are_one_line(tmp_path: Path) -> None:
    root = robots.write_new(tmp_path / "new", [24] * 3)
    file = root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    rows = parquet.read_table(file).to_pydict()
    for change in ({"length": [24, -1, 24]}, {f"videos/{robots.CAMERAS[0]}/from_timestamp": [0.0, float("nan"), 0.0]}):
        parquet.write_table(pa.table(rows | change), file)
        with pytest.raises(DataError, match=r"/meta: episode 1 of .* frames cannot be"):
            prepare(root, tmp_path / "data")


WRONG = {
    "camera is empty: expected one of the cameras": {"camera": ""},
    "camera = 'side': the cameras of": {"camera": "side"},
    "action = 'effort': the features of": {"action": "effort"},
}


@pytest.mark.parametrize("expected", WRONG)
def test_names_that_there_are_not_are_told_with_those_that_there_are(
    expected: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"config\.data\.lerobot") as caught:
        prepare(sources["2.1"], tmp_path, **WRONG[expected])
    assert expected in str(caught.value)
    assert "observation" in str(caught.value)


def hostile(info: dict[str, Any]) -> None:
    name = "../../outside"
    info["features"][name] = info["features"].pop(robots.CAMERAS[0])
    info["video_path"] = "{video_key.__class__}"


BROKEN = {
    "codebase_version is '9', expected": lambda info: info.update(codebase_version="v9"),
    "expected features, and fps": lambda info: info.update(fps=0),
    "does not lie in": hostile,
}


@pytest.mark.parametrize("expected", BROKEN)
def test_a_description_that_cannot_be_is_one_line(expected: str, sources: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "source"
    (root / "meta").mkdir(parents=True)
    info = json.loads((sources["2.1"] / "meta" / "info.json").read_text())
    BROKEN[expected](info)
    (root / "meta" / "info.json").write_text(json.dumps(info))
    camera = "../../outside" if expected == "does not lie in" else robots.CAMERAS[0]
    with pytest.raises(DataError, match=expected) as caught:
        prepare(root, tmp_path / "data", camera=camera)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_data_set_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no LeRobot data set: meta/info\.json"):
        prepare(tmp_path, tmp_path / "data")
