"""The renderer draws slots where they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.dynamics.aggregators import AGGREGATORS
from flam_jax.dynamics.positions import coordinates, patches_from
from flam_jax.dynamics.renderer import SlotRenderer
from tests.dynamics.models import apply, make, max_difference

SHAPE = (5, 7, 3)


@pytest.fixture(scope="module")
def drawn():
    """A renderer with random parameters, and slots."""
    slots = jax.random.normal(jax.random.key(0), (2, 3, 8))
    module = SlotRenderer(model_dim=8, num_heads=2)
    params = jax.jit(module.init, static_argnums=2)(jax.random.key(1), slots, SHAPE)["params"]
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(2), x.shape), params)
    return module, params, slots


@pytest.mark.parametrize("axis", [0, 1])
def test_a_slot_one_patch_on_draws_the_same_one_patch_on(drawn, axis):
    module, params, slots = drawn
    spacing = np.diff(np.asarray(coordinates(*SHAPE[:2]))[..., axis], axis=axis).mean()
    moved = jax.tree.map(jnp.copy, params)
    moved["call"]["bias"] = moved["call"]["bias"].at[:, axis].add(spacing)
    before, after = (module.apply({"params": p}, slots, SHAPE) for p in (params, moved))
    for first, second in zip(before, after, strict=True):
        first, second = (jnp.moveaxis(x, axis + 1, 0) for x in (first, second))
        np.testing.assert_allclose(second[1:], first[:-1], atol=1e-4)
        assert max_difference(first[1:], first[:-1]) > 0.1  # it draws something


def test_distances_are_counted_in_patches():
    point = coordinates(4, 6)[1, 2][None, None]  # one slot, one head
    rows, columns = patches_from(point, 4, 6)
    np.testing.assert_allclose(rows[:, 0, 0], [-1, 0, 1, 2], atol=1e-5)
    np.testing.assert_allclose(columns[:, 0, 0], [-2, -1, 0, 1, 2, 3], atol=1e-5)
    assert patches_from(point, 1, 6)[0].shape == (1, 1, 1)


def test_what_is_learned_from_reconstruction_reaches_the_slots():
    """Its gradient alone moves the factorizer, and the part of the renderer that the aggregator reads."""
    model, variables, features, _ = make("flam_rendered")

    @jax.jit
    def gradient(params):
        loss = lambda params: model.apply({"params": params}, features).losses["reconstruction"]  # noqa: E731
        return jax.grad(loss)(params)

    found = gradient(variables["params"])
    for part in ("factorizer", "renderer"):
        assert all(
            jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(found[part]["key" if part == "factorizer" else "call"])
        )
    assert not any(leaf.any() for leaf in jax.tree.leaves((found["aggregator"], found["forward_dynamics"])))


def test_the_reconstruction_has_its_weight():
    model, variables, features, _ = make("flam_rendered")
    other, _, _, _ = make("flam_rendered", reconstruction_weight=0.6)
    first, second = (apply(m, variables, features).losses["reconstruction"] for m in (model, other))
    np.testing.assert_allclose(second, 2 * first, rtol=1e-5)


@pytest.mark.parametrize("kind", AGGREGATORS)
def test_every_aggregator_reads_what_is_rendered(kind):
    module = AGGREGATORS[kind](model_dim=8, num_blocks=1, num_heads=2)
    features = jax.random.normal(jax.random.key(1), (1, 4, 5, 3))
    slots, attention = jax.random.normal(jax.random.key(2), (1, 3, 8)), jnp.full((1, 3, 4, 5), 1 / 3)
    given = (features, features, slots, attention)
    rendered = jax.random.normal(jax.random.key(3), (1, 4, 5, 8))
    params = jax.jit(module.init)(jax.random.key(0), *given, rendered)["params"]
    params = random_parameters_like(params)
    before, after = (module.apply({"params": params}, *given, x) for x in (rendered, rendered.at[:, 2, 2].add(1.0)))
    assert max_difference(before[:, 2, 2], after[:, 2, 2]) > 1e-3
    assert max_difference(before[:, 0, 0], after[:, 0, 0]) < 1e-6


def random_parameters_like(params):
    return jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(4), x.shape), params)
