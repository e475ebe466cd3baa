"""The protocol on clips whose scores are known, and batches of clips."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax import metrics
from flam_jax.evaluation import rollouts
from tests.tiny import BoardDataset, tiny_model

CONTEXT, STEPS = 3, 4


def clips(number: int = 3) -> np.ndarray:
    records = BoardDataset().split("test")[:number]
    return np.stack([record["frames"][: CONTEXT + STEPS] for record in records])


@functools.cache
def rolled(kind: str = "boards") -> rollouts.RolloutBatch:
    frames = clips() if kind == "boards" else np.repeat(clips()[:, :1], CONTEXT + STEPS, axis=1)
    blank = BoardDataset().median_frame if kind == "boards" else frames[0, 0]
    return jax.device_get(rollouts.roll_out(tiny_model(), frames, frames, jnp.asarray(blank), context=CONTEXT))


def score(name: str, part: rollouts.RolloutBatch) -> np.ndarray:
    return np.asarray(part.psnr)[rollouts.SOURCES.index(name)]


def test_floors_by_hand():
    true = clips()[:, CONTEXT:] / 255.0
    last = clips()[:, CONTEXT - 1 : CONTEXT] / 255.0
    by_hand = -10 * np.log10(np.mean((true - last) ** 2, axis=(2, 3, 4)))
    np.testing.assert_allclose(score("copy_last", rolled()), by_hand, rtol=1e-4)
    by_hand = -10 * np.log10(np.mean((true - 90 / 255) ** 2, axis=(2, 3, 4)))
    np.testing.assert_allclose(score("median", rolled()), by_hand, rtol=1e-4)


def test_nothing_moves_in_a_still_clip():
    part = rolled("still")
    np.testing.assert_allclose(score("copy_last", part), metrics.HIGHEST_PSNR, rtol=1e-6)
    # The blank is the first clip's only frame.
    np.testing.assert_allclose(score("median", part)[0], metrics.HIGHEST_PSNR, rtol=1e-6)
    assert score("median", part)[1].max() < 40
    assert part.moving_count.max() == 0


def test_the_prediction_is_the_model_rolled_out_on_inferred_actions():
    model, frames = tiny_model(), clips()
    actions = model.infer_actions(frames)
    predicted = model.rollout(frames[:, :CONTEXT], actions[:, CONTEXT - 1 :])
    np.testing.assert_allclose(rolled().predicted, np.asarray(predicted) * 255, atol=0.51)
    true = jnp.asarray(frames[:, CONTEXT:], jnp.float32) / 255
    np.testing.assert_allclose(score("predicted", rolled()), metrics.psnr(predicted, true), rtol=1e-4)
    ceiling = metrics.psnr(model.reconstruct(frames)[:, CONTEXT:], true)
    np.testing.assert_allclose(score("ceiling", rolled()), ceiling, rtol=1e-4)


def test_the_summary_averages_frames_over_clips():
    found = rollouts.summarize([rolled(), rolled()])
    assert found["clips"] == 6
    np.testing.assert_allclose(found["psnr"], score("predicted", rolled()).mean(0), atol=1e-3)
    np.testing.assert_allclose(found["median_psnr_mean"], score("median", rolled()).mean(), atol=1e-3)
    assert len(found["ceiling_ssim"]) == STEPS
    error = (10 ** (-score("copy_last", rolled()) / 10)).mean(0)
    np.testing.assert_allclose(found["copy_last_pooled_psnr"], -10 * np.log10(error), atol=1e-3)
    assert found["lpips"] == found["ceiling_lpips_mean"] == found["median_fvd"] == "not computed: no weights"


def test_moving_pixels_are_pooled():
    found = rollouts.summarize([rolled()])
    part = rolled()
    row = rollouts.SOURCES.index("copy_last")
    error = part.moving_error[row].sum(0) / part.moving_count.sum(0)
    np.testing.assert_allclose(found["copy_last_moving_psnr"], -10 * np.log10(error), rtol=1e-3)


def test_chosen_clips_are_spread_over_the_split():
    assert rollouts.choose(100, 5) == [0, 25, 50, 74, 99]
    assert rollouts.choose(3, 10) == [0, 1, 2]
    assert rollouts.choose(7, 1) == [0]


def test_batches_are_filled_up():
    found = list(rollouts.batches(BoardDataset().split("val"), [0, 2, 3, 5, 6], size=3, length=7))
    assert [count for _, count in found] == [3, 2]
    assert all(record["frames"].shape == (3, 7, 16, 16, 3) for record, _ in found)
    np.testing.assert_array_equal(found[1][0]["frames"][1], found[1][0]["frames"][2])
    assert set(found[0][0]) == {"frames", "positions", "directions", "actions"}
    with pytest.raises(ValueError, match="clips of 11 frames asked for, the records have 10"):
        next(rollouts.batches(BoardDataset().split("val"), [0], size=1, length=11))
