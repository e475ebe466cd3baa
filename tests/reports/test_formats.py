"""Numbers as text, and tables as Markdown."""

from flam_jax.reports.formats import bounded, count_share, duration, share, with_interval
from flam_jax.reports.tables import Strong, Table


def test_what_is_below_one_is_never_shown_as_one():
    assert [share(value) for value in (1.0, 0.9996, 0.9994, 0.9949, 0.3337, 0.0)] == [
        *("100.0 %", "99.9 %", "99.9 %", "99.5 %", "33.4 %", "0.0 %")
    ]
    assert [bounded(value, 2) for value in (1.0, 0.9996, 0.994, 0.126)] == ["1.00", "0.99", "0.99", "0.13"]
    assert with_interval(0.9996, 0.0001, 3, best_is_one=True) == "0.999 ± 0.000"
    assert share(None) == "–"


def test_an_error_above_zero_is_never_shown_as_zero():
    assert [count_share(value) for value in (0.0, 0.0002, 0.002)] == ["0.0 %", "< 0.1 %", "0.2 %"]


def test_intervals_and_signs():
    assert with_interval(1234.567, 8.9, 1) == "1,234.6 ± 8.9"
    assert with_interval(-7.5, None, 2) == "-7.50"
    assert with_interval(-0.001, 0.2, 2) == "0.00 ± 0.20"


def test_durations():
    assert [duration(seconds) for seconds in (12.3, 205, 9000)] == ["12 s", "3.4 min", "2.5 h"]


def test_a_table_as_markdown():
    table = Table(["a|b", "n"], [["x", None], ["y", Strong("2")], ["z", True]])
    assert table.markdown().splitlines() == [
        "| a\\|b | n |",
        "| --- | ---: |",
        "| x | – |",
        "| y | **2** |",
        "| z | yes |",
    ]
