"""The page of a study, also of one whose runs are not all there."""

import json

import pytest

from flam_jax.evaluation.comparison import at_equal_information, summarize
from flam_jax.evaluation.comparison_page import write_results
from tests.evaluation.results import result


def test_a_difference_is_in_bold_where_its_interval_leaves_out_zero(tmp_path):
    def runs(row, psnr, kl):
        return [("4agents", row, i, result([psnr + i], actions={"kl": kl + 10.0 * i})) for i in range(3)]

    columns = summarize([*runs("FLAM", 40.0, 3.0), *runs("Genie", 20.0, 4.0)])
    page = write_results(tmp_path, "multigrid", "cpu", columns, []).read_text()
    table = page[page.index("<h3>Differences") :]
    assert "<b>-20.00 ± 2.27</b>" in table
    assert "<td>1.00 ± 22.67</td>" in table
    saved = json.loads((tmp_path / "results.json").read_text())["differences"]["4agents"]["Genie"]
    assert saved["less"] == "FLAM"
    assert saved["numbers"]["psnr_mean"] == {"mean": -20.0, "half_width": pytest.approx(2.267, abs=1e-3)}
    alone = write_results(tmp_path, "multigrid", "cpu", summarize(runs("FLAM", 40.0, 3.0)), []).read_text()
    assert "Differences" not in alone


def test_the_papers_four_factors_stand_beside_four_here(tmp_path):
    columns = summarize([("4agents", row, 0, result([30.0])) for row in ("FLAM", "K = 4", "globally coupled, K = 4")])
    page = write_results(tmp_path, "ablations", "cpu", columns, []).read_text()
    table = page[page.index("<table") : page.index("</table>")]
    assert [table.count(f"<td>{psnr}</td>") for psnr in ("56.5", "56.3")] == [2, 1]


def test_lpips_and_fvd_are_compared_where_they_are_numbers(tmp_path):
    without = result([30.0])
    rollout = without["rollout"] | {"lpips": [0.12], "lpips_mean": 0.1234, "fvd": 321.06}
    columns = summarize([("4agents", "FLAM", 0, without | {"rollout": rollout}), ("4agents", "Genie", 0, without)])
    assert columns["4agents"]["FLAM"]["numbers"]["fvd"]["values"] == [321.06]
    assert {"fvd", "lpips_mean"}.isdisjoint(columns["4agents"]["Genie"]["numbers"])
    page = write_results(tmp_path, "multigrid", "debug", columns, []).read_text()
    for text in ("LPIPS mean", "0.123", "FVD", "321.1"):
        assert text in page, text
    columns = summarize([("4agents", "FLAM", 0, without)])
    assert "FVD" not in write_results(tmp_path, "multigrid", "debug", columns, []).read_text()


def test_results_of_what_is_finished(tmp_path):
    runs = [
        ("4agents", "FLAM", 0, result([30.0, 28.0])),
        ("4agents", "FLAM", 1, result([32.0, 30.0])),
        ("4agents", "Genie", 0, result([25.0, 20.0])),
    ]
    columns = summarize(runs)
    assert columns["4agents"]["FLAM"]["seeds"] == [0, 1]
    assert columns["4agents"]["FLAM"]["numbers"]["psnr_last"]["mean"] == 29.0
    assert columns["4agents"]["Genie"]["numbers"]["psnr_mean"]["half_width"] is None
    page = write_results(tmp_path, "multigrid", "debug", columns, ["4agents/genie/seed1"]).read_text()
    assert json.loads((tmp_path / "results.json").read_text())["missing"] == ["4agents/genie/seed1"]
    for text in ("30.00 ± 12.71", "22.50", "-7.50", "56.5", "Not finished: 4agents/genie/seed1", "<svg"):
        assert text in page, text
    assert "http" not in page


def test_runs_of_another_tokenizer_are_told_apart_by_its_ceiling(tmp_path):
    for ceiling, told in ((50.0, False), (49.7, True)):
        other = result([30.0])
        other["rollout"]["ceiling_psnr_mean"] = ceiling
        columns = summarize([("a", "FLAM", 0, result([30.0])), ("a", "Genie", 0, other)])
        page = write_results(tmp_path, "multigrid", "cpu", columns, []).read_text()
        assert ("not of one tokenizer" in page) == told
        assert ("49.70 dB for some and 50.00 dB for others" in page) == told


def test_prediction_is_shown_by_what_the_actions_say_and_by_the_number_of_agents(tmp_path):
    def run(column, row, kl, psnr):
        return (column, row, 0, result([psnr, psnr], actions={"kl": kl}))

    runs = [run("4agents", row, kl, 30.0 + kl) for row, kl in (("FLAM", 5.0), ("FLAM, β = 0.02", 2.0), ("Genie", 2.1))]
    page = write_results(tmp_path, "information", "cpu", summarize(runs), []).read_text()
    assert "By the number of agents" not in page
    chart = page[page.index("by what the actions say") :]
    assert chart.count("<circle") == 4  # three runs, and the mean of the one row that stands alone
    assert chart.count('<rect x="') == 2  # FLAM and Genie, whatever β

    runs += [run("8agents", "FLAM", 5.0, 33.0), run("8agents", "Genie", 2.0, 20.0)]
    page = write_results(tmp_path, "agents", "cpu", summarize(runs), []).read_text()
    chart = page[page.index("By the number of agents") : page.index("<h2>4agents")]
    assert chart.count("<circle") == 4  # what has one number of agents only is not shown
    assert "agents →" in chart
    assert chart.count('<rect x="') == 3  # FLAM, Genie and the tokenizer


