"""Exact properties of the model, each over several b, t, k and numbers of blocks."""

import jax
import jax.numpy as jnp
import pytest

from flam_jax.dynamics.flam import FlamOutput
from flam_jax.dynamics.forward import ForwardDynamics
from flam_jax.dynamics.inverse import ActionDistribution, InverseDynamics
from flam_jax.dynamics.streams import ContextStream
from tests.dynamics.models import SIZES, apply, make_model, max_difference


def test_shapes_are_those_of_the_design(sized):
    model, variables, features = sized
    b, t, h, w, c = features.shape
    k, d, a = model.num_factors, model.model_dim, model.action_dim
    out = apply(model, variables, features, rngs={"action": jax.random.key(0)})
    assert isinstance(out, FlamOutput)
    assert out.slots.shape == (b, t, k, d)
    assert out.attention.shape == (b, t, k, h, w)
    assert out.action_mean.shape == out.action_log_var.shape == out.actions.shape == (b, t - 1, k, a)
    assert out.action_kl.shape == (b, t - 1, k)
    assert out.next_slots.shape == (b, t - 1, k, d)
    assert out.next_features.shape == (b, t - 1, h, w, c)


def test_attention_sums_to_one_over_factors(sized):
    model, variables, features = sized
    attention = apply(model, variables, features, method="factorize").attention
    assert jnp.allclose(attention.sum(axis=2), 1.0, atol=1e-5)


def coupling(function, inputs, factor_axis):
    """Size of the gradient of every output factor with respect to every input factor, k x k: exact zeros stay zero.

    `function` maps to outputs whose axis 2 is the factor's; they are projected on random directions factor by factor.
    """

    @jax.jit
    def gradients(inputs):
        outputs, pull_back = jax.vjp(function, inputs)
        k = outputs.shape[2]
        directions = jax.random.normal(jax.random.key(5), outputs.shape) * jnp.eye(k)[:, None, None, :, None]
        return jax.vmap(lambda direction: pull_back(direction)[0])(directions)

    size = jnp.abs(gradients(inputs))
    return jnp.moveaxis(size, 1 + factor_axis, 1).sum(axis=tuple(range(2, size.ndim)))


def assert_diagonal(matrix):
    k = matrix.shape[0]
    assert float(jnp.diagonal(matrix).min()) > 1e-4
    assert float(jnp.max(matrix * (1 - jnp.eye(k)))) == 0.0


def test_next_slot_depends_on_no_other_factors_action(sized):
    model, variables, features = sized
    slots = apply(model, variables, features, method="factorize").slots
    actions = jax.random.normal(jax.random.key(4), (*slots.shape[:3], model.action_dim))
    assert_diagonal(coupling(lambda a: apply(model, variables, slots, a, method="predict_slots"), actions, 2))


def test_action_depends_on_no_other_factors_next_slot(sized):
    model, variables, features = sized
    slots = apply(model, variables, features, method="factorize").slots

    def last_action(last):
        posterior = apply(model, variables, slots.at[:, -1].set(last), method="infer_actions")
        return jnp.concatenate([posterior.mean, posterior.log_var], axis=-1)[:, -1:]

    assert_diagonal(coupling(last_action, slots[:, -1], 1))


def test_the_coupling_check_finds_coupling(sized):
    """The same check on the state, through which factors do see each other, is not diagonal."""
    model, variables, features = sized
    slots = apply(model, variables, features, method="factorize").slots
    actions = jnp.zeros((*slots.shape[:3], model.action_dim))
    matrix = coupling(lambda s: apply(model, variables, s, actions, method="predict_slots"), slots, 2)
    assert float(matrix.min()) > 1e-4


def test_nothing_depends_on_later_frames(sized):
    model, variables, features = sized
    t = features.shape[1] - 1
    changed = features.at[:, t].set(-features[:, t])
    a, b = (apply(model, variables, x) for x in (features, changed))
    assert max_difference((a.slots[:, :t], a.attention[:, :t]), (b.slots[:, :t], b.attention[:, :t])) == 0.0
    assert max_difference(a.slots[:, t], b.slots[:, t]) > 1e-3
    if t > 1:  # actions that lead to earlier frames, and what is predicted with them
        early = [(x.action_mean[:, : t - 1], x.next_features[:, : t - 1]) for x in (a, b)]
        assert max_difference(*early) == 0.0
    # The prediction from the last seen frame must not depend on the frame it predicts but through the action.
    fixed = (apply(model, variables, x, None, a.actions).next_features for x in (features, changed))
    assert max_difference(*fixed) == 0.0


def test_inverse_dynamics_depends_on_the_next_slot(sized):
    model, variables, features = sized
    changed = features.at[:, -1].set(-features[:, -1])
    a, b = (apply(model, variables, x).action_mean[:, -1] for x in (features, changed))
    assert max_difference(a, b) > 1e-3


def test_permuting_initial_slots_permutes_the_outputs(sized):
    model, variables, features = sized
    order = jnp.asarray([*range(1, model.num_factors), 0])
    initial = variables["params"]["factorizer"]["initial_slots"]
    permuted = {
        "params": variables["params"]
        | {"factorizer": variables["params"]["factorizer"] | {"initial_slots": initial[order]}}
    }
    a, b = apply(model, variables, features), apply(model, permuted, features)
    for name in ("slots", "attention", "action_mean", "action_log_var", "next_slots"):
        assert max_difference(getattr(a, name)[:, :, order], getattr(b, name)) < 1e-4, name
    assert max_difference(a.next_features, b.next_features) < 1e-4


