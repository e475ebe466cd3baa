"""Position codes, and the Gaussian prior over positions."""

import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.dynamics.positions import coordinates, gaussian_prior, position_codes


@pytest.mark.parametrize(("h", "w"), [(8, 8), (1, 3), (14, 2)])
def test_position_codes_name_every_place_and_hold_a_step_that_is_the_same_everywhere(h, w):
    codes = position_codes(h, w)
    assert len({tuple(code) for code in codes.reshape(h * w, -1).tolist()}) == h * w
    for part in (codes[..., :h], codes[..., h : h + w]):
        assert jnp.allclose(jnp.square(part).mean(axis=-1), 1.0)
    numbers = coordinates(h, w)
    assert jnp.array_equal(codes[..., h + w :], numbers)
    for axis, size in enumerate((h, w)):
        steps = jnp.diff(numbers, axis=axis)
        assert np.allclose(steps, steps.reshape(-1, 2)[:1], atol=1e-6) if steps.size else size == 1
        assert jnp.allclose(jnp.square(numbers[..., axis]).mean(), float(size > 1), atol=1e-5)
        assert jnp.allclose(numbers[..., axis].mean(), 0.0, atol=1e-6)


def test_the_gaussian_prior_peaks_at_its_center_and_moves_with_it():
    h, w = 8, 5
    places = coordinates(h, w).reshape(-1, 2)
    prior = gaussian_prior(places[:, None], jnp.log(jnp.asarray([0.3])), h, w).reshape(h * w, h * w)
    assert jnp.array_equal(prior.argmax(axis=1), jnp.arange(h * w))
    assert float(jnp.abs(jnp.diagonal(prior)).max()) == 0.0
    by_place = prior.reshape(h, w, h, w)
    assert jnp.allclose(by_place[2, 1, 3:6, 2:4], by_place[3, 1, 4:7, 2:4], atol=1e-5)
    wide = gaussian_prior(places[:, None], jnp.log(jnp.asarray([0.6])), h, w).reshape(h * w, h * w)
    assert jnp.allclose(wide, prior / 4, atol=1e-4)
