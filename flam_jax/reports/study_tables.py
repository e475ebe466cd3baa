"""Tables and charts of a study, from the contents of its `results.json`; for its page and for documents."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flam_jax.reports.charts import CEILING_COLOR, COLORS, Chart, Line, line_chart
from flam_jax.reports.formats import with_interval
from flam_jax.reports.paper import reported_for_row
from flam_jax.reports.tables import Strong, Table

SAME_CEILING = 0.005  # dB: runs of one tokenizer and one split have the same ceiling but for rounding


def number_text(result: Mapping[str, Any], name: str, mean: float, half_width: float | None = None) -> str:
    """A mean of a number of the study, and its interval where there is one."""
    number = result["numbers"][name]
    shown = half_width if number["has_interval"] else None
    return with_interval(mean, shown, number["digits"], number["best_is_one"])


def means(result: Mapping[str, Any], column: str, names: Sequence[str] | None = None) -> Table:
    """Means with intervals, a line a row, the paper's figures beside those that it reports.

    Args:
      result: contents of `results.json`.
      column: key of the column.
      names: of the numbers that are shown; all by default. What no row has is left out.
    """
    rows = result["columns"][column]
    shown = [name for name in names or result["numbers"] if any(name in cell["numbers"] for cell in rows.values())]
    reported = {row: reported_for_row(column, row) for row in rows}
    head = ["", "seeds"]
    for name in shown:
        in_paper = any(name in numbers for numbers in reported.values())
        head += [result["numbers"][name]["label"], *(["the paper's"] if in_paper else [])]
    lines = []
    for row, cell in rows.items():
        line: list[Any] = [cell["name"], len(cell["seeds"])]
        for name in shown:
            entry = cell["numbers"].get(name)
            line.append(number_text(result, name, entry["mean"], entry["half_width"]) if entry else None)
            if any(name in numbers for numbers in reported.values()):
                value, digits = reported[row].get(name), 2 if result["numbers"][name]["best_is_one"] else 1
                line.append(value if value is None else f"{value:.{digits}f}")
        lines.append(line)
    return Table(head, lines)


def every_seed(result: Mapping[str, Any], column: str, names: Sequence[str]) -> Table:
    """The values of every seed, in their order."""
    rows = result["columns"][column]
    shown = [name for name in names if any(name in cell["numbers"] for cell in rows.values())]
    lines = []
    for cell in rows.values():
        values = [cell["numbers"].get(name, {}).get("values", []) for name in shown]
        texts = [
            ", ".join(number_text(result, name, v) for v in part) for name, part in zip(shown, values, strict=True)
        ]
        lines.append([cell["name"], ", ".join(map(str, cell["seeds"])), *(text or None for text in texts)])
    return Table(["", "seeds", *(result["numbers"][name]["label"] for name in shown)], lines)


def differences(result: Mapping[str, Any], column: str) -> Table | None:
    """Every row less the one that it is compared with; None where there is none."""
    rows, found = result["columns"][column], result["differences"][column]
    shown = [name for name in result["numbers"] if any(name in entry["numbers"] for entry in found.values())]
    if not shown:
        return None
    lines = []
    for row, entry in found.items():
        line: list[Any] = [rows[row]["name"], rows[entry["less"]]["name"]]
        for name in shown:
            number = entry["numbers"].get(name)
            line.append(number and _apart(result, name, number["mean"], number["half_width"]))
        lines.append(line)
    return Table(["", "less", *(result["numbers"][name]["label"] for name in shown)], lines)


def _apart(result: Mapping[str, Any], name: str, mean: float, half: float | None) -> Strong | str:
    """A difference, in bold where its interval leaves out zero."""
    text = with_interval(mean, half, result["numbers"][name]["digits"])
    return Strong(text) if half is not None and abs(mean) > half else text


def at_equal_kl(result: Mapping[str, Any], column: str) -> Table | None:
    """PSNR at equal KL; None where the first row has one bottleneck only."""
    rows, found = result["columns"][column], result["at_equal_kl"][column]
    if not found:
        return None
    names, lines = {"kl": "kl", "psnr": "psnr_mean", "first": "psnr_mean"}, []
    for row, entry in found.items():
        line: list[Any] = [rows[row]["name"], len(entry["kl"])]
        if "means" in entry:
            line += [number_text(result, name, *entry["means"][key]) for key, name in names.items()]
            line.append(_apart(result, "psnr_mean", *entry["means"]["difference"]))
        else:
            line += [None] * 4
        beyond = ", ".join(number_text(result, "kl", kl) for kl in sorted(entry["out_of_reach"]))
        lines.append([*line, beyond or None])
    first = next(iter(rows.values()))["name"]
    head = ["", "runs", "KL, nats a frame", "PSNR mean", f"{first} at the same KL", "difference", "KL out of reach"]
    return Table(head, lines)


def settings(result: Mapping[str, Any], column: str) -> Table | None:
    """The fields in which rows are not as the experiment has them; None where there are none."""
    rows, found = result["columns"][column], result["settings"].get(column, {})
    names = list(dict.fromkeys(name for row in rows for name in found.get(row, {})))
    if not names:
        return None
    lines = [[rows[row]["name"], *(found.get(row, {}).get(name) for name in names)] for row in rows]
    return Table(["", *names], [[cell if cell is None else str(cell) for cell in line] for line in lines])


def bounds(result: Mapping[str, Any], column: str) -> str:
    """Ceiling and floors of a column in words, and whether its runs share a tokenizer; "" where they are not known."""
    found: dict[str, list[float]] = {}
    for cell in result["columns"][column].values():
        for name in ("ceiling_psnr_mean", "median_psnr_mean", "copy_last_psnr_mean"):
            found.setdefault(name, []).extend(cell["numbers"].get(name, {}).get("values", []))
    ceilings = found["ceiling_psnr_mean"]
    if not ceilings:
        return ""
    low, high = min(ceilings), max(ceilings)
    if high - low >= SAME_CEILING:
        text = (
            f"The runs do not share a tokenizer: its ceiling is {low:.2f} dB for some and {high:.2f} dB for others, "
            "which is part of every difference in PSNR."
        )
    else:
        text = f"PSNR of the tokenizer's reconstruction (ceiling): {high:.2f} dB."
    floors = [
        f"{label} {min(found[name]):.2f} dB"
        for name, label in (("median_psnr_mean", "median frame"), ("copy_last_psnr_mean", "last frame repeated"))
        if found[name]
    ]
    return f"{text} Floors: {', '.join(floors)}." if floors else text


def column_charts(result: Mapping[str, Any], column: str) -> dict[str, Chart]:
    """The charts of a column by name: `steps`, `information`, and one for every axis on which its rows differ."""
    rows, series = result["columns"][column], result["series"][column]
    found = {"steps": _by_step(rows)}
    if any(
        len({kl for key in keys for kl in rows[key]["numbers"]["kl"]["values"]}) > 1 for keys in series["bottleneck"]
    ):
        found["information"] = _by_information(rows, series["bottleneck"])
    for axis, described in result["axes"].items():
        models = [
            (
                series_name(rows, keys),
                _color(rows, keys),
                [(rows[key]["position"][axis], rows[key]["numbers"]) for key in keys],
            )
            for keys in series[axis]
        ]
        if models:
            args = (described["title"], models, described["x_name"], described["logarithmic"])
            found[axis] = _below_the_ceiling(*args)
    return found


def by_agents(result: Mapping[str, Any]) -> Chart | None:
    """Mean PSNR by the number of agents; None where the columns do not differ in it."""
    counts, columns = result["agents"], result["columns"]
    if len(counts) < 2:
        return None
    models = []
    first = columns[next(iter(counts))]
    for row, cell in first.items():
        points = [
            (count, columns[column][row]["numbers"]) for column, count in counts.items() if row in columns[column]
        ]
        if len(points) > 1:
            models.append((cell["name"], _color(first, [row]), points))
    return _below_the_ceiling("PSNR mean, dB, by the number of agents", models, "agents", False) if models else None


def series_name(rows: Mapping[str, Any], keys: Sequence[str]) -> str:
    """What a legend calls a series: the row that starts it, or its model where that row is not there."""
    series = rows[keys[0]]["series"]
    return rows[series]["name"] if series in keys else rows[keys[0]]["model" if len(keys) > 1 else "name"]


def _color(rows: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The colour of a series, which is that of the row that starts it."""
    series = rows[keys[0]]["series"]
    return COLORS[list(rows).index(series if series in keys else keys[0]) % len(COLORS)]


