"""Figures of latent actions, by hand."""

import numpy as np
import pytest

from flam_jax.evaluation.evaluators import clusters, direction_aware_clusters

CHOICES, CLIPS, FRAMES = 3, 20, 11


def chosen() -> np.ndarray:
    """Two agents, whose actions are not equally frequent."""
    return np.random.default_rng(0).choice(CHOICES, (CLIPS, FRAMES, 2), p=[0.5, 0.3, 0.2])


def mapped(latent: np.ndarray) -> dict:
    """Agent 0 sits in slot 1, agent 1 in slot 2; slot 0 is nobody's."""
    slots = np.concatenate([np.zeros_like(latent[:, :, :1]), latent], axis=2)
    return clusters.cluster_accuracy(slots.astype(np.float32), chosen()[:, :-1], [1, 2], CHOICES)


def test_latent_actions_in_groups_of_the_true_ones_are_all_mapped():
    centres = np.array([[0.0, 3.0], [2.0, -1.0], [-3.0, 0.0]])
    noise = 0.1 * np.random.default_rng(1).normal(size=(CLIPS, FRAMES - 1, 2, 2))
    found = mapped(centres[chosen()[:, :-1]] + noise)
    assert found["accuracy"] == 1.0
    np.testing.assert_array_equal(found["confusion"], np.eye(3, 4))
    assert found["chance"] == pytest.approx(0.5, abs=0.05)


def test_noise_is_mapped_to_nothing_in_particular():
    found = mapped(np.random.default_rng(1).normal(size=(CLIPS, FRAMES - 1, 2, 2)))
    assert found["accuracy"] < 0.5
    np.testing.assert_allclose(np.sum(found["confusion"], axis=1), 1.0, atol=1e-3)


def test_of_two_codes_for_one_action_one_is_left_over():
    true = chosen()[:, :-1]
    odd = np.arange(FRAMES - 1)[None, :, None] % 2
    codes = np.eye(4)[np.where((true == 0) & (odd == 1), 3, true)]
    found = mapped(codes)
    assert found["confusion"][0][3] == pytest.approx(0.5, abs=0.1)
    assert found["confusion"][1] == [0.0, 1.0, 0.0, 0.0]
    assert found["accuracy"] == pytest.approx(0.75, abs=0.05)


def test_two_actions_with_one_code_share_it():
    true = chosen()[:, :-1]
    found = mapped(np.eye(2)[np.minimum(true, 1)])
    assert found["confusion"][2] == [0.0, 1.0, 0.0, 0.0]
    right = (true != 2).mean(axis=(0, 1))  # of the two that share a code the more frequent one
    np.testing.assert_allclose(found["accuracy_per_agent"], right, atol=1e-4)
    assert found["accuracy"] == pytest.approx(right.mean(), abs=1e-4)


def test_an_action_has_the_direction_in_which_its_agent_looks_and_a_step_may_be_blocked():
    true = np.array([[[0], [2], [2], [1]]])  # left, forward, forward, and one that leads to no other frame
    positions = np.array([[[[1, 1]], [[1, 1]], [[1, 2]], [[1, 2]]]])
    directions = np.array([[[3], [2], [2], [2]]])
    left, step, blocked = direction_aware_clusters.directed_actions(
        true, positions, directions, forward=2, blocked=3, count=4
    )[0, :, 0]
    assert (left, step, blocked) == (0 * 4 + 3, 2 * 4 + 2, 3 * 4 + 2)
    assert max(left, step, blocked) < 16
