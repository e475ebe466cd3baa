"""Pictures on images of a few pixels."""

import numpy as np
import pytest

from flam_jax import pictures


def test_grid_places_images_in_rows():
    first = np.full((2, 3, 4, 3), 10, np.uint8)
    second = np.full((1, 3, 4, 3), 20, np.uint8)
    picture = pictures.grid([first, second], gap=1)
    assert picture.shape == (7, 9, 3)
    assert (picture[:3, :4] == 10).all()
    assert (picture[3] == 255).all()
    assert (picture[4:, :4] == 20).all()
    assert (picture[4:, 5:] == 255).all()
    with pytest.raises(ValueError, match="one size"):
        pictures.grid([first, np.zeros((1, 5, 5, 3), np.uint8)])


def test_enlarge_keeps_pixels_sharp():
    image = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    large = pictures.enlarge(image, 3)
    assert large.shape == (1, 6, 6, 3)
    assert (large[0, :3, :3] == image[0, 0, 0]).all()
    assert (large[0, 3:, 3:] == image[0, 1, 1]).all()


def test_colors_are_distinct():
    colors = pictures.colors(16).astype(int)
    distances = np.abs(colors[:, None] - colors[None]).sum(-1) + 1000 * np.eye(16, dtype=int)
    assert distances.min() > 40


def test_masks_cover_their_patches():
    masks = np.zeros((1, 2, 2, 2), np.float32)
    masks[0, 0, 0, 0] = 1.0
    masks[0, 1] = 1.0 - masks[0, 0]
    frames = np.full((1, 4, 4, 3), 200, np.uint8)
    full = pictures.overlay(frames, masks, strength=1.0)
    first, second = pictures.colors(2)
    assert np.abs(full[0, :2, :2].astype(int) - first).max() <= 1
    assert np.abs(full[0, 2:].astype(int) - second).max() <= 1
    lit = pictures.spotlights(frames, masks)
    assert lit.shape == (2, 1, 4, 4, 3)
    assert (lit[0, 0, :2, :2] == 200).all()
    assert lit[0, 0, 2:].max() < 40


def test_pictures_of_rollouts_and_slots():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    masks = np.full((5, 3, 4, 4), 1 / 3, np.float32)
    picture = pictures.rollout_picture(true, true[3:], masks)
    assert picture.dtype == np.uint8
    # Four rows of 64 pixels, a gap of 2 between them, and the line of names: at right the last true frame.
    assert picture.shape[0] == 4 * 66 - 2 + 18
    np.testing.assert_array_equal(picture[18 : 18 + 64, -64:], pictures.enlarge(true[-1], 4))
    np.testing.assert_array_equal(picture[18 + 66 : 18 + 66 + 64, -64:], pictures.enlarge(true[-1], 4))
    assert picture[18 + 132 : 18 + 132 + 64, -64:].max() == 0
    assert pictures.slot_picture(true, masks).shape[0] == 4 * 66 - 2 + 18


def test_to_uint8_clips():
    frames = np.array([[[[-0.1, 0.5, 1.2]]]], np.float32)
    assert pictures.to_uint8(frames).tolist() == [[[[0, 128, 255]]]]