def _by_step(rows: Mapping[str, Any]) -> Chart:
    """PSNR by step, a line a seed; a dashed line once there are more rows than colours."""
    lines = []
    for number, cell in enumerate(rows.values()):
        for index, psnr in enumerate(cell["psnr"]):
            name, dashed = cell["name"] if index == 0 else "", number >= len(COLORS)
            color = COLORS[number % len(COLORS)]
            lines.append(Line(name, range(1, len(psnr) + 1), psnr, color, dashed=dashed))
    ceilings = {tuple(ceiling) for cell in rows.values() for ceiling in cell["ceiling_psnr"]}
    for index, ceiling in enumerate(sorted(ceilings)):
        name = "" if index else "tokenizer (ceiling)"
        lines.append(Line(name, range(1, len(ceiling) + 1), ceiling, CEILING_COLOR, wide=True))
    return line_chart("PSNR, dB, by step, every seed", lines, "step")


def _by_information(rows: Mapping[str, Any], series: Sequence[Sequence[str]]) -> Chart:
    """Mean PSNR by KL: every seed a dot, the rows of a series joined at their means."""
    lines = []
    for keys in series:
        color = _color(rows, keys)
        found = sorted((rows[key]["numbers"] for key in keys), key=lambda numbers: numbers["kl"]["mean"])
        kl, psnr = ([value for numbers in found for value in numbers[name]["values"]] for name in ("kl", "psnr_mean"))
        lines.append(Line(series_name(rows, keys), kl, psnr, color, joined=False))
        if len(found) > 1:
            kl, psnr = ([numbers[name]["mean"] for numbers in found] for name in ("kl", "psnr_mean"))
            lines.append(Line("", kl, psnr, color))
    return line_chart("PSNR mean, dB, by the KL of the actions", lines, "KL, nats a frame")


