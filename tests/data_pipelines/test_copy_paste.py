"""Copies of training clips: entities of other clips at other places, ground where one is gone, no other change."""

import pickle
from typing import Any

import numpy as np
import pytest

from data_pipelines.copy_paste import REACH, CopyPaste, foreground_entities
from flam_jax.config import ConfigError, default_config, validate

HEIGHT, WIDTH, LENGTH = 24, 32, 6
GROUND = np.random.default_rng(0).integers(40, 90, (HEIGHT, WIDTH, 3)).astype(np.uint8)
COLORS = [(130 + 10 * i, 135 + 10 * i) for i in range(8)]
START = {color: place for pair in COLORS for color, place in zip(pair, ((4, 10), (16, 20)), strict=True)}
STEP = {color: step for pair in COLORS for color, step in zip(pair, (1, -1), strict=True)}


class Clips:
    """Clip i shows two squares of 4x4 pixels, of its own colors, that move to the right and to the left."""

    split, skips, fields = "train", False, {"frames": None, "episode": None}

    def __len__(self) -> int:
        return 8

    def find(self, index: int, keys: Any) -> tuple[int, dict[str, Any]]:
        frames = np.stack([GROUND] * LENGTH)
        for t in range(LENGTH):
            frames[t, 4:8, 10 + t : 14 + t] = COLORS[index][0]
            frames[t, 16:20, 20 - t : 24 - t] = COLORS[index][1]
        record = {"frames": frames, "episode": np.int64(index)}
        return index, {key: record[key] for key in keys}

    def read(self, index: int, keys: Any) -> dict[str, Any]:
        return self.find(index, keys)[1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.read(index, self.fields)


def copies_of(count: int, seed: int = 3) -> CopyPaste:
    return CopyPaste(Clips(), GROUND, count, seed)


def seen_of(frames: np.ndarray, color: int) -> np.ndarray:
    """Where a color is seen."""
    return (frames == color).all(-1)


def test_the_clips_themselves_come_first_and_are_as_they_are() -> None:
    clips = copies_of(4)
    assert len(clips) == 5 * 8
    for number in range(8):
        np.testing.assert_array_equal(clips[number]["frames"], Clips()[number]["frames"])


def test_a_copy_has_some_entities_of_its_clip_and_some_of_another_and_else_the_ground() -> None:
    clips = copies_of(40)
    kept, come, partners = [], [], set()
    for number in range(8, len(clips)):
        frames, own = clips[number]["frames"], number % 8
        assert clips[number]["episode"] == own
        colors = {int(color) for color in np.unique(frames[frames >= 130])}
        strangers = {(color - 130) // 10 for color in colors} - {own}
        assert len(strangers) <= 1
        partners |= strangers
        come.append(len(colors - set(COLORS[own])))
        entities_seen = np.zeros(frames.shape[:3], bool)
        for color in colors:
            entities_seen |= seen_of(frames, color)
        assert (frames[~entities_seen] == np.broadcast_to(GROUND, frames.shape)[~entities_seen]).all()
        first, last = seen_of(Clips()[own]["frames"], COLORS[own][0])[[0, -1]]
        kept.append((frames[0][first] == COLORS[own][0]).all() and (frames[-1][last] == COLORS[own][0]).all())
    assert partners == set(range(8))
    assert 0.35 < np.mean(kept) < 0.6  # half, less those that are covered
    assert 0.6 < np.mean(come) < 1.0  # of two; some are moved out of sight


def test_an_entity_of_another_clip_moves_as_it_did_or_mirrored_from_another_place() -> None:
    clips = copies_of(40)
    shifts, turned = [], []
    for number in range(8, len(clips)):
        frames = clips[number]["frames"]
        for color in set(START) - set(COLORS[number % 8]):
            seen = seen_of(frames, color)
            if (seen.reshape(LENGTH, -1).sum(-1) < 16).any():
                continue  # not there, or in part covered or out of sight
            rows, columns = np.array([np.argwhere(frame).min(axis=0) for frame in seen]).T
            assert set(np.diff(rows)) == {0}
            (step,) = set(np.diff(columns))
            assert abs(step) == 1
            turned.append(step != STEP[color])
            row, column = START[color]
            shifts.append((rows[0] - row, columns[0] - (WIDTH - 4 - column if turned[-1] else column)))
    assert len(shifts) > 100
    assert 0.3 < np.mean(turned) < 0.7
    for axis, (share, size) in enumerate(zip(REACH, (HEIGHT, WIDTH), strict=True)):
        found = np.array(shifts)[:, axis]
        assert abs(found).max() <= share * size
        assert found.min() < 0 < found.max()
    assert len(set(shifts)) > len(shifts) / 2


def test_noise_is_no_entity_and_the_edge_of_an_entity_is_its_own() -> None:
    frames = Clips()[0]["frames"].copy()
    frames[2, 0, 0] = 255
    frames[:, 3, 10:14] = GROUND[3, 10:14] + 20  # shines from the entity below it, too little for one
    moving, labels, count = foreground_entities(frames, GROUND)
    assert count == 2
    assert moving[2, 0, 0]
    assert labels[2, 0, 0] == 0
    assert not moving[0, 3, 12]
    assert labels[0, 3, 12] == labels[0, 5, 12] > 0
    np.testing.assert_array_equal(moving & (labels == labels[0, 5, 12]), seen_of(frames, COLORS[0][0]))


def test_copies_are_the_same_every_time_and_in_every_process_and_others_with_another_seed() -> None:
    clips, other = copies_of(3), copies_of(3, seed=4)
    again = pickle.loads(pickle.dumps(clips))
    frames = [[source[n]["frames"] for n in range(8, len(source))] for source in (clips, again, other)]
    np.testing.assert_array_equal(frames[0], frames[1])
    assert np.mean([(a != b).any() for a, b in zip(frames[0], frames[2], strict=True)]) > 0.9


def test_fields_that_are_not_asked_for_are_not_read() -> None:
    assert set(copies_of(2).find(20, ("episode",))[1]) == {"episode"}


def test_there_is_no_record_beyond_the_last() -> None:
    with pytest.raises(IndexError, match="has no record 24"):
        copies_of(2)[24]


class Broken(Clips):
    """Record 2 cannot be read; record 5 stands in for it."""

    skips = True

    def __init__(self) -> None:
        self.unreadable: set[int] = set()

    def find(self, index: int, keys: Any) -> tuple[int, dict[str, Any]]:
        return super().find(5 if index == 2 else index, keys)

    def mark_unreadable(self, numbers: Any) -> None:
        self.unreadable.update(numbers)

    def faults(self, records: Any = None) -> list[str]:
        return [str(sorted(self.unreadable if records is None else records))]


def test_records_that_cannot_be_read_are_told_by_their_own_numbers() -> None:
    source = Broken()
    clips = CopyPaste(source, GROUND, 2, 0)
    assert [clips.find(number, ("episode",))[0] for number in (2, 10, 18)] == [5, 13, 21]
    assert clips.find(18, ("episode",))[1]["episode"] == 5
    clips.mark_unreadable([18, 10])
    assert source.unreadable == {2}
    assert clips.faults([10, 18]) == clips.faults() == ["[2]"]


@pytest.mark.parametrize(
    ("name", "model", "reason"),
    [
        ("feature_folder", "flam", "0: the features of feature_folder would not show what is put"),
        ("multigrid", "action_conditioned", "0: action_conditioned is not given the actions of what is put"),
    ],
)
def test_copies_are_refused_where_records_hold_what_they_would_not_show(name: str, model: str, reason: str) -> None:
    config = default_config()
    config.data.name = name
    config.dynamics.update(name=model, copy_paste=2)
    with pytest.raises(ConfigError, match=rf"config\.dynamics\.copy_paste = 2: expected {reason}"):
        validate(config)
