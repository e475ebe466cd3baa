"""The world model's face: shapes, rollout = steps, causality of imagination, errors, restoring."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax import config
from flam_jax.world_model import WorldModel
from tests.tiny import tiny_config, tiny_model

CONTEXT, STEPS = 3, 4


@functools.cache
def clips() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, CONTEXT + STEPS, 16, 16, 3), dtype=np.uint8)


def test_shapes():
    seen = tiny_model().observe(clips())
    assert seen.features.shape == (2, 7, 4, 4, 2)
    assert seen.slots.shape == (2, 7, 3, 8)
    assert seen.attention.shape == (2, 7, 3, 4, 4)
    assert tiny_model().infer_actions(clips()).shape == (2, 6, 3, 2)
    assert tiny_model().reconstruct(clips()).shape == (2, 7, 16, 16, 3)
    masks = tiny_model().factor_masks(clips())
    np.testing.assert_allclose(masks.sum(2), 1.0, atol=1e-5)
    np.testing.assert_array_equal(masks, seen.attention)
    actions = tiny_model().sample_actions(jax.random.key(0), 5, 7)
    assert actions.shape == (5, 7, 3, 2)
    assert 0.8 < float(actions.std()) < 1.2


def test_rollout_is_a_loop_of_steps():
    actions = 3 * tiny_model().sample_actions(jax.random.key(1), 2, STEPS)
    frames = tiny_model().rollout(clips()[:, :CONTEXT], actions)
    state = tiny_model().start(clips()[:, :CONTEXT])
    for t in range(STEPS):
        state, frame = tiny_model().step(state, actions[:, t])
        np.testing.assert_allclose(frame, frames[:, t], atol=1e-5)
    assert float(frames.min()) >= 0
    assert float(frames.max()) <= 1
    assert float(jnp.abs(frames[:, 1:] - frames[:, :-1]).max()) > 0


def test_start_infers_the_context_as_the_parallel_pass_does():
    """With the true frames fed, frame by frame on caches equals the pass over all frames."""
    seen = tiny_model().observe(clips())
    wm = tiny_model()
    state = wm.start(clips()[:, :CONTEXT])
    np.testing.assert_allclose(state.slots, seen.slots[:, CONTEXT - 1], atol=2e-5)
    np.testing.assert_allclose(state.masks, seen.attention[:, CONTEXT - 1], atol=2e-5)
    np.testing.assert_array_equal(state.features, seen.features[:, CONTEXT - 1])
    frame = (state.cache, state.features, state.slots, state.masks, seen.action_mean[:, CONTEXT - 1])
    variables = {"params": wm.dynamics_params}
    _, _, next_features = jax.jit(functools.partial(wm.dynamics.apply, method="predict"))(variables, *frame)
    parallel = jax.jit(wm.dynamics.apply)(variables, seen.features)
    np.testing.assert_allclose(next_features, parallel.next_features[:, CONTEXT - 1], atol=2e-4)


def push(strength, state, key):
    """A policy: the same direction for every factor, in proportion to how much it holds, with noise."""
    held = state.masks.mean(axis=(-2, -1))[..., None]
    return strength * held + 0.1 * jax.random.normal(key, (*held.shape[:2], 2))


def test_a_policy_is_asked_in_every_state_and_its_actions_are_what_is_imagined():
    wm, context = tiny_model(), clips()[:, :CONTEXT]
    policy = jax.tree_util.Partial(push, jnp.float32(3.0))
    found = wm.rollout(context, policy, steps=STEPS, key=jax.random.key(1), decode=False)
    assert found.actions.shape == (2, STEPS, 3, 2)
    given = wm.rollout(context, found.actions, decode=False)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(given), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_allclose(wm.decode(found.features), wm.rollout(context, found.actions), atol=1e-5)
    # From a state, step by step.
    state = wm.start(context)
    first = wm.imagine(state, policy, jax.random.split(jax.random.key(1), STEPS)[0])
    np.testing.assert_allclose(first.slots, found.slots[:, 0], atol=1e-5)
    np.testing.assert_allclose(first.masks, found.masks[:, 0], atol=1e-5)
    again = wm.rollout(state, policy, steps=STEPS, key=jax.random.key(1), decode=False)
    np.testing.assert_allclose(again.features, found.features, atol=1e-5)
    with pytest.raises(ValueError, match="expected steps"):
        wm.rollout(state, policy)


@pytest.mark.parametrize("name", ["flam", "playslot", "genie"])
def test_a_state_always_carries_slots_and_masks_of_its_frame(name):
    wm = tiny_model(name=name)
    state = wm.start(clips()[:, :1])
    shapes = [leaf.shape for leaf in jax.tree.leaves(state)]
    for _ in range(2):
        state = wm.imagine(state, wm.sample_actions(jax.random.key(2), 2, 1)[:, 0])
        assert [leaf.shape for leaf in jax.tree.leaves(state)] == shapes
        np.testing.assert_allclose(state.masks.sum(axis=1), 1.0, atol=1e-5)


def test_imagined_features_are_quantized():
    action = tiny_model().sample_actions(jax.random.key(2), 2, 1)[:, 0]
    state = tiny_model().imagine(tiny_model().start(clips()[:, :1]), action)
    assert set(np.unique(state.features).tolist()) <= {-1.0, 0.0, 1.0}


def test_an_object_centric_model_goes_on_from_its_slots():
    """What is shown of them, and snapped to codes, is not what it goes on from."""
    wm = tiny_model(name="playslot")
    action = wm.sample_actions(jax.random.key(2), 2, 1)[:, 0]
    for context in (1, CONTEXT):
        state = wm.start(clips()[:, :context])
        np.testing.assert_allclose(state.slots, wm.observe(clips()).slots[:, context - 1], atol=2e-5)
        first, again = (wm.imagine(s, action) for s in (state, state.replace(features=-state.features)))
        np.testing.assert_array_equal(first.features, again.features)


def test_one_vmapped_step_is_a_batched_step():
    state = tiny_model().start(clips()[:, :CONTEXT])
    action = tiny_model().sample_actions(jax.random.key(3), 2, 1)[:, 0]
    expected = tiny_model().step(state, action)
    # Every example becomes a batch of one.
    singles, single_actions = jax.tree.map(lambda leaf: leaf[:, None], (state, action))
    found = jax.vmap(tiny_model().step)(singles, single_actions)
    for one, many in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one[:, 0], many, atol=1e-5)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"expected \[b t 16 16 3\].*got \[2, 7, 8, 8, 3\]"):
        tiny_model().infer_actions(clips()[:, :, :8, :8])
    with pytest.raises(ValueError, match="latent action stands between two frames"):
        tiny_model().infer_actions(clips()[:, :1])
    state = tiny_model().start(clips()[:, :1])
    with pytest.raises(ValueError, match=r"k = 3 and a = 2, got \[2, 4, 2\]"):
        tiny_model().step(state, jnp.zeros((2, 4, 2)))
    with pytest.raises(ValueError, match=r"k = 3 and a = 2, got \[2, 4, 2\]"):
        tiny_model().imagine(state, lambda state, key: jnp.zeros((2, 4, 2)))
    with pytest.raises(ValueError, match=r"\[b steps k a\] with k = 3 and a = 2, got \[2, 1, 3, 5\]"):
        tiny_model().rollout(clips()[:, :1], jnp.zeros((2, 1, 3, 5)))


def test_a_model_of_given_actions_takes_those_of_the_frames():
    wm = tiny_model(name="action_conditioned")
    assert wm.spec.action_source == "given"
    assert tiny_model().spec.action_source == "inferred"
    true = np.random.default_rng(1).integers(0, 3, (2, CONTEXT + STEPS, 2))
    seen = wm.observe(clips(), true)
    chosen = seen.action_mean.reshape(2, CONTEXT + STEPS - 1, 2, 3).argmax(-1)
    np.testing.assert_array_equal(chosen, true[:, :-1])
    frames = [
        wm.rollout(clips()[:, :CONTEXT], seen.action_mean[:, CONTEXT - 1 :], true_actions=given[:, :CONTEXT])
        for given in (true, (true + 1) % 3)
    ]
    assert float(jnp.abs(frames[0] - frames[1]).max()) > 1e-3  # the context's actions count too
    with pytest.raises(ValueError, match="expected true_actions"):
        wm.infer_actions(clips())


def test_restore(tmp_path, monkeypatch):
    from flam_jax import checkpoints

    (tmp_path / "config.json").write_text(config.to_json(tiny_config()))
    stored = {"tokenizer": tiny_model().tokenizer_params, "dynamics": tiny_model().dynamics_params}
    monkeypatch.setattr(checkpoints, "restore_parameters", lambda directory: stored[directory.name])
    restored = WorldModel.restore(tmp_path)
    np.testing.assert_array_equal(restored.infer_actions(clips()), tiny_model().infer_actions(clips()))
    with pytest.raises(FileNotFoundError, match=r"no config.json there"):
        WorldModel.restore(tmp_path / "elsewhere")
