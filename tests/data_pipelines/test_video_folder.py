"""A folder of videos becomes clips: what can be read is read rightly, what cannot is named."""

import itertools
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data_pipelines
from data_pipelines import DataError, Dataset, imports
from flam_jax.config import ConfigError, default_config, identity, validate
from tests.data_pipelines import videos

SPLITS = ("train", "val", "test")


def configured(source: Path, path: Path, **fields: Any) -> Any:
    config = default_config()
    config.data.update(name="video_folder", path=str(path), frame_size=(48, 64), clip_length=8, generate_workers=1)
    config.data.video_folder.source = str(source)
    config.evaluation.update(context=2, steps=3)
    for stage in (config.tokenizer, config.dynamics):
        stage.training.window = 6
    for name, value in fields.items():
        (config.data if name in config.data else config.data.video_folder)[name] = value
    return validate(config)


def prepare(source: Path, path: Path, **fields: Any) -> Dataset:
    return data_pipelines.prepare(configured(source, path, **fields).data, show_progress=False)


def records(dataset: Dataset) -> list[dict[str, Any]]:
    return [dataset.split(name)[i] for name in SPLITS for i in range(len(dataset.split(name)))]


def of_file(dataset: Dataset, name: str) -> list[dict[str, Any]]:
    """Clips of one file, in order of time."""
    assert dataset.card is not None
    number = list(dataset.card.sources).index(name)
    return sorted((one for one in records(dataset) if one["episode"] == number), key=lambda one: int(one["clip"]))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("zoo")
    videos.write_zoo(root / "videos")
    return prepare(root / "videos", root / "data", fit="stretch")


USED = {
    *("plain.mp4", "sound.mp4", "deep/vp9.webm", "deep/er/mpeg4.mov", "mjpeg.avi", "lossless.mkv", "moving.gif"),
    *("ten bits.mkv", "alpha.mov", "odd size.mkv", "Ünïcode 视频 'name'.mp4", "UPPER.MP4", "upright.mkv", "turned.mp4"),
    *("uneven.mp4", "interlaced.mkv", "wide pixels.mp4", "long.mp4", "frames png", "deep/frames jpg"),
    *("cut off.avi", "broken pictures"),
}
REJECTED = {
    "one frame.mp4": "shorter than a clip of 8 frames: 1 frames",
    "short.mp4": "shorter than a clip of 8 frames: 5 frames",
    "only sound.mp4": "no video in it, only sound",
    "empty.mp4": "empty",
    "text.mp4": "not a video that can be read (Invalid data found when processing input)",
    "cut off.mp4": "not a video that can be read (Invalid data found when processing input)",
    "playlist.mp4": "",
    "pipe.mp4": "not a file",
    "link.mp4": "a link: links are not followed",
    "link out": "a link to a folder: links are not followed",
    "two\nlines \x1b[2J.mp4": "empty",
    "not utf-8 ?.mp4": "empty",
    "one picture": "a folder of one picture, or of links: expected two pictures or more",
}


def test_every_kind_of_file_is_used_or_named_with_a_reason(zoo: Dataset) -> None:
    card = zoo.card
    assert card is not None
    assert card.rejected["playlist.mp4"].startswith("not a video that can be read")
    assert dict(card.rejected) == REJECTED | {"playlist.mp4": card.rejected["playlist.mp4"]}
    assert set(card.sources) - set(card.rejected) == USED
    assert card.ignored == {".txt": 1}
    assert card.notes["turned.mp4"] == ["turned clockwise by 90 degrees"]
    assert "interlaced: one field of two is used" in card.notes["interlaced.mkv"]
    assert card.notes["alpha.mov"] == ["transparency is dropped"]
    assert card.notes["broken pictures"][0].startswith("frame 11.png: not a picture that can be read")
    assert card.split_by == "source"
    assert sum(card.sizes.values()) == len(USED)
    assert card.clips == {name: len(zoo.split(name)) for name in SPLITS}
    lines = zoo.describe().splitlines()
    assert f"{len(USED)} files used" in lines[1]
    assert "not used: 8 more, listed in card.json" in lines
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("name", sorted(USED - {"moving.gif"}))
def test_frames_show_what_was_written(name: str, zoo: Dataset) -> None:
    """The red mark is in the corner in which it is seen when the file is played."""
    clips = of_file(zoo, name)
    assert clips
    frame = clips[0]["frames"][2].astype(int)
    corner = {"turned.mp4": frame[3:6, -6:-3]}.get(name, frame[3:6, 3:6])
    assert np.abs(corner.reshape(-1, 3).mean(axis=0) - videos.RED).max() < 45, corner.mean(axis=(0, 1))
    assert clips[0]["frames"].max() > 190