def test_prediction_is_shown_by_a_setting_where_rows_differ_in_nothing_else(tmp_path):
    own = {"dynamics.name": "flam", "dynamics.num_factors": 8, "dynamics.kl_weight": 0.005, "steps": 2000}
    rows = {
        "FLAM": own,
        "K = 2": own | {"dynamics.num_factors": 2},
        "K = 16": own | {"dynamics.num_factors": 16},
        "FLAM, β = 1": own | {"dynamics.kl_weight": 1.0},
        "Genie": own | {"dynamics.name": "genie", "dynamics.num_factors": 4},
        "FLAM in less time": own | {"dynamics.num_factors": 4, "steps": 500},
    }
    settings = {
        "4agents": {
            row: {"dynamics.kl_weight_final": values["dynamics.kl_weight"]} | values for row, values in rows.items()
        }
    }
    runs = [("4agents", row, seed, result([30.0 + i + seed])) for i, row in enumerate(rows) for seed in (0, 1)]
    page = write_results(tmp_path, "sweeps", "cpu", summarize(runs), [], settings).read_text()

    def chart(title):
        (found,) = [part for part in page.split("<svg")[1:] if f'aria-label="PSNR mean, dB, by {title}"' in part]
        return found[: found.index("</svg>")]

    assert chart("the number of factors").count("<circle") == 6  # two seeds each of FLAM, K = 2 and K = 16
    assert chart("the number of factors").count('<rect x="') == 2  # one line, and the tokenizer's
    assert "FLAM" in chart("the number of factors")
    assert "factors →" in chart("the number of factors")
    assert chart("β").count("<circle") == 4
    assert "by the learning rate" not in page  # no row has another one
    page = write_results(tmp_path, "sweeps", "cpu", summarize(runs), []).read_text()
    assert "by the number of factors" not in page


def test_the_page_says_with_which_settings_it_was_made(tmp_path):
    columns = summarize([("4agents", row, 0, result([30.0])) for row in ("FLAM", "Genie")])
    settings = {"4agents": {"FLAM": {"dynamics.name": "flam"}, "Genie": {"dynamics.name": "genie"}}}
    changes = ["--config.dynamics.training.num_steps=7"]
    page = write_results(tmp_path, "multigrid", "cpu", columns, [], settings, changes).read_text()
    assert page.count("dynamics.name") == 1
    for text in ("<td>genie</td>", "--study=multigrid --preset=cpu --config.dynamics.training.num_steps=7 --workdir"):
        assert text in page, text
    assert json.loads((tmp_path / "results.json").read_text())["settings"] == settings
    assert "Settings other" not in write_results(tmp_path, "multigrid", "cpu", columns, []).read_text()


def test_models_are_compared_where_their_actions_say_the_same(tmp_path):
    def run(row, seed, kl, psnr):
        return ("4agents", row, seed, result([psnr, psnr], actions={"kl": kl}))

    runs = [
        run("FLAM", 0, 12.0, 46.0),
        run("FLAM", 1, 8.0, 44.0),
        run("FLAM", 2, 50.0, 10.0),  # its other run is not finished: no curve yet
        run("FLAM, β = 0.02", 0, 2.0, 36.0),
        run("FLAM, β = 0.02", 1, 4.0, 40.0),
        run("AdaWorld, β = 0.02", 0, 5.0, 20.0),
        run("AdaWorld, β = 0.02", 1, 7.0, 24.0),
        run("AdaWorld", 0, 31.0, 42.0),
        run("Genie, 64 codes", 0, 4.2, 22.0),
        run("FLAM, learning rate 0.003", 0, 3.0, 30.0),  # another model's run as far as this is concerned
    ]
    found = at_equal_information(summarize(runs)["4agents"])
    assert set(found) == {"AdaWorld, β = 0.02", "AdaWorld", "Genie, 64 codes", "FLAM, learning rate 0.003"}
    # Seed 0 says 36 + (KL - 2) and seed 1 says 40 + (KL - 4): 39 and 41 at 5 nats, 41 and 43 at 7.
    assert found["AdaWorld, β = 0.02"] == {
        "kl": [5.0, 7.0],
        "psnr": [20.0, 24.0],
        "first": [40.0, 42.0],
        "out_of_reach": [],
    }
    assert found["AdaWorld"] == {"kl": [], "psnr": [], "first": [], "out_of_reach": [31.0]}  # said, not extrapolated
    assert found["FLAM, learning rate 0.003"]["out_of_reach"] == [3.0]  # seed 1's curve starts at 4
    page = write_results(tmp_path, "information", "cpu", summarize(runs), []).read_text()
    table = page[page.index("PSNR mean at equal KL") :]
    for text in ("22.00 ± 25.41", "41.00 ± 12.71", "-19.00", "31.00"):
        assert text in table, text
    saved = json.loads((tmp_path / "results.json").read_text())["at_equal_kl"]
    assert saved["4agents"]["AdaWorld, β = 0.02"]["first"] == [40.0, 42.0]


def test_without_a_second_bottleneck_nothing_is_compared_at_equal_kl(tmp_path):
    runs = [("4agents", row, 0, result([30.0], actions={"kl": 3.0})) for row in ("FLAM", "AdaWorld", "AdaWorld, β = 1")]
    assert at_equal_information(summarize(runs)["4agents"]) == {}
    assert "at equal KL" not in write_results(tmp_path, "multigrid", "cpu", summarize(runs), []).read_text()