def _below_the_ceiling(
    title: str,
    models: Sequence[tuple[str, str, Sequence[tuple[float | int, Mapping[str, Any]]]]],
    x_name: str,
    logarithmic: bool,
) -> Chart:
    """Mean PSNR by x, every seed a dot and the means joined, below the tokenizer's.

    Args:
      title: of the chart.
      models: name, colour, and x and the numbers of each of its rows.
      x_name: shown below the axis.
      logarithmic: scale of the horizontal axis.
    """
    lines, ceilings = [], {}
    for model, color, points in models:
        seeds = [(x, value) for x, numbers in points for value in numbers["psnr_mean"]["values"]]
        lines.append(Line(model, [x for x, _ in seeds], [y for _, y in seeds], color, joined=False))
        lines.append(Line("", [x for x, _ in points], [numbers["psnr_mean"]["mean"] for _, numbers in points], color))
        for x, numbers in points:
            ceilings[x] = max(numbers["ceiling_psnr_mean"]["mean"], ceilings.get(x, -math.inf))
    ceilings = dict(sorted(ceilings.items()))
    lines.append(Line("tokenizer (ceiling)", list(ceilings), list(ceilings.values()), CEILING_COLOR, wide=True))
    return line_chart(title, lines, x_name, x_logarithmic=logarithmic)


__all__ = [
    "at_equal_kl",
    "bounds",
    "by_agents",
    "column_charts",
    "differences",
    "every_seed",
    "means",
    "number_text",
    "series_name",
    "settings",
]
