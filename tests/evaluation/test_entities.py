"""Entities in rollouts and under chosen actions, on frames in which it is known what happens to them."""

import numpy as np
import pytest

from flam_jax.evaluation.entity_pixels import background
from flam_jax.evaluation.evaluators.control import places, vocabulary
from flam_jax.evaluation.evaluators.entities import entities_of_rollout

COLORS = np.array([(38, 40, 46), (230, 75, 60), (70, 150, 235)], np.uint8)
SIDE = 6


def clip(frames: int = 6, alike: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Frames and masks of two squares; the first walks to the right."""
    masks = np.zeros((frames, 32, 32), np.uint8)
    for t in range(frames):
        masks[t, 4 : 4 + SIDE, 2 + 2 * t : 2 + 2 * t + SIDE] = 1
        masks[t, 20 : 20 + SIDE, 20 : 20 + SIDE] = 2
    return COLORS[np.minimum(masks, 1) if alike else masks], masks


@pytest.mark.parametrize("alike", [False, True])
def test_the_true_frames_lose_nothing(alike: bool) -> None:
    frames, masks = clip(alike=alike)
    visible, dissolved, doubled = entities_of_rollout(frames, masks, frames[2:], 2)
    assert visible.all()
    assert not dissolved.any()
    assert not doubled.any()


@pytest.mark.parametrize("alike", [False, True])
def test_an_entity_that_is_not_drawn_is_dissolved_and_the_other_is_not(alike: bool) -> None:
    frames, masks = clip(alike=alike)
    imagined = frames[2:].copy()
    imagined[2:][masks[4:] == 2] = COLORS[0]
    _, dissolved, doubled = entities_of_rollout(frames, masks, imagined, 2)
    np.testing.assert_array_equal(dissolved, [[False, False]] * 2 + [[False, True]] * 2)
    assert not doubled.any()


@pytest.mark.parametrize("alike", [False, True])
def test_an_entity_that_is_left_standing_is_doubled_where_it_is_also_drawn_and_else_dissolved(alike: bool) -> None:
    frames, masks = clip(frames=8, alike=alike)
    stayed = np.where((masks[0] == 1)[None, ..., None], frames[:1], frames)[-1:]
    _, dissolved, doubled = entities_of_rollout(frames, masks, stayed, 2)
    np.testing.assert_array_equal(doubled, [[True, False]])
    assert not dissolved.any()
    _, dissolved, _ = entities_of_rollout(frames, masks, frames[:1], 2)  # moved on by more than it is wide
    np.testing.assert_array_equal(dissolved, [[True, False]])


def test_an_entity_that_others_cover_is_not_scored() -> None:
    frames, masks = clip()
    masks[4:][masks[4:] == 2] = 1
    visible, _, _ = entities_of_rollout(COLORS[masks], masks, frames[2:], 2)
    np.testing.assert_array_equal(visible[:, 1], [True, True, False, False])


def test_the_background_is_what_is_seen_when_entities_are_gone() -> None:
    rng = np.random.default_rng(0)
    _, masks = clip(frames=10)
    ground = rng.uniform(size=(32, 32, 3)).astype(np.float32)
    frames = np.where(masks[..., None] > 0, np.float32(0.9), ground)
    always = (masks > 0).all(axis=0)
    np.testing.assert_allclose(background(frames, masks)[~always], ground[~always], atol=1e-6)
    covered = np.median(frames[masks == 0], axis=0)
    assert always.any()
    for color in background(frames, masks)[always]:
        np.testing.assert_allclose(color, covered, atol=1e-6)


@pytest.mark.parametrize("alike", [False, True])
def test_places_are_read_from_the_imagined_frame(alike: bool) -> None:
    """The first one walks on; the second is drawn by a sixth, which is none."""
    frames, masks = clip(alike=alike)
    imagined = frames[3].copy()
    imagined[21:26, 20:26] = COLORS[0]
    start, end = places({"frames": frames[None], "masks": masks[None]}, imagined[None], 2, 2)
    np.testing.assert_array_equal(end[0, 0] - start[0, 0], [2, 0])
    assert np.isfinite(start).all()
    assert np.isnan(end[0, 1]).all()


def test_the_vocabulary_is_the_mean_of_the_holders_latents_and_the_median_way() -> None:
    moves = np.array([[[1, 0], [1, 1], [0, 0], [0, 0]]])  # of two entities in three steps, and after them
    positions = np.cumsum(np.concatenate([np.zeros((1, 1, 2, 2)), moves[:, :-1, :, None] * [2.5, 0.0]], axis=1), axis=1)
    latent = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
    found, ways = vocabulary(latent, {"moves": moves, "positions": positions}, np.array([2, 0]), 3)
    np.testing.assert_allclose(found[:, :, 0], [[8, 3.5, 0], [3, 3, 0]])  # nobody makes the third move
    np.testing.assert_allclose(ways, [[0, 0], [2.5, 0], [0, 0]])
