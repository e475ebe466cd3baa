"""Procgen: real play, cut at the ends of episodes, no level in two splits."""

import numpy as np
import pytest

import data_pipelines
from data_pipelines.procgen.builder import Procgen
from data_pipelines.procgen.play import play
from data_pipelines.recipe import Recipe


def records(dataset: data_pipelines.Dataset, split: str) -> list[dict[str, np.ndarray]]:
    source = dataset.split(split)
    return [source[index] for index in range(len(source))]


def recipe(game: str = "bigfish", size: int = 64, levels: int = 500) -> Recipe:
    variant = {"game": game, "levels": levels, "repeat": 4.0}
    return Recipe("procgen", size, size, num_frames=3200, clip_length=16, seed=0, variant=variant)


def test_no_level_is_in_two_splits(procgen: data_pipelines.Dataset) -> None:
    levels = {name: {int(record["level"]) for record in records(procgen, name)} for name in ("train", "val", "test")}
    assert sum(len(part) for part in levels.values()) == len(set.union(*levels.values())) == 10
    assert [len(procgen.split(name)) for name in levels] == [16, 2, 2]


def test_splits_follow_the_number_of_frames_whatever_the_number_of_levels() -> None:
    for levels in (10, 37, 200, 500):
        units = Procgen.units(recipe(levels=levels))
        assert [sum(clips for _, clips in units[name]) for name in ("train", "val", "test")] == [160, 20, 20]
        assert len({level for part in units.values() for level, _ in part}) <= levels


@pytest.mark.parametrize("game", ["bigfish", "leaper", "starpilot"])
def test_pictures_change_and_the_player_moves(game: str) -> None:
    clips = Procgen.make_unit(recipe(game), 3, 4)
    changed = [(clip["frames"][1:] != clip["frames"][:-1]).any((1, 2, 3)).mean() for clip in clips]
    assert np.mean(changed) > 0.5
    assert len({int(action) for clip in clips for action in clip["actions"]}) > 3
    # The player of Bigfish is green and alone in that; it must get about, not tremble on the spot.
    if game == "bigfish":
        frames = np.concatenate([clip["frames"] for clip in clips]).astype(int)
        green = (frames[..., 1] > 100) & (frames[..., 0] < 80) & (frames[..., 2] < 130)
        rows = [np.argwhere(mask).mean(0) for mask in green if mask.any()]
        assert np.ptp(np.array(rows), axis=0).max() > 10


def test_clips_of_an_episode_follow_each_other_and_never_pass_its_end() -> None:
    wanted = recipe()
    clips = Procgen.make_unit(wanted, 3, 6)
    rng = np.random.default_rng((wanted.seed, 3))
    episodes = {}
    for number, episode in enumerate(play("bigfish", 3, 64, 4.0, rng, max_frames=9 * 16)):
        start = int(rng.integers(16))
        episodes[3 * 2**20 + number] = episode.frames[start:]
        if len(episodes) == 6:
            break
    for clip in clips:
        part = slice(16 * clip["clip"], 16 * clip["clip"] + 16)
        np.testing.assert_array_equal(clip["frames"], episodes[clip["episode"]][part])


def test_actions_are_kept_for_about_the_mean_time() -> None:
    actions = np.concatenate([clip["actions"] for clip in Procgen.make_unit(recipe("leaper"), 0, 60)])
    # A change is a new draw, every fourth step, that is not the old action by chance (one of nine).
    assert np.mean(actions[1:] != actions[:-1]) == pytest.approx(1 / 4 * 8 / 9, abs=0.05)


def test_large_frames_have_the_size_asked_for() -> None:
    (clip,) = Procgen.make_unit(recipe(size=224), 0, 1)
    assert clip["frames"].shape == (16, 224, 224, 3)
    assert clip["frames"].max() > 100
