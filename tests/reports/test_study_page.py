"""The page of a study, also of one whose runs are not all there."""

import re

from flam_jax.reports import study_tables
from flam_jax.reports.study_page import study_page
from tests.studies.results import finished, result, study


def circles(svg: str) -> int:
    """Dots of a chart, those of its legend included."""
    return len(re.findall(r'<use xlink:href="#m[0-9a-f]', svg))


def test_a_difference_is_in_bold_where_its_interval_leaves_out_zero():
    def runs(row, psnr, kl):
        return [finished(row, i, result([psnr + i], actions={"kl": kl + 10.0 * i})) for i in range(3)]

    found = study([*runs("flam", 40.0, 3.0), *runs("genie", 20.0, 4.0)])
    page = study_page(found)
    table = page[page.index("<h3>Differences") :]
    assert "<b>-20.00 ± 2.27</b>" in table
    assert "<td>1.00 ± 22.67</td>" in table
    assert found["differences"]["4agents"]["genie"]["less"] == "flam"
    assert "Differences" not in study_page(study(runs("flam", 40.0, 3.0)))


def test_the_papers_numbers_stand_beside_the_rows_of_as_many_factors():
    runs = [finished(row, 0, result([30.0])) for row in ("flam", "k_4", "k_2", "globally_coupled", "genie")]
    lines = study_tables.means(study(runs), "4agents", ["psnr_mean"]).rows
    assert [line[-1] for line in lines] == ["56.5", "56.5", "53.4", "56.3", None]
    assert len(study_tables.means(study(runs[-1:]), "4agents", ["psnr_mean"]).head) == 3


def test_lpips_and_fvd_are_compared_where_they_are_numbers():
    without = result([30.0])
    rollout = without["rollout"] | {"lpips": [0.12], "lpips_mean": 0.1234, "fvd": 321.06}
    runs = [finished("flam", 0, without | {"rollout": rollout}), finished("genie", 0, without)]
    page = study_page(study(runs))
    for text in ("LPIPS mean", "0.123", "FVD", "321.1"):
        assert text in page, text
    assert "FVD" not in study_page(study(runs[1:]))


def test_a_study_that_is_not_finished_says_what_is_missing():
    runs = [
        finished("flam", 0, result([30.0, 28.0])),
        finished("flam", 1, result([32.0, 30.0])),
        finished("genie", 0, result([25.0, 20.0])),
    ]
    page = study_page(study(runs, missing=["4agents/genie/seed1"]))
    for text in ("30.00 ± 12.71", "22.50", "-7.50", "56.5", "Not finished: 4agents/genie/seed1", "<svg"):
        assert text in page, text
    assert "http" not in page
    assert study_page(study([], missing=["4agents/flam/seed0"]))


def test_runs_of_another_tokenizer_are_told_apart_by_its_ceiling():
    for ceiling, told in ((50.0, False), (49.7, True)):
        other = result([30.0])
        other["rollout"]["ceiling_psnr_mean"] = ceiling
        text = study_tables.bounds(study([finished("flam", 0, result([30.0])), finished("genie", 0, other)]), "4agents")
        assert ("49.70 dB for some and 50.00 dB for others" in text) == told
        assert ("(ceiling): 50.00 dB" in text) != told


def test_prediction_is_shown_by_the_kl_of_the_actions():
    runs = [
        finished(row, 0, result([30.0 + kl], actions={"kl": kl}))
        for row, kl in (("flam", 5.0), ("flam_beta_0.01", 2.0), ("genie", 2.1))
    ]
    svg = study_tables.column_charts(study(runs), "4agents")["information"].svg
    assert circles(svg) == 3 + 2  # every run; FLAM, whatever β, and Genie


def test_prediction_is_shown_by_the_number_of_agents():
    runs = [finished(row, 0, result([30.0])) for row in ("flam", "genie", "adaworld")]
    assert study_tables.by_agents(study(runs)) is None
    runs += [finished(row, 0, result([30.0]), "8agents") for row in ("flam", "genie")]
    assert circles(study_tables.by_agents(study(runs)).svg) == 4 + 2  # what has one number of agents only is not shown
    assert "By the number of agents" in study_page(study(runs))


def test_prediction_is_shown_on_an_axis_where_rows_differ_on_it():
    factors = {"flam": 8, "k_2": 2, "k_16": 16, "genie": 8}
    runs = [
        finished(row, seed, result([30.0 + i + seed]), factors=count)
        for i, (row, count) in enumerate(factors.items())
        for seed in (0, 1)
    ]
    charts = study_tables.column_charts(study(runs), "4agents")
    assert set(charts) == {"steps", "factors"}
    assert circles(charts["factors"].svg) == 6 + 1  # two seeds each of three rows, and the one name


def test_the_page_shows_its_command_and_settings():
    runs = [finished(row, 0, result([30.0])) for row in ("flam", "genie")]
    settings = {"4agents": {"flam": {"dynamics.name": "flam"}, "genie": {"dynamics.name": "genie"}}}
    page = study_page(study(runs, settings=settings, command="python -m flam_jax.reproduce --study=multigrid"))
    assert page.count("dynamics.name") == 1
    for text in ("<td>genie</td>", "<code>python -m flam_jax.reproduce --study=multigrid</code>"):
        assert text in page, text
    assert "Settings other" not in study_page(study(runs))


def test_equal_kl_is_a_table_with_what_is_out_of_reach():
    kls = {"flam": (12.0, 8.0), "flam_beta_0.01": (2.0, 4.0), "adaworld": (5.0, 31.0)}
    runs = [
        finished(row, seed, result([40.0], actions={"kl": kl}))
        for row, both in kls.items()
        for seed, kl in enumerate(both)
    ]
    table = study_tables.at_equal_kl(study(runs), "4agents")
    assert [list(line) for line in table.rows] == [["AdaWorld", 1, "5.00", "40.00", "40.00 ± 0.00", "0.00", "31.00"]]
