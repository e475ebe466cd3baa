"""Intervals and differences against known ones."""

import numpy as np
import pytest

from flam_jax.evaluation.comparison import difference, differences, interval, number, summarize
from tests.evaluation.results import result


def test_the_interval_is_students():
    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.302653 / 3**0.5, rel=1e-5)  # t of two degrees of freedom, deviation of 1
    assert interval([5.0]) == (5.0, None)


def test_the_interval_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = [abs(mean) <= half for mean, half in (interval(rng.normal(size=3).tolist()) for _ in range(2000))]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_the_difference_is_welchs():
    mean, half = difference([3.0, 5.0], [1.0, 1.0, 1.0])
    assert mean == 3.0
    assert half == pytest.approx(12.7062, rel=1e-4)  # all the variance is in two values: one degree of freedom
    assert difference([3.0], [1.0]) == (2.0, None)
    assert difference([3.0, 3.0], [1.0, 1.0]) == (2.0, 0.0)


def test_a_row_is_compared_with_flam_under_the_same_conditions():
    rows = ["FLAM", "PlaySlot", "K = 4", "PlaySlot, K = 4", "FLAM, no balance", "coupled, no balance", "Genie, β = 1"]
    found = differences(summarize([("4agents", row, 0, result([30.0])) for row in rows])["4agents"])
    assert {row: entry["less"] for row, entry in found.items()} == {
        "PlaySlot": "FLAM",
        "K = 4": "FLAM",
        "PlaySlot, K = 4": "K = 4",
        "FLAM, no balance": "FLAM",
        "coupled, no balance": "FLAM, no balance",
        "Genie, β = 1": "FLAM",
    }


def test_what_compares_slots_is_not_asked_of_one_slot():
    one = {"disentanglement": 0.0, "completeness": "not defined: one slot", "informativeness": 0.5}
    rows = {"FLAM": dict.fromkeys(one, 1.0), "Genie": one, "PlaySlot": dict.fromkeys(one, 0.75)}
    found = differences(
        summarize([("4agents", row, 0, result([30.0], dci=dci)) for row, dci in rows.items()])["4agents"]
    )
    assert set(found["Genie"]["numbers"]) == {"psnr_mean", "ssim_mean", "kl"}
    assert {found["PlaySlot"]["numbers"][name]["mean"] for name in one} == {-0.25}


def test_numbers_are_found_by_their_path():
    values = result([1.0, 2.0], binding={"attention": [0.5, 0.2]})
    assert number(values, ("rollout", "psnr", -1)) == 2.0
    assert number(values, ("binding", "attention", min)) == 0.2
    assert number(values, ("actions", "leak", "position", "action_mlp")) is None
    assert number(values, ("rollout", "lpips")) is None
