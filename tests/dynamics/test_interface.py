"""What every model promises, FLAM, its variants and the baselines alike."""

import jax
import jax.numpy as jnp
import pytest

from tests.dynamics.models import CHANNELS, FRAMES, GRID, NAMES, apply, make, max_difference, without_gradient

every_model = pytest.mark.parametrize("name", NAMES)


def run(name, features=None, actions=None):
    model, variables, own, true_actions = make(name)
    return apply(model, variables, own if features is None else features, None, actions, true_actions)


@every_model
def test_shapes_are_those_of_the_spec(name):
    model, *_ = make(name)
    out, k, a = run(name), model.spec.num_factors, model.spec.action_dim
    d = out.slots.shape[-1]
    assert out.slots.shape == (2, FRAMES, k, d)
    assert out.attention.shape == (2, FRAMES, k, *GRID)
    assert jnp.allclose(out.attention.sum(axis=2), 1.0, atol=1e-5)
    assert out.action_mean.shape == out.action_log_var.shape == out.actions.shape == (2, FRAMES - 1, k, a)
    assert out.action_kl.shape == (2, FRAMES - 1, k)
    assert out.next_slots.shape == (2, FRAMES - 1, k, d)
    assert out.next_features.shape == (2, FRAMES - 1, *GRID, CHANNELS)
    assert (a == 0) == (model.spec.action_source == "none")


@every_model
def test_phases_cover_training_every_parameter_and_every_loss(name):
    model, variables, features, true_actions = make(name)
    phases = model.spec.phases
    assert [phase.start for phase in phases] == [0.0, *(phase.end for phase in phases[:-1])]
    assert phases[-1].end == 1.0
    parts = set(variables["params"])
    trained = [set(phase.parts) or parts for phase in phases]
    assert set().union(*trained) == parts

    def losses():
        rngs = {"action": jax.random.key(0)}
        return model.apply(variables, features, None, None, true_actions, rngs=rngs).losses

    assert set(jax.eval_shape(losses)) == {loss for phase in phases for loss in phase.losses}


@every_model
def test_nothing_depends_on_later_frames(name):
    _, _, features, _ = make(name)
    t = FRAMES - 1
    out, changed = run(name), features.at[:, t].set(-features[:, t])
    other = run(name, changed)
    early = [
        (x.slots[:, :t], x.attention[:, :t], x.action_mean[:, : t - 1], x.next_features[:, : t - 1])
        for x in (out, other)
    ]
    assert max_difference(*early) == 0.0
    assert max_difference(out.slots[:, t], other.slots[:, t]) > 1e-3
    # The prediction of a frame must not depend on it but through the action.
    fixed = [run(name, x, out.actions).next_features for x in (features, changed)]
    assert max_difference(*fixed) == 0.0


@every_model
def test_frame_by_frame_equals_the_parallel_pass(name):
    model, variables, features, _ = make(name)
    out = run(name)
    cache = apply(model, variables, features[:, 0], method="init_cache")
    shapes = [leaf.shape for leaf in jax.tree.leaves(cache)]
    for t in range(FRAMES - 1):
        cache, slots, masks = apply(model, variables, cache, features[:, t], method="observe_frame")
        assert max_difference((slots, masks), (out.slots[:, t], out.attention[:, t])) < 1e-4
        frame = (cache, features[:, t], slots, masks, out.actions[:, t])
        cache, next_slots, next_features = apply(model, variables, *frame, method="predict")
        assert max_difference((next_slots, next_features), (out.next_slots[:, t], out.next_features[:, t])) < 1e-4
        assert [leaf.shape for leaf in jax.tree.leaves(cache)] == shapes  # the cost of a frame does not grow


@every_model
def test_a_predicted_frame_is_gone_on_from_in_the_space_that_the_spec_names(name):
    model, variables, features, _ = make(name)
    cache = apply(model, variables, features[:, 0], method="init_cache")
    cache, slots, masks = apply(model, variables, cache, features[:, 0], method="observe_frame")
    frame = (cache, features[:, 0], slots, masks, run(name).actions[:, 0])
    cache, next_slots, next_features = apply(model, variables, *frame, method="predict")

    def observed(features, slots):
        _, *seen = apply(model, variables, cache, features, slots, method="observe_frame")
        return seen

    seen = observed(next_features, next_slots)
    assert jnp.allclose(seen[1].sum(axis=1), 1.0, atol=1e-5)
    of_features = max_difference(seen, observed(-next_features, next_slots)) > 1e-3
    of_slots = max_difference(seen, observed(next_features, -next_slots)) > 1e-3
    assert (of_features, of_slots) == ((False, True) if model.spec.rollout_space == "slots" else (True, False))


