"""Intervals and differences against known ones."""

import numpy as np
import pytest

from flam_jax.studies.definitions import FLAM, GENIE, cells
from flam_jax.studies.summary import at_equal_information, difference, differences, interval, number, summarize
from tests.studies.results import finished, result, study


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


def test_a_row_is_compared_with_the_one_that_it_names():
    rows = [FLAM, GENIE, GENIE.varied("x", "β = 1", {}), GENIE.varied("y", "K = 4", {}, compared_with="k_4")]
    found = differences(summarize([finished(row, 0, result([30.0])) for row in rows])["4agents"])
    assert {row: entry["less"] for row, entry in found.items()} == {"genie": "flam", "x": "flam"}  # k_4 is not there


@pytest.mark.parametrize("study_name", ["multigrid", "slots", "ablations", "sweeps", "information", "tuning"])
def test_every_row_of_a_study_is_compared_with_one_of_its_column_and_its_series_is_of_its_model(study_name):
    columns = {}
    for cell in cells(study_name, "cpu"):
        columns.setdefault(cell.column, {})[cell.row.key] = cell.row
    for rows in columns.values():
        alone = [key for key, row in rows.items() if row.compared_with is None]
        assert alone == [next(iter(rows))]
        assert {row.compared_with for row in rows.values()} - {None} <= set(rows)
        models = {}
        for row in rows.values():
            models.setdefault(row.series, set()).add(row.fields["name"])
        assert {len(names) for names in models.values()} == {1}


def test_an_ablation_is_compared_with_flam_under_the_same_conditions():
    compared = {cell.row.key: cell.row.compared_with for cell in cells("ablations", "cpu")}
    assert compared["globally_coupled"] == "flam"
    assert compared["globally_coupled_k_4"] == "k_4"
    assert compared["globally_coupled_no_balance"] == "flam_no_balance"
    assert compared["globally_coupled_places_in_keys_no_balance"] == "flam_places_in_keys_no_balance"
    assert compared["flam_no_balance"] == compared["k_4"] == "flam"


def test_what_compares_slots_is_not_asked_of_one_slot():
    one = {"disentanglement": 0.0, "completeness": "not defined: one slot", "informativeness": 0.5}
    rows = {"flam": dict.fromkeys(one, 1.0), "genie": one, "playslot": dict.fromkeys(one, 0.75)}
    found = differences(summarize([finished(row, 0, result([30.0], dci=dci)) for row, dci in rows.items()])["4agents"])
    assert set(found["genie"]["numbers"]) == {"psnr_mean", "below_ceiling", "ssim_mean", "kl"}
    assert {found["playslot"]["numbers"][name]["mean"] for name in one} == {-0.25}


def test_numbers_are_found_by_their_path():
    values = result([1.0, 2.0], binding={"attention": [0.5, 0.2]})
    assert number(values, ("rollout", "psnr", -1)) == 2.0
    assert number(values, ("binding", "attention", min)) == 0.2
    assert number(values, ("actions", "leak", "position", "action_mlp")) is None
    assert number(values, ("rollout", "lpips")) is None


def test_models_are_compared_at_equal_kl():
    def run(row, seed, kl, psnr):
        return finished(row, seed, result([psnr, psnr], actions={"kl": kl}))

    other = FLAM.varied("flam_learning_rate_0.003", "learning rate 0.003", {}, series="flam", axis="learning_rate")
    runs = [
        run("flam", 0, 12.0, 46.0),
        run("flam", 1, 8.0, 44.0),
        run("flam", 2, 50.0, 10.0),  # its other run is not finished: no curve yet
        run("flam_beta_0.01", 0, 2.0, 36.0),
        run("flam_beta_0.01", 1, 4.0, 40.0),
        run("adaworld_beta_0.02", 0, 5.0, 20.0),
        run("adaworld_beta_0.02", 1, 7.0, 24.0),
        run("adaworld", 0, 31.0, 42.0),
        run("genie_512_codes", 0, 4.2, 22.0),
        run(other, 0, 3.0, 30.0),  # differs in more than its bottleneck
    ]
    found = at_equal_information(summarize(runs)["4agents"])
    assert set(found) == {"adaworld_beta_0.02", "adaworld", "genie_512_codes", "flam_learning_rate_0.003"}
    # Seed 0 is 36 + (KL - 2) and seed 1 is 40 + (KL - 4): 39 and 41 at 5 nats, 41 and 43 at 7.
    near = found["adaworld_beta_0.02"]
    assert (near["kl"], near["psnr"], near["first"], near["out_of_reach"]) == (
        [5.0, 7.0],
        [20.0, 24.0],
        [40.0, 42.0],
        [],
    )
    assert near["means"]["difference"][0] == -19.0
    assert found["adaworld"] == {"kl": [], "psnr": [], "first": [], "out_of_reach": [31.0]}  # not extrapolated
    assert found["flam_learning_rate_0.003"]["out_of_reach"] == [3.0]  # seed 1's curve starts at 4


def test_without_a_second_bottleneck_nothing_is_compared_at_equal_kl():
    rows = ("flam", "adaworld", "adaworld_beta_0.02")
    assert at_equal_information(summarize([finished(row, 0, result([30.0])) for row in rows])["4agents"]) == {}


def test_rows_that_differ_on_an_axis_alone_are_a_series_in_the_order_of_the_axis():
    positions = {"flam": (8, 5e-3), "k_2": (2, 5e-3), "k_16": (16, 5e-3), "flam_beta_1": (8, 1.0), "genie": (8, 5e-3)}
    runs = [finished(row, 0, result([30.0]), factors=factors, beta=beta) for row, (factors, beta) in positions.items()]
    series = study(runs)["series"]["4agents"]
    assert series["factors"] == [["k_2", "flam", "k_16"]]
    assert series["beta"] == [["flam", "flam_beta_1"]]
    assert series["learning_rate"] == []