def test_mapped_factors_equal_a_loop_over_factors(sized):
    model, variables, features = sized
    out = apply(model, variables, features)
    slots, params = out.slots, variables["params"]
    block = dict(num_blocks=model.num_blocks, num_heads=model.num_heads, history=model.history)
    stream = ContextStream(**block)
    context, _ = apply(stream, {"params": params["context"]}, slots[:, :-1])
    for i in range(model.num_factors):
        inverse = InverseDynamics(action_dim=model.action_dim, **block)
        posterior = apply(inverse, {"params": params["inverse_dynamics"]}, slots[:, :-1, i], slots[:, 1:, i], context)
        assert max_difference(posterior.mean, out.action_mean[:, :, i]) < 1e-5
        forward = ForwardDynamics(**block)
        arguments = slots[:, :-1, i], out.actions[:, :, i], context
        next_slot, _ = apply(forward, {"params": params["forward_dynamics"]}, *arguments)
        assert max_difference(next_slot, out.next_slots[:, :, i]) < 1e-5


@pytest.mark.parametrize("local_context", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_frame_by_frame_inference_equals_the_parallel_pass(size, local_context):
    model, variables, features = make_model(size, local_context=local_context)
    out = apply(model, variables, features)
    cache = apply(model, variables, features[:, 0], method="init_cache")
    shapes = [x.shape for x in jax.tree.leaves(cache)]
    for t in range(features.shape[1] - 1):
        cache, step = apply(model, variables, cache, features[:, t], out.actions[:, t], method="step")
        assert [x.shape for x in jax.tree.leaves(cache)] == shapes  # the cost of a step does not grow
        assert max_difference(step.slots, out.slots[:, t]) < 1e-4
        assert max_difference(step.attention, out.attention[:, t]) < 1e-4
        assert max_difference(step.next_slots, out.next_slots[:, t]) < 1e-4
        assert max_difference(step.next_features, out.next_features[:, t]) < 1e-4


def test_an_untrained_model_predicts_that_little_changes():
    model, _, features = make_model(SIZES[1])
    variables = jax.jit(model.init)({"params": jax.random.key(1), "action": jax.random.key(2)}, features)
    change = apply(model, variables, features).next_features - features[:, :-1]
    assert 0.0 < float(jnp.abs(change).max()) < 0.1 * float(features.std())


@pytest.mark.parametrize("change", [{}, {"position_in_keys": True}, {"local_context": True}], ids=str)
def test_gradients_reach_every_parameter(change):
    model, variables, features = make_model(SIZES[1], **change)

    def loss(variables):
        out = apply(model, variables, features, rngs={"action": jax.random.key(0)})
        return jnp.square(out.next_features - features[:, 1:]).sum() + out.action_kl.sum()

    gradients = jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(variables))
    # Only differences of the attention logits over the keys count, so a bias of the keys changes nothing.
    dead = {jax.tree_util.keystr(p) for p, g in gradients if float(jnp.abs(g).max()) < 1e-7}
    assert {name for name in dead if not name.endswith("['key']['bias']")} == set()


def test_without_an_action_rng_the_means_are_used(sized):
    model, variables, features = sized
    out = apply(model, variables, features)
    assert max_difference(out.actions, out.action_mean) == 0.0
    sampled = apply(model, variables, features, rngs={"action": jax.random.key(0)})
    assert max_difference(sampled.actions, sampled.action_mean) > 1e-3


def test_parts_called_alone_equal_the_whole(sized):
    model, variables, features = sized
    out = apply(model, variables, features)
    slots = apply(model, variables, features, method="factorize").slots
    posterior = apply(model, variables, slots, method="infer_actions")
    next_slots = apply(model, variables, slots[:, :-1], posterior.mean, method="predict_slots")
    next_features = apply(model, variables, features[:, :-1], next_slots, method="aggregate")
    assert max_difference(posterior.mean, out.action_mean) < 1e-5
    assert max_difference(posterior.log_var, out.action_log_var) < 1e-5
    assert max_difference(next_slots, out.next_slots) < 1e-5
    assert max_difference(next_features, out.next_features) < 1e-5


def test_kl_by_hand():
    mean, log_var = jnp.zeros((3, 2, 2)), jnp.zeros((3, 2, 2))
    assert max_difference(ActionDistribution(mean, log_var).kl(), jnp.zeros((3, 2))) == 0.0
    mean, log_var = mean.at[:, 1, 0].set(2.0), log_var.at[:, 1, 1].set(jnp.log(0.25))
    # 2²/2 for the mean; (0.25 - 1 + log 4)/2 for the variance.
    expected = jnp.full(3, 2.0 + 0.5 * (0.25 - 1 + jnp.log(4.0)))
    assert max_difference(ActionDistribution(mean, log_var).kl()[:, 1], expected) < 1e-6


def test_one_frame_holds_no_action(sized):
    model, variables, features = sized
    slots = apply(model, variables, features[:, :1], method="factorize").slots
    with pytest.raises(ValueError, match="at least 2 frames, got 1"):
        apply(model, variables, slots, method="infer_actions")


def test_bfloat16_is_close_to_float32():
    size = (2, 4, 3, 3, 3, 3, 2)  # what is rounded adds up over frames and factors
    model, variables, features = make_model(size)
    exact = apply(model, variables, features)
    rough = apply(make_model(size, dtype=jnp.bfloat16)[0], variables, features)
    for name in ("attention", "action_mean", "next_features"):
        a, b = getattr(exact, name), getattr(rough, name).astype(jnp.float32)
        assert float(jnp.linalg.norm(a - b) / jnp.linalg.norm(a)) < 0.03, name
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))
    assert rough.next_features.dtype == jnp.float32
