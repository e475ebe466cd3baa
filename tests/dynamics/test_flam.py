"""Properties of FLAM beyond those of every model (`test_interface.py`), over several sizes."""

import jax
import jax.numpy as jnp

from flam_jax.dynamics.forward import ForwardDynamics
from flam_jax.dynamics.inverse import ActionDistribution, InverseDynamics
from tests.dynamics.models import SIZES, apply, make_model, max_difference


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
    stream = model.context
    block = dict(num_blocks=stream.num_blocks, num_heads=stream.num_heads, history=stream.history)
    context, _ = apply(stream, {"params": params["context"]}, slots[:, :-1])
    for i in range(model.num_factors):
        inverse = InverseDynamics(action_dim=model.action_dim, **block)
        posterior = apply(inverse, {"params": params["inverse_dynamics"]}, slots[:, :-1, i], slots[:, 1:, i], context)
        assert max_difference(posterior.mean, out.action_mean[:, :, i]) < 1e-5
        forward = ForwardDynamics(**block)
        arguments = slots[:, :-1, i], out.actions[:, :, i], context
        next_slot, _ = apply(forward, {"params": params["forward_dynamics"]}, *arguments)
        assert max_difference(next_slot, out.next_slots[:, :, i]) < 1e-5


def test_an_untrained_model_predicts_that_little_changes():
    model, _, features = make_model(SIZES[0])
    variables = jax.jit(model.init)({"params": jax.random.key(1), "action": jax.random.key(2)}, features)
    change = apply(model, variables, features).next_features - features[:, :-1]
    assert 0.0 < float(jnp.abs(change).max()) < 0.1 * float(features.std())


def test_without_an_action_rng_the_means_are_used(sized):
    model, variables, features = sized
    out = apply(model, variables, features)
    assert max_difference(out.actions, out.action_mean) == 0.0
    sampled = apply(model, variables, features, rngs={"action": jax.random.key(0)})
    assert max_difference(sampled.actions, sampled.action_mean) > 1e-3


def test_kl_by_hand():
    mean, log_var = jnp.zeros((3, 2, 2)), jnp.zeros((3, 2, 2))
    assert max_difference(ActionDistribution(mean, log_var).kl(), jnp.zeros((3, 2))) == 0.0
    mean, log_var = mean.at[:, 1, 0].set(2.0), log_var.at[:, 1, 1].set(jnp.log(0.25))
    # 2²/2 for the mean; (0.25 - 1 + log 4)/2 for the variance.
    expected = jnp.full(3, 2.0 + 0.5 * (0.25 - 1 + jnp.log(4.0)))
    assert max_difference(ActionDistribution(mean, log_var).kl()[:, 1], expected) < 1e-6


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
