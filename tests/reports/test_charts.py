"""Charts: points and ticks are where they should be, and the same numbers give the same bytes."""

import re
from xml.etree import ElementTree

import pytest

from flam_jax.reports.charts import Line, line_chart, round_ticks, x_ticks

BLUE = "#2563c9"


def points(svg: str, color: str = BLUE) -> list[tuple[float, float]]:
    """Corners of the line of a colour, which comes before its mark in the legend; downwards is positive."""
    path, *_ = re.findall(
        rf'<path d="([^"]*)"[^>]*style="fill: none; stroke(?:-dasharray: [^;]*; stroke)?: {color};', svg
    )
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", path)]


def size(svg: str) -> tuple[float, float]:
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups()
    return float(width), float(height)


def test_a_line_spans_the_chart_and_is_straight_where_its_values_are():
    svg = line_chart("t", [Line("a", [0, 5, 10], [0.0, 1.0, 2.0], BLUE)], "step").svg
    first, second, third = points(svg)
    width, height = size(svg)
    assert first[0] < 0.2 * width
    assert third[0] > 0.9 * width
    assert height > first[1] > second[1] > third[1] > 0
    assert first[1] - second[1] == pytest.approx(second[1] - third[1], abs=0.05)


def test_a_logarithmic_axis_leaves_out_what_has_no_logarithm():
    svg = line_chart("t", [Line("a", [0, 1, 2, 3], [0.0, 1.0, 10.0, 100.0], BLUE)], "x", logarithmic=True).svg
    first, second, third = points(svg)
    assert first[1] - second[1] == pytest.approx(second[1] - third[1], abs=0.05)
    svg = line_chart("t", [Line("a", [0, 1, 10, 100], [3, 1, 2, 3], BLUE)], "x", x_logarithmic=True).svg
    first, second, third = points(svg)
    assert second[0] - first[0] == pytest.approx(third[0] - second[0], abs=0.05)


def test_ticks_stand_at_the_values_where_there_is_room():
    assert x_ticks([2.0, 4.0, 8.0, 16.0], (2.0, 16.0), logarithmic=False) == [2, 4, 8, 16]
    assert x_ticks([2.0, 2.2, 8.0, 16.0], (2.0, 16.0), logarithmic=False) == [2.5, 5, 7.5, 10, 12.5, 15]
    assert len(x_ticks([float(x) for x in range(2000)], (0.0, 2000.0), logarithmic=False)) < 10
    betas = [1e-5, 1e-3, 1e-1]
    assert x_ticks(betas, (1e-5, 1e-1), logarithmic=True) == betas


def test_there_are_a_few_round_ticks_on_any_range():
    for low, high in ((0.0, 1.0), (21.3, 48.9), (1e-4, 2e-4), (-5.0, 1e5)):
        ticks = round_ticks(low, high, logarithmic=False)
        assert 3 <= len(ticks) <= 11
        assert all(low <= tick <= high for tick in ticks)
    for low, high in ((1e-6, 1.0), (2.0, 3.0), (1e-9, 1e9)):
        assert 2 <= len(round_ticks(low, high, logarithmic=True)) <= 10


def test_a_long_legend_makes_the_chart_higher():
    names = ["a model with a rather long name"] * 5
    lines = [Line(name, [0, 1], [0, i], BLUE) for i, name in enumerate(names)]
    (width, one), (same, five) = (size(line_chart("t", part, "x").svg) for part in (lines[:1], lines))
    assert width == same
    assert five > one


def test_a_wide_line_is_broader_than_one_in_front_of_it():
    lines = [Line("model", [0, 1], [2, 2], BLUE), Line("ceiling", [0, 1], [2, 2], "#2e9e5b", wide=True)]
    svg = line_chart("t", lines, "x").svg
    model, ceiling = (
        float(re.search(rf"stroke: {color};[^\"]*stroke-width: ([\d.]+)", svg)[1]) for color in (BLUE, "#2e9e5b")
    )
    assert ceiling > 2 * model
    assert svg.index("stroke: #2e9e5b") < svg.index(f"stroke: {BLUE}")  # what comes later is drawn above


def test_the_same_numbers_are_the_same_bytes_and_any_reader_can_parse_them():
    def chart():
        return line_chart("a < b & c", [Line("PSNR ± β", [0, 1, 2], [1.0, None, float("inf")], BLUE)], "x").svg

    assert chart() == chart()
    root = ElementTree.fromstring(chart())
    assert root.attrib["aria-label"] == "a < b & c"
    assert "metadata" not in chart()


def test_without_values_there_is_no_drawing():
    assert line_chart("t", [Line("a", [0], [None], BLUE)], "x").svg == ""
    assert line_chart("t", [], "x").svg == ""
