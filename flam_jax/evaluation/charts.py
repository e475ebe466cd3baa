"""Line charts as SVG text: sharp at any size, and a few kilobytes each inside the report."""

import html
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 460, 260  # of a chart whose legend takes one line; each more adds LEGEND_LINE
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 30, 58
LEGEND_LINE = 15
TICK_ROOM = 26  # between two ticks that stand at values themselves
INK, FAINT = "#444", "#e6e6e6"


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    name: str
    x: Sequence[float | int]
    y: Sequence[float | int | None]  # None and infinities leave a gap
    color: str
    dashed: bool = False
    dots: bool = False
    joined: bool = True  # else dots alone


def line_chart(title: str, lines: Sequence[Line], x_name: str, logarithmic: bool = False) -> str:
    """An SVG element with axes, ticks and a legend.

    Args:
      title: shown above the chart.
      lines: what is drawn; lines without any value are left out.
      x_name: shown below the axis.
      logarithmic: scale of the vertical axis; values that are not positive are left out.

    Returns:
      SVG; a short note instead when there is nothing to draw.
    """
    points = [_points(line, logarithmic) for line in lines]
    drawn = [(line, part) for line, part in zip(lines, points, strict=True) if part]
    if not drawn:
        return f'<p class="note">{html.escape(title)}: no values.</p>'
    xs = [x for _, part in drawn for x, _ in part]
    ys = [math.log10(y) if logarithmic else y for _, part in drawn for _, y in part]
    x_low, x_high = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1
    y_low, y_high = min(ys), max(ys)
    room = 0.06 * (y_high - y_low) or 0.5
    y_low, y_high = y_low - room, y_high + room

    def place_x(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def place_y(y: float) -> float:
        y = math.log10(y) if logarithmic else y
        return HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    legend, legend_lines = _legend([line for line, _ in drawn if line.name])  # others are more curves of a name
    height = HEIGHT + LEGEND_LINE * (legend_lines - 1)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(title)}">',
        f'<text x="{LEFT}" y="14" class="title">{html.escape(title)}</text>',
    ]
    for value in _ticks(y_low, y_high, logarithmic):
        y = place_y(value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{FAINT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>')
    values = sorted(set(xs))
    places = [place_x(value) for value in values]
    if any(right - left < TICK_ROOM for left, right in itertools.pairwise(places)):
        values = _ticks(x_low, x_high, False)
    for value in values:
        x = place_x(value)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{_number(value)}</text>')
    parts.append(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}" stroke="{INK}"/>'
    )
    for line, part in drawn:
        path = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in part)
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        if line.joined:
            parts.append(f'<polyline points="{path}" fill="none" stroke="{line.color}" stroke-width="1.8"{dash}/>')
        if line.dots or not line.joined or len(part) == 1:
            parts += [
                f'<circle cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="2.6" fill="{line.color}"/>' for x, y in part
            ]
    middle, below = (LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 30
    parts.append(f'<text x="{middle:.0f}" y="{below}" text-anchor="middle">{html.escape(x_name)} →</text>')
    return "".join([*parts, *legend]) + "</svg>"


def _legend(lines: Sequence[Line]) -> tuple[list[str], int]:
    """Names beside their colours, on as many lines as they need; and how many those are."""
    parts, x, y, count = [], float(LEFT), HEIGHT - 11, 1
    for line in lines:
        width = 30 + 6.2 * len(line.name)
        if x > LEFT and x + width > WIDTH:
            x, y, count = float(LEFT), y + LEGEND_LINE, count + 1
        parts.append(f'<rect x="{x:.0f}" y="{y - 6}" width="12" height="4" fill="{line.color}"/>')
        parts.append(f'<text x="{x + 16:.0f}" y="{y}">{html.escape(line.name)}</text>')
        x += width
    return parts, count


def _points(line: Line, logarithmic: bool) -> list[tuple[float, float]]:
    pairs = [(float(x), float(y)) for x, y in zip(line.x, line.y, strict=True) if y is not None]
    return [(x, y) for x, y in pairs if math.isfinite(y) and (y > 0 or not logarithmic)]


def _ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    """About five round values in the range, which for a logarithmic axis is given in exponents."""
    if logarithmic:
        powers = range(math.floor(low), math.ceil(high) + 1)
        digits = (1, 2, 5) if high - low < 2.2 else (1,)
        values = [digit * 10.0**power for power in powers for digit in digits]
        inside = [value for value in values if low <= math.log10(value) <= high]
        return inside if len(inside) >= 2 else [10**low, 10**high]
    rough = (high - low) / 5
    scale = 10 ** math.floor(math.log10(rough))
    step = next(factor * scale for factor in (1, 2, 5, 10) if factor * scale >= rough)
    return [float(i * step) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


__all__ = ["Line", "line_chart"]
