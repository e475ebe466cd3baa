"""The model of true actions: every action counts, and nothing is inferred."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.dynamics.models import ACTORS, CHOICES, FRAMES, apply, make


def test_its_actions_are_those_of_all_actors_one_hot_without_the_last():
    model, variables, features, actions = make("action_conditioned")
    token = apply(model, variables, features, None, None, actions).action_mean
    assert token.shape == (2, FRAMES - 1, 1, ACTORS * CHOICES)
    choices = token[:, :, 0].reshape(2, FRAMES - 1, ACTORS, CHOICES)
    np.testing.assert_array_equal(choices.argmax(-1), actions[:, :-1])
    np.testing.assert_array_equal(choices.sum(-1), 1)
    single, variables, features, _ = make("action_conditioned", actors_and_choices=(1, CHOICES))
    token = apply(single, variables, features, None, None, actions[..., 0]).action_mean  # no axis of actors
    np.testing.assert_array_equal(token[:, :, 0].argmax(-1), actions[:, :-1, 0])


def test_every_actors_action_changes_what_comes_next_and_nothing_before():
    model, variables, features, actions = make("action_conditioned")
    before = apply(model, variables, features, None, None, actions).next_features
    for actor in range(ACTORS):
        other = actions.at[:, 2, actor].set((actions[:, 2, actor] + 1) % CHOICES)
        after = apply(model, variables, features, None, None, other).next_features
        change = jnp.abs(after - before).max(axis=(0, 2, 3, 4))
        assert float(change[:2].max()) == 0.0
        assert float(change[2]) > 1e-3


def test_its_actions_carry_what_the_choices_are_worth():
    model, variables, features, actions = make("action_conditioned")
    out = apply(model, variables, features, None, None, actions)
    np.testing.assert_allclose(out.action_kl, ACTORS * np.log(CHOICES), rtol=1e-6)
    drawn = model.apply(variables, jax.random.key(0), (500, 4), method="sample_actions")
    np.testing.assert_allclose(drawn.mean((0, 1, 2)), 1 / CHOICES, atol=0.05)


def test_missing_or_wrong_actions_are_named():
    model, variables, features, actions = make("action_conditioned")
    with pytest.raises(ValueError, match="expected true_actions"):
        model.apply(variables, features)
    with pytest.raises(ValueError, match="expected true_actions"):
        model.apply(variables, features.reshape(2, FRAMES, 1, -1), method="infer_actions")
    with pytest.raises(ValueError, match="expected 2 actors, got 1"):
        model.apply(variables, features, None, None, actions[..., :1])