def test_splits_share_no_file(zoo: Dataset) -> None:
    files = [{int(record["episode"]) for record in map(zoo.split(name).__getitem__, range(len(zoo.split(name))))}
             for name in SPLITS]  # fmt: skip
    assert all(files)
    assert not any(one & other for one, other in itertools.combinations(files, 2))


def test_nothing_is_written_beside_the_source(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    videos.write_video(root / "long.mp4", videos.walking(120))
    before = {file: file.stat().st_mtime_ns for file in (root, *root.rglob("*"))}
    dataset = prepare(root, tmp_path / "data")
    assert {file: file.stat().st_mtime_ns for file in (root, *root.rglob("*"))} == before
    assert not list(dataset.directory.parent.glob("reading*"))
    assert {"card.json", "preview.png", "features.json"} < {file.name for file in dataset.directory.iterdir()}
    assert dataset.preview is not None
    assert dataset.preview.max() > 200


def folder_of(tmp_path: Path, frames: list[np.ndarray], **more: Any) -> Path:
    root = tmp_path / "videos"
    root.mkdir(exist_ok=True)
    videos.write_video(root / "video.mkv", frames, "ffv1", "bgr0", **more)
    return root


def test_frames_are_those_shown_at_the_times_of_the_rate(tmp_path: Path) -> None:
    """The brightness of a frame tells when it was shown."""
    rng = np.random.default_rng(0)
    times = np.concatenate([[0], np.cumsum(rng.uniform(0.02, 0.4, 199))]).round(3)
    shown = [np.full((48, 64, 3), number + 20, np.uint8) for number in range(200)]
    root = folder_of(tmp_path, shown, times=times.tolist(), rate=25)
    dataset = prepare(root, tmp_path / "data", frame_rate=5.0, cut_threshold=0.0)
    for record in records(dataset):
        for seconds, frame in zip(record["seconds"], record["frames"], strict=True):
            expected = np.searchsorted(times, seconds + 1e-4, side="right") - 1
            assert abs(int(frame[0, 0, 0]) - 20 - expected) <= 0, seconds
        np.testing.assert_allclose(np.diff(record["seconds"]), 0.2, atol=1e-4)


def test_every_frame_of_the_file_and_every_third_of_them(tmp_path: Path) -> None:
    root = folder_of(tmp_path, [np.full((48, 64, 3), n, np.uint8) for n in range(250)], rate=30)
    every = prepare(root, tmp_path / "data", frame_rate=0.0)
    third = prepare(root, tmp_path / "data", frame_rate=0.0, stride=3, cut_threshold=0.0)
    assert every.spec.frame_rate is None
    assert every.num_frames > 2.5 * third.num_frames
    for dataset, step in ((every, 1), (third, 3)):
        assert all((np.diff(record["frames"][:, 0, 0, 0].astype(int)) == step).all() for record in records(dataset))


def test_a_rate_equal_to_that_of_the_file_takes_every_frame_once(tmp_path: Path) -> None:
    """Matroska rounds the times of frames to milliseconds."""
    root = folder_of(tmp_path, [np.full((48, 64, 3), n, np.uint8) for n in range(250)], rate=30)
    dataset = prepare(root, tmp_path / "data", frame_rate=30.0, cut_threshold=0.0)
    assert all((np.diff(record["frames"][:, 0, 0, 0].astype(int)) == 1).all() for record in records(dataset))


@pytest.mark.parametrize("fit", ["crop", "letterbox", "stretch"])
def test_frames_of_another_shape_are_made_to_fit(fit: str, tmp_path: Path) -> None:
    frame = np.full((60, 240, 3), 200, np.uint8)
    frame[:, :20], frame[:, -20:] = videos.RED, videos.BLUE
    shown = folder_of(tmp_path, [frame] * 120)
    image = records(prepare(shown, tmp_path / "data", fit=fit))[0]["frames"][0].astype(int)
    red = np.abs(image - videos.RED).max(axis=-1) < 30
    black = image.max(axis=-1) < 20
    if fit == "crop":
        assert not red.any()
        assert not black.any()
    elif fit == "letterbox":
        assert black[:15].all()
        assert black[-15:].all()
        assert red[24, 2]
    else:
        assert red[:, 2].all()
        assert not black.any()


def test_no_clip_goes_across_a_cut(tmp_path: Path) -> None:
    scenes = [videos.plain(13, color) for color in (videos.RED, videos.GREY, videos.BLUE, videos.GREEN) * 4]
    root = folder_of(tmp_path, list(itertools.chain(*scenes)))
    dataset = prepare(root, tmp_path / "data")
    assert dataset.card is not None
    assert dataset.card.left_out["cuts"] == 15
    assert all(record["frames"].reshape(8, -1, 3).std(axis=0).max() < 5 for record in records(dataset))
    across = prepare(root, tmp_path / "data", cut_threshold=0.0)
    assert any(record["frames"].reshape(8, -1, 3).std(axis=0).max() > 50 for record in records(across))


def test_a_camera_that_pans_is_no_cut(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 255, (6, 200, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    dataset = prepare(folder_of(tmp_path, [ground[:, 8 * t : 8 * t + 64] for t in range(120)]), tmp_path / "data")
    assert dataset.card is not None
    assert dataset.card.left_out["cuts"] <= 1
    frames = dataset.split("train")[0]["frames"].astype(int)
    assert np.abs(np.diff(frames, axis=0)).mean() / 255 > 0.12  # more than the threshold


def test_still_stretches_are_cut_off_where_asked(tmp_path: Path) -> None:
    moving, still = videos.walking(60), videos.plain(60, videos.GREY)
    root = folder_of(tmp_path, [*moving, *still, *moving])
    kept = prepare(root, tmp_path / "data")
    cut = prepare(root, tmp_path / "data", still_seconds=1.0)
    assert cut.card is not None
    assert 45 < cut.card.left_out["still frames"] < 55
    assert 0 < cut.num_frames < kept.num_frames - 40


def test_clips_overlap_where_asked(tmp_path: Path) -> None:
    root = folder_of(tmp_path, [np.full((48, 64, 3), n, np.uint8) for n in range(120)])
    apart = prepare(root, tmp_path / "data", cut_threshold=0.0)
    over = prepare(root, tmp_path / "data", cut_threshold=0.0, clip_step=2)
    starts = [int(record["clip"]) for record in records(over)]
    assert set(np.diff(sorted(starts))) >= {200}
    assert len(starts) > 3 * len(records(apart))


def test_few_files_are_split_by_time_with_a_gap(tmp_path: Path) -> None:
    root = folder_of(tmp_path, [np.full((48, 64, 3), n % 250, np.uint8) for n in range(400)])
    dataset = prepare(root, tmp_path / "data", cut_threshold=0.0, clip_step=1)
    assert dataset.card is not None
    assert dataset.card.split_by == "time"
    ranges = []
    for name in SPLITS:
        times = np.concatenate([dataset.split(name)[i]["seconds"] for i in range(len(dataset.split(name)))])
        ranges.append((times.min(), times.max()))
    assert ranges[0][1] + 1.0 <= ranges[1][0]
    assert ranges[1][1] + 1.0 <= ranges[2][0]
    assert 0.7 < len(dataset.split("train")) / (400 - 7) < 0.82


def test_the_same_records_from_two_processes_and_from_parts_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    for number in range(3):
        frames = [*videos.walking(90, seed=number), *videos.walking(90, seed=number + 3)]
        videos.write_video(root / f"{number}.mp4", frames, options={"g": "12"})
    one = records(prepare(root, tmp_path / "one"))
    two = records(prepare(root, tmp_path / "two", generate_workers=2))
    assert len(one) == len(two)
    for first, second in zip(one, two, strict=True):
        assert all(np.array_equal(first[name], second[name]) for name in first)
    # In parts the clips begin elsewhere; what is shown at a time is the same.
    monkeypatch.setattr(imports, "_SECONDS_OF_A_TASK", 4.0)
    frames = {(int(r["episode"]), round(float(s), 3)): f for r in one for s, f in zip(r["seconds"], r["frames"])}  # noqa: B905
    parts = records(prepare(root, tmp_path / "parts"))
    compared = 0
    for record in parts:
        for seconds, frame in zip(record["seconds"], record["frames"], strict=True):
            key = int(record["episode"]), round(float(seconds), 3)
            if key in frames:
                np.testing.assert_array_equal(frame, frames[key])
                compared += 1
    assert compared > 300


def _prepare(config: dict[str, Any]) -> None:
    from ml_collections import ConfigDict

    data_pipelines.prepare(ConfigDict(config), show_progress=False)


def test_a_start_after_a_kill_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    for number in range(12):
        videos.write_video(root / f"{number}.mp4", videos.walking(200, 96, 128, seed=number))
    config = configured(root, tmp_path / "data")
    process = multiprocessing.get_context("spawn").Process(target=_prepare, args=(config.data.to_dict(),))
    process.start()
    entries = lambda: {file: file.stat().st_mtime_ns for file in (tmp_path / "data").glob("*/*/reading/*.json")}  # noqa: E731
    deadline = time.monotonic() + 60
    while len(entries()) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
    process.join()
    done = entries()
    assert 3 <= len(done) < 12, "it was not killed in the middle"
    read = []
    original = imports._read_task
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imports, "_read_task", lambda *task: (read.append(task), original(*task)))
        dataset = prepare(root, tmp_path / "data")
    assert len(read) == 12 - len(done)
    assert dataset.card is not None
    assert not dataset.card.rejected


def test_a_source_that_has_changed_is_told_and_the_records_stay(tmp_path: Path) -> None:
    root = folder_of(tmp_path, videos.walking(120))
    first = prepare(root, tmp_path / "data")
    assert "has changed" not in first.describe()
    videos.write_video(root / "more.mp4", videos.walking(30))
    again = prepare(root, tmp_path / "data")
    assert "has changed since it was read" in again.describe()
    assert len(records(again)) == len(records(first))
    for file in root.iterdir():
        file.unlink()
    root.rmdir()
    assert len(records(prepare(root, tmp_path / "data"))) == len(records(first))


USELESS = {
    "is no folder": lambda root: None,
    "no file that can be read lies there": lambda root: root.mkdir(),
    "no file of it can be used (a.mp4: empty)": lambda root: (root.mkdir(), (root / "a.mp4").touch()),
    "gives 3 clips of 8 frames": lambda root: (
        root.mkdir(),
        videos.write_video(root / "a.mp4", videos.walking(30)),
    ),
}


@pytest.mark.parametrize("expected", USELESS)
def test_a_folder_that_is_of_no_use_is_one_line(expected: str, tmp_path: Path) -> None:
    USELESS[expected](tmp_path / "videos")
    with pytest.raises(DataError) as caught:
        prepare(tmp_path / "videos", tmp_path / "data")
    assert expected in str(caught.value)
    assert str(tmp_path / "videos") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_source_and_a_number_of_frames_are_told(tmp_path: Path) -> None:
    config = default_config()
    config.data.update(name="video_folder", path=str(tmp_path), frame_size=(48, 64))
    with pytest.raises(DataError, match=r"config\.data\.video_folder\.source is empty: expected the folder"):
        data_pipelines.prepare(config.data)
    config.data.num_frames = 5_000
    with pytest.raises(ConfigError, match=r"config\.data\.num_frames = 5000: expected 100000, the default: the files"):
        validate(config)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission_are_named(tmp_path: Path) -> None:
    root = folder_of(tmp_path, videos.walking(120))
    videos.write_video(root / "closed.mp4", videos.walking(30)).chmod(0)
    (root / "closed").mkdir(mode=0)
    card = prepare(root, tmp_path / "data").card
    assert card is not None
    assert card.rejected == dict.fromkeys(("closed.mp4", "closed"), "cannot be read: Permission denied")


def test_the_place_of_the_folder_does_not_name_a_run(tmp_path: Path) -> None:
    here, there, other = (configured(tmp_path / name, tmp_path / "d") for name in ("a/yard", "b/yard", "a/street"))
    assert identity(here) == identity(there)
    assert identity(here) != identity(other)


def test_a_card_that_is_not_as_it_is_written_is_none(zoo: Dataset, tmp_path: Path) -> None:
    from data_pipelines.data_card import DataCard

    tree = json.loads((zoo.directory / "card.json").read_text())
    for change in ({"sources": "all"}, {"more": 1}, {"clips": [1]}):
        (tmp_path / "card.json").write_text(json.dumps(tree | change))
        assert DataCard.read(tmp_path) is None
    (tmp_path / "card.json").write_text(json.dumps(tree))
    assert DataCard.read(tmp_path) == zoo.card