@every_model
def test_parts_called_alone_equal_the_whole(name):
    model, variables, features, true_actions = make(name)
    out = run(name)
    factors = apply(model, variables, features, method="factorize")
    posterior = apply(model, variables, factors.slots, true_actions, method="infer_actions")
    next_slots = apply(model, variables, factors.slots[:, :-1], posterior.mean, method="predict_slots")
    given = (features[:, :-1], next_slots, factors.attention[:, :-1])
    next_features = apply(model, variables, *given, method="aggregate")
    assert max_difference((factors.slots, factors.attention), (out.slots, out.attention)) < 1e-5
    assert max_difference((posterior.mean, posterior.kl()), (out.action_mean, out.action_kl)) < 1e-5
    assert max_difference((next_slots, next_features), (out.next_slots, out.next_features)) < 1e-5
    with pytest.raises(ValueError, match="at least 2 frames, got 1"):
        apply(model, variables, factors.slots[:, :1], None, method="infer_actions")


@every_model
def test_gradients_reach_every_parameter(name):
    model, variables, features, true_actions = make(name)

    def loss(variables):
        rngs = {"action": jax.random.key(0)}
        return sum(model.apply(variables, features, None, None, true_actions, rngs=rngs).losses.values())

    assert without_gradient(jax.jit(jax.grad(loss))(variables)) == set()


@every_model
def test_actions_drawn_from_the_prior_have_the_shape_of_the_spec(name):
    model, variables, _, _ = make(name)
    drawn = model.apply(variables, jax.random.key(0), (5, 4), method="sample_actions")
    assert drawn.shape == (5, 4, model.spec.num_factors, model.spec.action_dim)


def coupling(function, inputs, factor_axis):
    """Size of the gradient of every output factor with respect to every input factor, k x k: exact zeros stay zero.

    `function` maps to outputs whose axis 2 is the factor's; they are projected on random directions factor by factor.
    """

    @jax.jit
    def gradients(inputs):
        outputs, pull_back = jax.vjp(function, inputs)
        k = outputs.shape[2]
        directions = jax.random.normal(jax.random.key(5), outputs.shape)[None] * jnp.eye(k)[:, None, None, :, None]
        return jax.vmap(lambda direction: pull_back(direction)[0])(directions)

    size = jnp.abs(gradients(inputs))
    return jnp.moveaxis(size, 1 + factor_axis, 1).sum(axis=tuple(range(2, size.ndim)))


def assert_coupling(matrix, isolated):
    """Factors depend on themselves alone, exactly; or each on all."""
    others = matrix * (1 - jnp.eye(len(matrix)))
    assert float(jnp.diagonal(matrix).min()) > 1e-4
    if isolated:
        assert float(others.max()) == 0.0
    else:
        assert float((others + jnp.eye(len(matrix))).min()) > 1e-4


ISOLATED = ("flam", "flam_local", "flam_keys", "paper", "recurrent")
ISOLATION = dict.fromkeys(ISOLATED, True) | {"coupled": False}


@pytest.mark.parametrize(("name", "isolated"), (ISOLATION | {"playslot": False}).items())
def test_next_slot_depends_on_its_own_action_alone(name, isolated):
    model, variables, _, _ = make(name)
    slots = run(name).slots
    actions = jax.random.normal(jax.random.key(4), (*slots.shape[:3], model.spec.action_dim))
    predict = lambda actions: apply(model, variables, slots, actions, method="predict_slots")  # noqa: E731
    assert_coupling(coupling(predict, actions, 2), isolated)


@pytest.mark.parametrize(("name", "isolated"), (ISOLATION | {"playslot": True}).items())
def test_action_depends_on_its_own_next_slot_alone(name, isolated):
    model, variables, _, _ = make(name)
    slots = run(name).slots

    def last_action(last):
        posterior = apply(model, variables, slots.at[:, -1].set(last), method="infer_actions")
        return jnp.concatenate([posterior.mean, posterior.log_var], axis=-1)[:, -1:]

    assert_coupling(coupling(last_action, slots[:, -1], 1), isolated)


@pytest.mark.parametrize("name", [*ISOLATED, "coupled", "playslot", "slotformer"])
def test_next_slot_depends_on_all_current_slots(name):
    model, variables, _, _ = make(name)
    slots = run(name).slots
    actions = jnp.zeros((*slots.shape[:3], model.spec.action_dim))
    predict = lambda slots: apply(model, variables, slots, actions, method="predict_slots")  # noqa: E731
    assert_coupling(coupling(predict, slots, 2), isolated=False)
