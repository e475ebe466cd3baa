"""Object-centric models answer FLAM's methods; reconstruction alone teaches their slots, prediction all the rest."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.baselines.object_centric import ObjectCentric, SlotMixerDecoder
from flam_jax.dynamics.loss import dynamics_loss
from tests.dynamics.models import apply, max_difference, random_parameters

ACTION_DIMS = (0, 3)


@functools.cache
def make(action_dim, b=2, t=4, grid=3, c=2, k=3, blocks=2, **changes):
    model = ObjectCentric(
        grid=grid,
        feature_dim=c,
        num_factors=k,
        action_dim=action_dim,
        model_dim=8,
        num_blocks=blocks,
        num_heads=2,
        history=3,
        **changes,
    )
    features = jnp.asarray(np.random.default_rng(0).uniform(-1.0, 1.0, (b, t, grid, grid, c)), jnp.float32)
    return model, random_parameters(model, features), features


@pytest.mark.parametrize("action_dim", ACTION_DIMS)
def test_shapes_are_flams(action_dim):
    model, variables, features = make(action_dim)
    out = apply(model, variables, features, rngs={"action": jax.random.key(0)})
    assert out.slots.shape == (2, 4, 3, 8)
    assert out.attention.shape == (2, 4, 3, 3, 3)
    assert jnp.allclose(out.attention.sum(axis=2), 1.0, atol=1e-5)
    assert out.action_mean.shape == out.action_log_var.shape == out.actions.shape == (2, 3, 3, action_dim)
    assert out.action_kl.shape == (2, 3, 3)
    assert out.next_features.shape == (2, 3, 3, 3, 2)
    if action_dim:  # at least the code's share
        assert float(out.action_kl.min()) >= np.log(8) - 1e-5
        assert out.action_codes.shape == (2, 3, 3)
    else:
        assert out.action_codes is None
        assert float(jnp.abs(out.action_kl).max()) == 0.0


@pytest.mark.parametrize(("action_dim", "local_context"), [(0, False), (3, False), (3, True)])
def test_frame_by_frame_inference_equals_the_parallel_pass(action_dim, local_context):
    model, variables, features = make(action_dim, t=5, local_context=local_context)
    out = apply(model, variables, features)
    cache = apply(model, variables, features[:, 0], method="init_cache")
    for t in range(features.shape[1] - 1):
        cache, step = apply(model, variables, cache, features[:, t], out.actions[:, t], method="step")
        for name in ("slots", "attention", "next_slots", "next_features"):
            assert max_difference(getattr(step, name), getattr(out, name)[:, t]) < 1e-4, name


@pytest.mark.parametrize("action_dim", ACTION_DIMS)
def test_nothing_depends_on_later_frames(action_dim):
    model, variables, features = make(action_dim)
    changed = features.at[:, 3].set(-features[:, 3])
    a, b = (apply(model, variables, x) for x in (features, changed))
    assert max_difference((a.slots[:, :3], a.next_features[:, :2]), (b.slots[:, :3], b.next_features[:, :2])) == 0.0


@pytest.mark.parametrize("action_dim", ACTION_DIMS)
def test_imagined_slots_go_on_as_if_all_slots_had_been_given_at_once(action_dim):
    model, variables, features = make(action_dim)
    out = apply(model, variables, features)
    cache = apply(model, variables, features[:, 0], method="init_cache")
    cache, _ = apply(model, variables, cache, features[:, 0], out.actions[:, 0], method="step")
    slots = [out.slots[:, 0], out.slots[:, 1]]
    for t in (1, 2):
        cache, after, shown = apply(model, variables, cache, slots[-1], out.actions[:, t], method="imagine_slots")
        slots.append(after)
    expected = apply(model, variables, jnp.stack(slots[:3], axis=1), out.actions, method="predict_slots")
    assert max_difference(jnp.stack(slots[2:], axis=1), expected[:, 1:]) < 1e-5
    decoded = apply(model, variables, features[:, :1], slots[-1][:, None], method="aggregate")[:, 0]
    assert max_difference(shown, decoded) < 1e-5
    assert max_difference(slots[2], out.slots[:, 2]) > 1e-3


def test_parts_called_alone_equal_the_whole():
    model, variables, features = make(3)
    out = apply(model, variables, features)
    slots = apply(model, variables, features, method="factorize").slots
    actions = apply(model, variables, slots, method="infer_actions")
    next_slots = apply(model, variables, slots[:, :-1], actions.mean, method="predict_slots")
    next_features = apply(model, variables, features[:, :-1], next_slots, method="aggregate")
    assert max_difference((actions.mean, next_features), (out.action_mean, out.next_features)) < 1e-5
    assert max_difference(actions.kl(), out.action_kl) < 1e-5


@pytest.mark.parametrize("action_dim", ACTION_DIMS)
def test_slots_learn_first_and_alone_and_then_not_at_all(action_dim):
    model, variables, features = make(action_dim)

    @jax.jit
    def gradient(variables, slots_first):
        def loss(variables):
            kwargs = dict(kl_weight=0.1, prediction_steps=1, levels=None, slots_first=slots_first)
            return dynamics_loss(model, variables, features, jax.random.key(0), **kwargs)[0]

        return jax.grad(loss)(variables)["params"]

    for slots_first in (True, False):
        for name, part in gradient(variables, jnp.asarray(slots_first)).items():
            of_slots = name in model.slot_parts
            leaves = jax.tree_util.tree_leaves_with_path(part)
            # Biases of keys change nothing in any attention.
            sizes = [float(jnp.abs(g).max()) for p, g in leaves if "'key']['bias']" not in jax.tree_util.keystr(p)]
            if of_slots == slots_first:
                assert min(sizes) > 1e-7, name
            else:
                assert max(sizes) == 0.0, name


def test_prior_actions_are_codes_with_a_variation():
    model, variables, _ = make(3)
    drawn = model.apply(variables, jax.random.key(0), (50, 4), method="sample_actions")
    assert drawn.shape == (50, 4, 3, 3)
    assert 1.0 < float(drawn.std()) < 2.0
    model, variables, _ = make(0)
    assert model.apply(variables, jax.random.key(0), (5, 4), method="sample_actions").shape == (5, 4, 3, 0)


def test_the_decoder_knows_no_order_of_slots():
    decoder, slots = SlotMixerDecoder(2, 3, 2), jax.random.normal(jax.random.key(1), (1, 4, 8))
    variables = jax.jit(decoder.init)(jax.random.key(0), slots)
    one, other = (decoder.apply(variables, x) for x in (slots, slots[:, ::-1]))
    assert one.shape == (1, 3, 3, 2)
    assert max_difference(one, other) < 1e-6
    assert max_difference(one, decoder.apply(variables, slots.at[:, 2].set(0.0))) > 1e-3
