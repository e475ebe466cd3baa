"""Scores of segmentations and positions whose values are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.evaluation.evaluators.positions import explained
from flam_jax.evaluation.evaluators.segmentation import frame_overlaps, segmentation
from flam_jax.metrics import adjusted_rand_index, overlaps


def attention_of(owner, slots):
    """Masks of slots [b t k h w] that own patches [b t h w]."""
    return jnp.asarray(np.moveaxis(np.eye(slots, dtype=np.float32)[owner], -1, 2))


def boards(clips=2, frames=6):
    """Patches [b t 4 6] of which two entities have one each, that walk to the right; and masks of twice the size."""
    owner = np.zeros((clips, frames, 4, 6), np.int64)
    for t in range(frames):
        owner[:, t, 0, t], owner[:, t, 3, 5 - t] = 1, 2
    return owner, owner.repeat(2, axis=2).repeat(2, axis=3).astype(np.uint8)


def scores(masks, owner, slots):
    return segmentation(np.asarray(frame_overlaps(jnp.asarray(masks), attention_of(owner, slots), 3)))


def test_slots_that_are_the_entities_are_perfect_whatever_their_order():
    owner, masks = boards()
    for order in ([0, 1, 2], [2, 0, 1]):
        assert scores(masks, np.asarray(order)[owner], 3) == {"fg_ari": 1.0, "ari": 1.0, "miou": 1.0, "switches": 0.0}


def test_one_slot_for_all_is_worth_nothing():
    owner, masks = boards()
    found = scores(masks, np.zeros_like(owner), 3)
    assert (found["fg_ari"], found["ari"], found["switches"]) == (0.0, 0.0, 0.0)
    assert found["miou"] == pytest.approx(1 / 24 / 2, abs=1e-4)


def test_a_slot_with_the_background_costs_all_but_fg_ari():
    owner, masks = boards()
    found = scores(masks, np.where(owner == 2, 0, owner), 3)
    assert found["fg_ari"] == 1.0
    assert found["ari"] < 0.8
    assert found["miou"] == pytest.approx((1 + 1 / 23) / 2, abs=1e-4)


def test_exchanged_slots_are_counted_as_switches():
    owner, masks = boards()
    owner[:, 3:] = np.asarray([0, 2, 1])[owner[:, 3:]]
    found = scores(masks, owner, 3)
    assert found["switches"] == pytest.approx(100 / 5)
    assert found["fg_ari"] < 0.1


def test_the_adjusted_rand_index_is_that_of_its_definition_by_pairs():
    rng = np.random.default_rng(0)
    true, found = rng.integers(0, 3, 60), rng.integers(0, 4, 60)
    found[:30] = true[:30]
    first, second = (labels[:, None] == labels[None] for labels in (true, found))
    above = np.triu(np.ones((60, 60), bool), 1)
    both, a, b, n = (values[above].sum() for values in (first & second, first, second, np.ones((60, 60))))
    expected = (both - a * b / n) / ((a + b) / 2 - a * b / n)
    table = overlaps(jnp.asarray(true), jnp.asarray(found), (3, 4))
    assert float(adjusted_rand_index(table)) == pytest.approx(expected, rel=1e-4)
    assert float(adjusted_rand_index(jnp.asarray([[5.0, 0.0]]))) == 1.0


def test_positions_are_explained_by_the_slot_that_has_them_and_by_no_other():
    rng = np.random.default_rng(0)
    positions = rng.uniform(0, 64, (400, 2, 2))
    slots = np.stack([positions[:, 1] @ rng.normal(size=(2, 5)), rng.normal(size=(400, 5))], axis=1).astype(np.float32)
    fitted, tested = explained(slots[:300], positions[:300], slots[300:], positions[300:])
    assert fitted[0, 1] > 0.99
    assert tested[0, 1] > 0.99
    assert np.abs(tested[[0, 1, 1], [0, 0, 1]]).max() < 0.15
