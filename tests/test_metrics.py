"""PSNR, SSIM, active units and cell errors on cases computed by hand."""

import subprocess
import sys
from pathlib import Path

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax import metrics
from flam_jax.evaluation.evaluators import cells

ROOT = Path(__file__).parents[1]


def test_psnr_of_a_known_error():
    true = jnp.full((2, 3, 16, 16, 3), 0.5)
    # A tenth everywhere: the mean squared error is 0.01, that is 20 dB.
    np.testing.assert_allclose(metrics.psnr(true + 0.1, true), np.full((2, 3), 20.0), rtol=1e-4)
    # Wrong by 1 in a quarter of the pixels: 10 log10(4).
    wrong = true.at[:, :, :8, :8].add(1.0)
    np.testing.assert_allclose(metrics.psnr(wrong, true), np.full((2, 3), 6.0206), rtol=1e-4)


def test_a_perfect_frame_scores_a_finite_best():
    true = jax.random.uniform(jax.random.key(0), (4, 16, 16, 3))
    np.testing.assert_allclose(metrics.psnr(true, true), metrics.HIGHEST_PSNR, rtol=1e-6)
    # Rounding to 8 bits makes an error of up to half a level, all sizes alike.
    rounding = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 64, 64, 3)).astype(np.float32) / 255
    np.testing.assert_allclose(
        metrics.psnr(0.5 + jnp.asarray(rounding), jnp.full(rounding.shape, 0.5)), metrics.HIGHEST_PSNR, atol=0.1
    )
    np.testing.assert_allclose(metrics.ssim(true, true), 1.0, atol=1e-5)


def test_ssim_is_that_of_dm_pix():
    first, second = jax.random.uniform(jax.random.key(0), (2, 3, 17, 23, 3))
    np.testing.assert_allclose(metrics.ssim(first, second), dm_pix.ssim(first, second), atol=1e-5)
    with pytest.raises(ValueError, match="at least 11 pixels"):
        metrics.ssim(first[:, :8], second[:, :8])


def test_frames_of_whole_numbers_are_refused_also_where_annotations_are_not_checked():
    frames = np.zeros((1, 16, 16, 3), np.uint8)
    code = "import numpy as np; from flam_jax import metrics; f = np.zeros((1, 16, 16, 3), np.uint8)\n"
    code += "for score in (metrics.psnr, metrics.ssim):\n"
    code += "    try: score(f, f)\n    except TypeError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["expected frames of floats in [0, 1], got uint8: divide them by 255"] * 2
    for score in (metrics.psnr, metrics.ssim):
        with pytest.raises(TypeError):
            score(frames, frames)


def test_moving_pixels_and_their_error():
    frames = np.zeros((1, 3, 4, 4, 3), np.float32)
    frames[0, 1:, 0, 0, 1] = 1.0
    moving = metrics.moving_pixels(jnp.asarray(frames))
    assert moving[0, 0].sum() == 1
    assert moving[0, 1].sum() == 0
    error = metrics.masked_squared_error(jnp.zeros((1, 2, 4, 4, 3)), jnp.asarray(frames[:, 1:]), moving)
    np.testing.assert_allclose(error, [[1 / 3, 0.0]], rtol=1e-6)


def test_active_units_vary_over_the_data():
    mean = np.zeros((10, 2, 2), np.float32)
    mean[:, 0, 1] = np.linspace(-1, 1, 10)
    mean[:, 1, 0] = 5.0
    assert metrics.active_units(jnp.asarray(mean)).tolist() == [[0, 1], [0, 0]]


# Boards of 3x3 cells of 2x2 pixels: one agent, grey floor; the agent's green says where it looks.
FLOOR, AGENT = 100, 200


def board(row: int, column: int, direction: int) -> np.ndarray:
    frame = np.full((6, 6, 3), FLOOR, np.uint8)
    frame[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = (AGENT, 40 * direction, 0)
    return frame


# It turns, moves right, stays.
WALK = [(1, 0, 3), (1, 0, 0), (1, 1, 0), (1, 1, 0)]
TRUE = np.stack([board(*place) for place in WALK])[None]
POSITIONS = np.array([[[row, column]] for row, column, _ in WALK], np.int32)[None]
DIRECTIONS = np.array([[direction] for _, _, direction in WALK], np.int32)[None]


def errors(predicted: np.ndarray) -> dict:
    return cells.cell_errors(predicted, TRUE, POSITIONS, DIRECTIONS, cells=(3, 3))


def test_what_happens():
    happened = cells.happenings(POSITIONS, DIRECTIONS)
    assert {kind: values[0, :, 0].tolist() for kind, values in happened.items()} == {
        "entered": [False, True, False],
        "followed": [False, False, False],
        "left": [False, True, False],
        "turned": [True, False, False],
        "stayed": [False, False, True],
    }


def test_an_agent_follows_another_into_the_cell_that_it_leaves():
    """The second agent goes after the first, then past where it was; the third stands still."""
    first, second, third = [(1, 1), (1, 2), (0, 2)], [(1, 0), (1, 1), (0, 1)], [(2, 2)] * 3
    positions = np.array([first, second, third], np.int32).swapaxes(0, 1)[None]
    happened = cells.happenings(positions, np.zeros((1, 3, 3), np.int32))
    assert happened["followed"][0].tolist() == [[False, True, False], [False, False, False]]
    assert happened["entered"][0].tolist() == [[True, True, False], [True, True, False]]


def test_true_frames_with_a_little_noise_have_no_cell_wrong():
    noise = np.random.default_rng(0).integers(-15, 16, TRUE[:, 1:].shape)
    noisy = np.clip(TRUE[:, 1:] + noise, 0, 255).astype(np.uint8)
    found = errors(noisy)
    assert found.pop("followed") == {
        "wrong": None,
        "per_agent": [None],
        "per_step": [None] * 3,
        "count": 0,
        "psnr": None,
    }
    assert {kind: part["wrong"] for kind, part in found.items()} == dict.fromkeys(set(cells.KINDS) - {"followed"}, 0.0)
    assert all(part["count"] == 1 and part["psnr"] > 20 for part in found.values())


def test_an_erased_agent_is_wrong_everywhere_but_where_it_left():
    erased = np.full((1, 3, 6, 6, 3), FLOOR, np.uint8)
    found = errors(erased)
    wrong = {kind: part["wrong"] for kind, part in found.items()}
    assert wrong == {"entered": 1.0, "followed": None, "left": 0.0, "turned": 1.0, "stayed": 1.0}
    assert found["left"]["psnr"] == pytest.approx(metrics.HIGHEST_PSNR, abs=1e-3)


def test_a_copied_frame_misses_moves_and_turns():
    copied = np.repeat(TRUE[:, :1], 3, axis=1)
    found = errors(copied)
    assert found["entered"]["per_step"] == [None, 1.0, None]
    assert found["left"]["per_agent"] == [1.0]
    assert found["turned"]["wrong"] == 1.0


def test_frames_that_are_no_boards_are_refused():
    noise = np.random.default_rng(0).integers(0, 256, (40, 6, 36, 36, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="at most 1024 different tiles"):
        cells.vocabulary(noise, cells=(6, 6))
