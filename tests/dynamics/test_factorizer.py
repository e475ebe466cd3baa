"""What slots compete for and how, and what they read."""

import jax
import jax.numpy as jnp
import pytest

from flam_jax.dynamics.factorizer import Factorizer
from flam_jax.dynamics.schedules import SlotAnnealing
from flam_jax.dynamics.slot_attention import SlotAttention
from tests.dynamics.models import SIZES, apply, make_model, max_difference


@pytest.mark.parametrize("local_context", [False, True])
def test_with_local_context_slots_see_what_changed_since_the_last_frame_and_no_earlier_one(local_context):
    """Without temporal attention: its window is of one frame."""
    model, variables, features = make_model(SIZES[1], history=1, local_context=local_context)
    changed = features.at[:, 0].set(-features[:, 0])
    a, b = (apply(model, variables, x, method="factorize").slots for x in (features, changed))
    assert (max_difference(a[:, 1], b[:, 1]) > 1e-4) == local_context
    assert max_difference(a[:, 2:], b[:, 2:]) == 0.0


def test_only_the_history_window_is_seen_by_one_temporal_attention():
    model, variables, features = make_model(SIZES[1], num_iterations=1, history=2)
    changed = features.at[:, 0].set(-features[:, 0])
    a, b = (apply(model, variables, x, method="factorize").slots for x in (features, changed))
    assert max_difference(a[:, 1], b[:, 1]) > 1e-4
    assert max_difference(a[:, 2:], b[:, 2:]) == 0.0


def annealed(features, model, **changes):
    """What inference uses, but for `changes`."""
    b, d = features.shape[0], model.factorizer.slot_attention.slot_dim
    fields = dict(
        inverse_temperature=jnp.full(b, 4.0),
        query_noise=jnp.zeros((b, model.num_factors, d)),
        separation_penalty=jnp.zeros(()),
    )
    return SlotAnnealing(**(fields | changes))


def test_an_annealing_that_is_over_changes_nothing(sized):
    model, variables, features = sized
    out = apply(model, variables, features)
    assert max_difference(apply(model, variables, features, annealed(features, model)).slots, out.slots) < 1e-4
    b = features.shape[0]
    noise = jax.random.normal(jax.random.key(0), annealed(features, model).query_noise.shape)
    for change in (
        {"inverse_temperature": jnp.full(b, 1.0)},
        {"query_noise": noise},
        {"separation_penalty": jnp.ones(())},
    ):
        changed = apply(model, variables, features, annealed(features, model, **change))
        assert max_difference(changed.slots, out.slots) > 1e-3, change


def test_under_a_separation_penalty_nothing_depends_on_later_frames(sized):
    model, variables, features = sized
    t = features.shape[1] - 1
    changed = features.at[:, t].set(-features[:, t])
    annealing = annealed(features, model, separation_penalty=jnp.full((), 6.0))
    a, b = (apply(model, variables, x, annealing) for x in (features, changed))
    assert max_difference((a.slots[:, :t], a.attention[:, :t]), (b.slots[:, :t], b.attention[:, :t])) == 0.0


@pytest.mark.parametrize("layer", ["key", "query"])
@pytest.mark.parametrize("cosine", [True, False])
def test_with_cosine_attention_the_length_of_queries_and_keys_does_not_sharpen_it(layer, cosine):
    model, variables, features = make_model(SIZES[1], cosine_attention=cosine)

    def attention(kernel):
        factorizer = variables["params"]["factorizer"] | {layer: {"kernel": kernel}}
        changed = {"params": variables["params"] | {"factorizer": factorizer}}
        return apply(model, changed, features, method="factorize").attention

    kernel = variables["params"]["factorizer"][layer]["kernel"]
    assert (max_difference(attention(5.0 * kernel), attention(kernel)) < 1e-4) == cosine
    assert max_difference(attention(kernel[::-1]), attention(kernel)) > 1e-3  # directions do count


def test_the_implicit_gradient_is_that_of_the_last_iteration():
    """With one iteration there is nothing to leave out; with more the values stay and the gradients differ."""

    def run(iterations, implicit):
        model, variables, features = make_model(SIZES[0], num_iterations=iterations, implicit_gradient=implicit)

        @jax.jit
        @jax.value_and_grad
        def loss(variables):
            return jnp.square(model.apply(variables, features, method="factorize").slots).sum()

        return loss(variables)

    (one, gradient), (same, same_gradient) = run(1, True), run(1, False)
    assert float(one) == float(same)
    assert max_difference(gradient, same_gradient) == 0.0
    (value, gradient), (same, full) = run(3, True), run(3, False)
    assert float(value) == pytest.approx(float(same), rel=1e-6)
    assert max_difference(gradient, full) > 1e-3


@pytest.mark.parametrize("positions", ["readout", "keys", "features"])
@pytest.mark.parametrize("size", SIZES)
def test_who_holds_a_content_does_not_depend_on_where_it_lies(size, positions):
    """Unless places are competed for: every frame's patches are shuffled in their own way, and the attention likewise.
    Where contents lie is still in the slots."""
    model, variables, features = make_model(size, positions=positions)
    b, t, h, w, c = features.shape
    orders = jnp.argsort(jax.random.uniform(jax.random.key(3), (b, t, h * w)), axis=-1)
    shuffled = jnp.take_along_axis(features.reshape(b, t, h * w, c), orders[..., None], axis=2).reshape(features.shape)
    before, after = (apply(model, variables, x, method="factorize") for x in (features, shuffled))
    attention = before.attention.reshape(b, t, -1, h * w)
    expected = jnp.take_along_axis(attention, orders[:, :, None], axis=3).reshape(before.attention.shape)
    difference = max_difference(after.attention, expected)
    assert difference < 1e-4 if positions == "readout" else difference > 1e-3
    assert max_difference(after.slots, before.slots) > 1e-3


def test_a_rare_content_is_not_drowned_by_a_background_in_the_same_slot():
    """One factor holds everything: what it gives away of one patch among 64."""
    background = jnp.zeros((1, 1, 8, 8, 3))
    entity = background.at[0, 0, 2, 5].set(1.0)

    def change(power):
        slot_attention = SlotAttention(16, inverse_frequency_power=power)
        model = Factorizer(1, slot_attention, num_iterations=2, num_heads=2, history=3)
        variables = jax.jit(model.init)(jax.random.key(0), background)
        alone, both = (apply(model, variables, features)[0].slots for features in (background, entity))
        return float(jnp.linalg.norm(both - alone) / jnp.linalg.norm(alone))

    assert change(0.0) < 0.1 < 0.3 < change(1.0)
