"""The model of true actions: no frame too early, every action counts, and nothing is inferred."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.baselines.action_conditioned import ActionConditioned
from tests.dynamics.models import apply, max_difference

ACTORS, CHOICES = 2, 3


@functools.cache
def make(t=5):
    model = ActionConditioned(
        grid=3,
        feature_dim=2,
        action_dim=ACTORS * CHOICES,
        model_dim=8,
        num_heads=2,
        history=3,
        num_actors=ACTORS,
        num_choices=CHOICES,
    )
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.uniform(-1, 1, (2, t, 3, 3, 2)), jnp.float32)
    actions = jnp.asarray(rng.integers(0, CHOICES, (2, t, ACTORS)))
    shapes = jax.eval_shape(model.init, jax.random.key(0), features)
    variables = jax.tree.map(lambda leaf: jnp.asarray(0.4 * rng.standard_normal(leaf.shape), leaf.dtype), shapes)
    return model, variables, features, actions


def test_the_token_is_all_actions_one_hot_without_the_last():
    model, _, _, actions = make()
    token = model.joint_token(actions)
    assert token.shape == (2, 4, 1, ACTORS * CHOICES)
    np.testing.assert_array_equal(token[:, :, 0].reshape(2, 4, ACTORS, CHOICES).argmax(-1), actions[:, :-1])
    np.testing.assert_array_equal(token.sum(-1), ACTORS)
    single = ActionConditioned(grid=3, feature_dim=2, action_dim=3, num_actors=1, num_choices=3)
    np.testing.assert_array_equal(single.joint_token(actions[..., 0]), token[..., :CHOICES])


def test_every_actors_action_changes_what_comes_next_and_nothing_before():
    model, variables, features, actions = make()
    before = apply(model, variables, features, None, model.joint_token(actions)).next_features
    for actor in range(ACTORS):
        other = actions.at[:, 2, actor].set((actions[:, 2, actor] + 1) % CHOICES)
        after = apply(model, variables, features, None, model.joint_token(other)).next_features
        change = jnp.abs(after - before).max(axis=(0, 2, 3, 4))
        assert float(change[:2].max()) == 0.0
        assert float(change[2]) > 1e-3


def test_frame_by_frame_inference_equals_the_parallel_pass():
    model, variables, features, actions = make()
    out = apply(model, variables, features, None, model.joint_token(actions))
    cache = apply(model, variables, features[:, 0], method="init_cache")
    for t in range(4):
        cache, step = apply(model, variables, cache, features[:, t], out.actions[:, t], method="step")
        assert max_difference(step.next_features, out.next_features[:, t]) < 1e-4


def test_gradients_reach_every_parameter():
    model, variables, features, actions = make()

    @jax.jit
    @jax.grad
    def gradient(variables):
        out = model.apply(variables, features, None, model.joint_token(actions))
        return jnp.square(out.next_features - features[:, 1:]).sum()

    leaves = jax.tree_util.tree_leaves_with_path(gradient(variables))
    dead = {jax.tree_util.keystr(path) for path, leaf in leaves if float(jnp.abs(leaf).max()) < 1e-7}
    assert {name for name in dead if not name.endswith("['key']['bias']")} == set()


def test_its_action_says_what_the_choices_are_worth():
    model, variables, features, actions = make()
    out = apply(model, variables, features, None, model.joint_token(actions))
    np.testing.assert_allclose(out.action_kl, ACTORS * np.log(CHOICES), rtol=1e-6)
    drawn = model.sample_actions(jax.random.key(0), (500, 4))
    assert drawn.shape == (500, 4, 1, ACTORS * CHOICES)
    np.testing.assert_allclose(drawn.mean((0, 1, 2)), 1 / CHOICES, atol=0.05)


def test_missing_or_wrong_actions_are_named():
    model, variables, features, actions = make()
    with pytest.raises(ValueError, match="infers no actions"):
        model.apply(variables, features)
    with pytest.raises(ValueError, match="infers no actions"):
        model.apply(variables, features.reshape(2, 5, 1, -1), method="infer_actions")
    with pytest.raises(ValueError, match="expected true_actions"):
        model.joint_token(None)
    with pytest.raises(ValueError, match="expected 2 actors, got 1"):
        model.joint_token(actions[..., :1])
