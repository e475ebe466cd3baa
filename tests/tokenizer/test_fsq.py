"""Finite scalar quantization: codes and features are two names of one thing."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.tokenizer import fsq

LEVELS = [(2,), (4, 4, 4, 4, 4), (3, 5, 2), (256, 3)]


def all_codes(levels):
    return jnp.asarray(np.indices(levels).reshape(len(levels), -1).T, jnp.uint8)


@pytest.mark.parametrize("levels", LEVELS)
def test_codes_and_features_are_exact_both_ways(levels):
    codes = all_codes(levels)
    features = fsq.codes_to_features(codes, levels)
    assert len(np.unique(np.asarray(features), axis=0)) == len(codes)
    assert jnp.array_equal(fsq.features_to_codes(features, levels), codes)
    assert jnp.array_equal(fsq.codes_to_features(fsq.features_to_codes(features, levels), levels), features)


@pytest.mark.parametrize("levels", LEVELS)
def test_grid_features_are_fixed_points_of_quantization(levels):
    features = fsq.codes_to_features(all_codes(levels), levels)
    assert float(jnp.abs(fsq.quantize(features, levels) - features).max()) < 1e-6


@pytest.mark.parametrize("levels", LEVELS)
def test_quantization_goes_to_the_nearest_level(levels):
    x = jnp.asarray(np.random.default_rng(0).uniform(-1.3, 1.3, (200, len(levels))), jnp.float32)
    quantized = np.asarray(fsq.quantize(x, levels))
    for channel, n in enumerate(levels):
        grid = np.linspace(-1.0, 1.0, n)
        nearest = grid[np.abs(np.asarray(x)[:, channel, None] - grid).argmin(axis=1)]
        np.testing.assert_allclose(quantized[:, channel], nearest, atol=1e-6)


def test_the_gradient_passes_straight_through_inside_and_stops_outside():
    gradient = jax.grad(lambda x: fsq.quantize(x, (4, 4, 4)).sum())(jnp.asarray([0.2, -0.9, 1.5]))
    assert gradient.tolist() == [1.0, 1.0, 0.0]


def test_bounding_keeps_encoder_outputs_within_the_grid():
    x = fsq.bound(jnp.asarray([[-50.0, 0.0, 50.0]], jnp.bfloat16))
    assert x.dtype == jnp.float32
    assert x.tolist() == [[-1.0, 0.0, 1.0]]


def test_entropies_of_channels_are_those_of_codes():
    """The sample entropy of all codes, one by one; the batch entropy where channels are independent."""
    levels = (2, 3)
    x = jnp.asarray([[a, b] for a in (-0.4, 0.1, 0.7) for b in (-0.9, -0.2, 0.5)], jnp.float32)
    codes = np.asarray(fsq.codes_to_features(all_codes(levels), levels))
    steps = np.asarray([0.5, 1.0])
    distance = (((np.asarray(x)[:, None] - codes) * steps) ** 2).sum(-1)
    shares = np.exp(-distance / fsq.TEMPERATURE)
    shares /= shares.sum(axis=1, keepdims=True)
    entropy = lambda p: -(p * np.log(p)).sum(-1)  # noqa: E731
    sample, batch = fsq.code_entropies(x, levels)
    assert float(sample) == pytest.approx(entropy(shares).mean(), rel=1e-4)
    assert float(batch) == pytest.approx(entropy(shares.mean(axis=0)), rel=1e-4)


def test_entropies_at_their_ends():
    levels = (2,) * 18  # lookup-free quantization
    half = jnp.concatenate([jnp.ones((3, 18)), -jnp.ones((3, 18))])
    for x, expected in [
        (half, (0.0, 18 * math.log(2))),  # certain, and all levels used alike
        (jnp.ones((6, 18)), (0.0, 0.0)),
        (jnp.zeros((6, 18)), (18 * math.log(2), 18 * math.log(2))),
    ]:
        assert [float(value) for value in fsq.code_entropies(x, levels)] == pytest.approx(expected, abs=1e-2)


def test_many_channels_of_two_levels_have_codes_of_their_own():
    levels = (2,) * 30
    signs = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], (50, 30)), jnp.float32)
    codes = fsq.features_to_codes(signs, levels)
    assert int(codes.min()) >= 0
    assert jnp.array_equal(fsq.codes_to_features(codes, levels), signs)
