"""What changes in the course of training, as functions of the share of training done."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.dynamics import schedules

ANNEALING = dict(
    end=0.5,
    full_inverse_temperature=4.0,
    inverse_temperature_start=0.125,
    inverse_temperature_jitter=0.3,
    query_noise=0.2,
    separation_penalty=0.6,
)


def at(progress, **changes):
    return schedules.slot_annealing(progress, jax.random.key(0), (4000, 2, 3), **(ANNEALING | changes))


def test_beta_is_constant_and_then_geometric_or_linear_where_one_end_is_zero():
    beta = lambda start, end, anneal: [  # noqa: E731
        float(schedules.beta(progress, start=start, end=end, anneal_start=anneal)) for progress in (0.0, 0.5, 0.75, 1.0)
    ]
    np.testing.assert_allclose(beta(1e-4, 1e-2, 0.5), [1e-4, 1e-4, 1e-3, 1e-2], rtol=1e-5)
    np.testing.assert_allclose(beta(0.0, 1e-2, 0.5), [0.0, 0.0, 5e-3, 1e-2], rtol=1e-5)
    np.testing.assert_allclose(beta(2e-4, 2e-4, 0.3), [2e-4] * 4, rtol=1e-6)
    assert beta(0.0, 1.0, 1.0) == [0.0, 0.0, 0.0, 0.0]


def test_annealing_goes_from_soft_noisy_and_penalized_to_what_inference_uses():
    steps = [at(progress) for progress in (0.0, 0.25, 0.5, 1.0)]
    medians = [float(jnp.median(step.inverse_temperature)) for step in steps]
    np.testing.assert_allclose(medians, [0.5, 2**0.5, 4.0, 4.0], rtol=0.03)
    jitter = [float(jnp.log(step.inverse_temperature).std()) for step in steps]
    np.testing.assert_allclose(jitter, [0.3, 0.3, 0.0, 0.0], rtol=0.1, atol=1e-6)
    np.testing.assert_allclose([float(step.query_noise.std()) for step in steps], [0.2, 0.1, 0.0, 0.0], rtol=0.03)
    penalties = [float(step.separation_penalty) for step in steps]
    assert penalties[0] == pytest.approx(0.6)
    assert 0.3 < penalties[1] < 0.6  # falls late
    assert penalties[2:] == [0.0, 0.0]


def test_without_an_end_there_is_no_annealing_and_without_a_penalty_no_work_for_it():
    start = at(0.0, end=0.0, separation_penalty=0.0)
    assert jnp.array_equal(start.inverse_temperature, jnp.full(4000, 4.0))
    assert float(jnp.abs(start.query_noise).max()) == 0.0
    assert start.separation_penalty is None


def test_several_steps_are_predicted_from_their_share_of_training_on():
    assert schedules.multi_step(0.0, 0.0) is True
    assert [bool(schedules.multi_step(jnp.asarray(progress), 0.8)) for progress in (0.5, 0.8)] == [False, True]
