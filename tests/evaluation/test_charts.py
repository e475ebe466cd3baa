"""Charts are SVG text; their points and ticks are where they should be."""

import re

import pytest

from flam_jax.evaluation.charts import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, Line, line_chart


def points(svg: str) -> list[list[tuple[float, float]]]:
    lines = re.findall(r'polyline points="([^"]*)"', svg)
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in line.split())] for line in lines]


def test_a_line_spans_the_axes():
    (line,) = points(line_chart("t", [Line("a", [0, 5, 10], [0.0, 1.0, 2.0], "#000")], "step"))
    assert line[0][0] == LEFT
    assert line[-1][0] == WIDTH - RIGHT
    assert line[0][1] > line[1][1] > line[2][1]
    assert line[0][1] < HEIGHT - BOTTOM
    assert line[0][1] - line[1][1] == pytest.approx(line[1][1] - line[2][1], abs=0.2)


def test_a_logarithmic_axis_leaves_out_what_has_no_logarithm():
    (line,) = points(line_chart("t", [Line("a", [0, 1, 2, 3], [0.0, 1.0, 10.0, 100.0], "#000")], "x", logarithmic=True))
    assert len(line) == 3
    assert line[0][1] - line[1][1] == pytest.approx(line[1][1] - line[2][1], abs=0.2)


def ticks(svg: str) -> list[str]:
    return re.findall(rf'y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">([^<]*)<', svg)


def test_ticks_stand_at_the_values_where_there_is_room():
    def chart(values):
        return line_chart("t", [Line("a", values, values, "#000")], "factors")

    assert ticks(chart([2, 4, 8, 16])) == ["2", "4", "8", "16"]
    assert ticks(chart([2, 2.2, 8, 16])) == ["5", "10", "15"]
    assert len(ticks(chart(range(2000)))) < 10


def test_a_long_legend_takes_more_lines_and_stays_inside():
    names = ["a model with a rather long name"] * 5
    svg = line_chart("t", [Line(name, [0, 1], [0, i], "#000") for i, name in enumerate(names)], "x")
    height = float(re.search(r'viewBox="0 0 \d+ (\d+)"', svg)[1])
    found = [(float(x), float(y)) for x, y in re.findall(r'<rect x="(\d+)" y="(\d+)"', svg)]
    assert len({y for _, y in found}) > 1
    assert height > HEIGHT
    assert max(y for _, y in found) < height
    assert max(x for x, _ in found) < WIDTH / 2


def test_gaps_names_and_nothing():
    svg = line_chart("<t>", [Line("a & b", [0, 1, 2], [1.0, None, float("inf")], "#000")], "x")
    assert "&lt;t&gt;" in svg
    assert "a &amp; b" in svg
    assert len(points(svg)[0]) == 1
    assert "no values" in line_chart("t", [Line("a", [0], [None], "#000")], "x")
