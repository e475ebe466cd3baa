"""Line charts as SVG. The same numbers give the same bytes, and no font of the reader's system is needed."""

import io
import itertools
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flam_jax.reports.formats import short_power

WIDTH, HEIGHT = 4.8, 2.9  # inches, of a chart whose legend takes one line; each further line adds LEGEND_LINE
LEFT, RIGHT, TOP, BOTTOM = 0.62, 0.14, 0.34, 0.74
LEGEND_LINE = 0.178
TICK_ROOM = 0.34  # inches between two ticks that stand at values themselves
LETTER, LEGEND_KEY = 0.074, 0.4  # estimates, in inches
INK, FAINT = "#4b5563", "#e2e5ea"  # pages replace them by colours of their theme

COLORS = (
    *("#2563c9", "#d97706", "#2e9e5b", "#c23b4a", "#8457c9", "#6b7280"),
    *("#0f8b8d", "#d0559f", "#8a8f1c", "#9a6234", "#5aa9e6", "#b08cf0"),
)
CEILING_COLOR = "#9aa3af"


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
      name: in the legend; "" for further lines of the name before.
      x, y: the points; None and infinities leave a gap.
      color: of the line, `#rrggbb`.
      dashed: for what a line is compared with.
      wide: a broad pale line, which stays visible below another one that lies on it.
      dots: marks the points.
      joined: False for dots alone.
    """

    name: str
    x: Sequence[float | int]
    y: Sequence[float | int | None]
    color: str
    dashed: bool = False
    wide: bool = False
    dots: bool = False
    joined: bool = True


@dataclass(frozen=True)
class Chart:
    """A chart: its title, and an SVG document; "" where there is nothing to draw."""

    title: str
    svg: str


def line_chart(
    title: str, lines: Sequence[Line], x_name: str, logarithmic: bool = False, x_logarithmic: bool = False
) -> Chart:
    """Draws lines with axes, ticks and a legend.

    Args:
      title: shown above the chart.
      lines: what is drawn, the first in front; lines without any value are left out.
      x_name: shown below the axis.
      logarithmic: scale of the vertical axis; values that are not positive are left out.
      x_logarithmic: scale of the horizontal axis, likewise.

    Returns:
      The chart.
    """
    points = [(line, _points(line, logarithmic, x_logarithmic)) for line in lines]
    drawn = [(line, part) for line, part in points if any(not math.isnan(y) for _, y in part)]
    if not drawn:
        return Chart(title, "")
    import matplotlib as mpl  # slow to import
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    names = [_wrapped(line.name) for line, _ in drawn if line.name]
    columns = max(1, int((WIDTH - LEFT) / (LEGEND_KEY + LETTER * max(map(len, names), default=0))))
    legend_lines = sum(name.count("\n") for name in names) + math.ceil(len(names) / columns)
    bottom = BOTTOM + LEGEND_LINE * max(0, legend_lines - 1)
    height = HEIGHT + LEGEND_LINE * max(0, legend_lines - 1)
    with mpl.rc_context({"svg.hashsalt": "flam_jax", "svg.fonttype": "path", "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(WIDTH, height))
        box = (LEFT / WIDTH, bottom / height, (WIDTH - LEFT - RIGHT) / WIDTH, (height - bottom - TOP) / height)
        axes = figure.add_axes(box)
        # A place of its own for the title: to find one takes a tenth of the time of a chart.
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK, y=1.03, pad=0)
        axes.set_xscale("log" if x_logarithmic else "linear")
        axes.set_yscale("log" if logarithmic else "linear")
        axes.margins(x=0.02, y=0.06)
        for order, (line, part) in enumerate(drawn):
            _draw(axes, line, part, 2 + 1 / (1 + order))
        xs = sorted({x for _, part in drawn for x, y in part if not math.isnan(y)})
        ys = [y for _, part in drawn for _, y in part if not math.isnan(y)]
        if min(ys) == max(ys):
            axes.set_ylim(*((ys[0] / 2, ys[0] * 2) if logarithmic else (ys[0] - 0.5, ys[0] + 0.5)))
        axes.xaxis.set_major_locator(FixedLocator(x_ticks(xs, axes.get_xlim(), x_logarithmic)))
        axes.yaxis.set_major_locator(FixedLocator(round_ticks(*axes.get_ylim(), logarithmic)))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
        axes.set_xlabel(x_name, fontsize=9, color=INK)
        axes.tick_params(colors=INK, labelsize=9, length=0)
        axes.grid(visible=True, axis="y", color=FAINT, linewidth=0.8)
        axes.set_axisbelow(True)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(INK)
        if names:
            figure.legend(
                loc="lower left",
                bbox_to_anchor=(LEFT / WIDTH, 0),
                ncols=columns,
                frameon=False,
                fontsize=9,
                labelcolor=INK,
                handlelength=1.3,
                handletextpad=0.5,
                columnspacing=1.2,
                borderaxespad=0.2,
                borderpad=0,
            )
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return Chart(title, _compact(file.getvalue(), title))


def _wrapped(name: str) -> str:
    """A name in lines that fit below the chart."""
    return "\n".join(textwrap.wrap(name, int((WIDTH - LEFT - LEGEND_KEY) / LETTER)))


def _draw(axes: Any, line: Line, part: Sequence[tuple[float, float]], order: float) -> None:
    alone = sum(not math.isnan(y) for _, y in part) == 1
    axes.plot(
        [x for x, _ in part],
        [y for _, y in part],
        color=line.color,
        label=_wrapped(line.name) or "_",
        zorder=order,
        linestyle="none" if not line.joined else "--" if line.dashed else "-",
        linewidth=6 if line.wide else 1.5,
        alpha=0.4 if line.wide else 1.0,
        solid_capstyle="butt",
        marker="o" if line.dots or alone or not line.joined else "",
        markersize=3.6,
        markeredgewidth=0,
    )


def _points(line: Line, logarithmic: bool, x_logarithmic: bool) -> list[tuple[float, float]]:
    """Points in order; a gap has no number as its y. What has no place on the horizontal axis is left out."""
    found = []
    for x, y in zip(line.x, line.y, strict=True):
        shown = y is not None and math.isfinite(y) and (y > 0 or not logarithmic)
        if x > 0 or not x_logarithmic:
            found.append((float(x), float(y) if shown and y is not None else math.nan))
    return found


def x_ticks(values: Sequence[float], limits: tuple[float, float], logarithmic: bool) -> list[float]:
    """The values themselves where there is room for them, else round ones."""
    low, high = (math.log10(limit) if logarithmic else limit for limit in limits)
    places = [(math.log10(value) if logarithmic else value) / (high - low) * (WIDTH - LEFT - RIGHT) for value in values]
    if all(right - left >= TICK_ROOM for left, right in itertools.pairwise(places)):
        return list(values)
    return round_ticks(*limits, logarithmic)


def round_ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    """About five round values in the range."""
    if logarithmic:
        exponents = math.log10(low), math.log10(high)
        powers = range(math.floor(exponents[0]), math.ceil(exponents[1]) + 1)
        digits = (1, 2, 5) if exponents[1] - exponents[0] < 2.2 else (1,)
        inside = [v for v in (digit * 10.0**power for power in powers for digit in digits) if low <= v <= high]
        inside = inside[:: math.ceil(len(inside) / 8) or 1]
        return inside if len(inside) >= 2 else [low, high]
    rough = (high - low) / 6
    scale = 10 ** math.floor(math.log10(rough))
    step = next(factor * scale for factor in (1, 2, 2.5, 5, 10) if factor * scale >= rough * 0.999)
    return [float(i * step) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    if 0 < abs(value) < 0.01:
        return short_power(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _compact(svg: str, title: str) -> str:
    """The document without what a page does not need: declarations, comments, names of groups, digits."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->\s*|<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="(?:figure|axes|patch|matplotlib\.axis|xtick|ytick|line2d|text|legend)_\d+"', "", svg)
    svg = re.sub(r' (?:d|x|y)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found.group()), svg)
    svg = re.sub(r"\s*\n\s*", " ", svg)
    label = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).strip() + "\n"


__all__ = ["CEILING_COLOR", "COLORS", "FAINT", "INK", "Chart", "Line", "line_chart", "round_ticks", "x_ticks"]
