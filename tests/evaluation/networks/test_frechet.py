"""The Fréchet distance of samples whose means and covariances are exactly those of known Gaussians."""

import numpy as np
import pytest
from scipy import linalg

from flam_jax.evaluation.networks.frechet import frechet_distance


def samples(mean: np.ndarray, root: np.ndarray, number: int = 200, seed: int = 0) -> np.ndarray:
    """Rows with this mean and the covariance `root.T @ root`, to the last digit."""
    noise = np.random.default_rng(seed).standard_normal((number, len(root)))
    noise -= noise.mean(axis=0)
    white = np.linalg.qr(noise)[0] * np.sqrt(number - 1)
    return mean + white @ root


def test_one_dimension() -> None:
    """Squared differences of means and of deviations."""
    first, second = samples(np.array([1.0]), np.array([[2.0]])), samples(np.array([4.0]), np.array([[0.5]]), 50, 1)
    assert frechet_distance(first, second) == pytest.approx(3.0**2 + 1.5**2, rel=1e-12)


def test_covariances_that_commute() -> None:
    deviations = np.array([[3.0, 1.0, 0.1], [1.0, 2.0, 0.4]])
    first, second = (samples(np.zeros(3), np.diag(row), seed=seed) for seed, row in enumerate(deviations))
    expected = np.sum((deviations[0] - deviations[1]) ** 2) + 3 * 0.7**2
    assert frechet_distance(first, second + 0.7) == pytest.approx(expected, rel=1e-12)


def test_covariances_that_do_not_commute() -> None:
    rng = np.random.default_rng(3)
    roots, means = rng.standard_normal((2, 6, 6)), rng.standard_normal((2, 6))
    first, second = (samples(mean, root, seed=s) for s, (mean, root) in enumerate(zip(means, roots, strict=True)))
    c, d = (root.T @ root for root in roots)
    root = linalg.sqrtm(c @ d).real
    expected = np.sum((means[0] - means[1]) ** 2) + np.trace(c + d - 2 * root)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-9)


def test_fewer_samples_than_dimensions() -> None:
    """Singular covariances: two sets on lines at right angles, then on the same line."""
    along, across = np.zeros((2, 400)), np.zeros((2, 400))
    along[:, 0], across[:, 7] = (-3.0, 3.0), (-1.0, 1.0)  # variances of 18 and 2
    assert frechet_distance(along, across) == pytest.approx(18.0 + 2.0, rel=1e-12)
    assert frechet_distance(along, along / 3.0) == pytest.approx((np.sqrt(18) - np.sqrt(2)) ** 2, rel=1e-12)
    blank = np.full((2, 400), 0.5)  # no covariance at all
    assert frechet_distance(along, blank) == pytest.approx(18.0 + 400 * 0.25, rel=1e-12)


def test_a_set_is_at_no_distance_from_itself() -> None:
    for number in (5, 80):  # fewer and more than dimensions
        values = np.random.default_rng(0).standard_normal((number, 20)).astype(np.float32)
        assert frechet_distance(values, values[::-1]) == pytest.approx(0.0, abs=1e-12 * 20)


def test_what_cannot_be_compared_is_refused() -> None:
    values = np.ones((3, 4))
    with pytest.raises(ValueError, match="at least 2 samples of each set, got 1"):
        frechet_distance(values, values[:1])
    with pytest.raises(ValueError, match="equal width, got 4 and 2"):
        frechet_distance(values, values[:, :2])
    with pytest.raises(ValueError, match="finite"):
        frechet_distance(values, values * np.nan)
