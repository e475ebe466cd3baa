"""How predicted slots change the features."""

import jax
import jax.numpy as jnp
import pytest

from flam_jax.dynamics.aggregators import AGGREGATORS
from tests.dynamics.models import apply, make_model, max_difference

LOCAL = dict(local_context=True, aggregator="local")


def test_with_the_local_aggregator_a_patch_gets_the_slot_that_holds_it():
    """Another holder, another prediction, with all else the same."""
    model, variables, features = make_model((1, 3, 2, 3, 2, 2, 1), **LOCAL)
    factors = apply(model, variables, features, method="factorize")
    held = lambda slots: jnp.zeros_like(factors.attention).at[:, :, slots].set(1.0)  # noqa: E731
    first, second = (apply(model, variables, features, factors.slots, held(k), method="aggregate") for k in (0, 1))
    assert max_difference(first, second) > 1e-3


def test_with_the_local_aggregator_patches_see_the_last_frame_and_their_neighbours_and_not_beyond():
    model, variables, features = make_model((1, 4, 7, 7, 2, 2, 1), **LOCAL)
    factors = apply(model, variables, features, method="factorize")
    # Apart from what the slots see, which is given here.
    given = (factors.slots, factors.attention)
    before = apply(model, variables, features, *given, method="aggregate")
    after = apply(model, variables, features.at[:, 1, 0, 0].add(1.0), *given, method="aggregate")
    changed = jnp.abs(after - before).max(axis=(0, 4)) > 1e-6  # t h w
    assert not changed[0].any()  # the past
    assert not changed[3].any()  # only the last frame is remembered
    # Two steps of a 3x3 neighbourhood with one block: the content and the perceptron.
    for frame in (1, 2):
        assert changed[frame, :3, :3].all()
        assert not changed[frame, 3:].any()
        assert not changed[frame, :, 3:].any()


def slot_jacobian(kind):
    """Of a patch's change with respect to the slots, for two contents of the patch: two matrices c x (k d)."""
    module = AGGREGATORS[kind](model_dim=8, num_blocks=1, num_heads=2)
    features, other = jax.random.normal(jax.random.key(1), (2, 1, 4, 5, 3))
    slots = jax.random.normal(jax.random.key(2), (1, 3, 8))
    attention = jnp.full((1, 3, 4, 5), 1 / 3)
    params = jax.jit(module.init)(jax.random.key(0), features, features, slots, attention)["params"]
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(3), x.shape), params)

    @jax.jit
    def jacobian(features):
        change = lambda slots: module.apply({"params": params}, features, features, slots, attention)  # noqa: E731
        return jax.jacrev(lambda slots: change(slots)[0, 2, 3])(slots).reshape(3, -1)

    return jacobian(features), jacobian(other)


@pytest.mark.parametrize(("kind", "one"), [("additive", True), ("local", False), ("cross_attention", False)])
def test_of_the_slots_one_number_alone_acts_on_the_content_of_a_patch_if_the_aggregator_is_additive(kind, one):
    """What slots write does not depend on the content, so the difference of the Jacobians has rank one."""
    first, second = slot_jacobian(kind)
    sizes = jnp.linalg.svd(first - second, compute_uv=False)
    assert float(sizes[0]) > 1e-3
    assert (float(sizes[1] / sizes[0]) < 1e-3) == one
