"""The page of a study, and `results.json` beside it."""

import dataclasses
import html
import itertools
import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flam_jax.checkpoints import write_text
from flam_jax.evaluation.charts import Line, line_chart
from flam_jax.evaluation.comparison import (
    CLAIMED,
    CONFIDENCE,
    NUMBERS,
    at_equal_information,
    by_bottleneck,
    difference,
    differences,
    interval,
)
from flam_jax.evaluation.report import Markup, table
from flam_jax.evaluation.style import STYLE

# Of the rows of a column: the fields in which one of them is not as the experiment has it, and their values.
Settings = Mapping[str, Mapping[str, Any]]

SAME_CEILING = 0.005  # dB: runs of one tokenizer and one split have the same ceiling but for rounding
COLORS = (
    *("#2563c9", "#c77d11", "#2e9e5b", "#b3363e", "#7a4fbf", "#4b5563"),
    *("#0f8b8d", "#d0559f", "#8a8f1c", "#8b5a2b", "#5aa9e6", "#111111"),
)
CEILING_COLOR = "#9aa3af"
# What the paper reports, by column and row of the tables (PAPER: protocol and results). Its sizes and corpora are its
# own. It has four factors for four agents, so that its numbers stand beside the rows that have as many too.
_PAPER_OF_FOUR = {
    "FLAM": {"psnr_mean": 56.5, "disentanglement": 0.91, "completeness": 0.91, "informativeness": 0.93},
    "PlaySlot": {"psnr_mean": 56.5, "disentanglement": 0.81, "completeness": 0.81, "informativeness": 0.86},
    "SlotFormer": {"disentanglement": 0.85, "completeness": 0.85, "informativeness": 0.90},
    "without temporal attention": {
        "psnr_mean": 51.6,
        "disentanglement": 0.33,
        "completeness": 0.23,
        "informativeness": 0.20,
    },
    "globally coupled": {
        "psnr_mean": 56.3,
        "disentanglement": 0.79,
        "completeness": 1.00,
        "informativeness": 0.58,
    },
}
PAPER: dict[tuple[str, str], dict[str, float]] = {
    **{("4agents", row): numbers for row, numbers in _PAPER_OF_FOUR.items()},
    **{("4agents", f"{row}, K = 4"): numbers for row, numbers in _PAPER_OF_FOUR.items() if row != "FLAM"},
    ("4agents", "K = 4"): _PAPER_OF_FOUR["FLAM"],
    ("4agents", "K = 2"): {"psnr_mean": 53.4},
    ("4agents", "K = 8"): {"psnr_mean": 56.5},
    ("4agents", "K = 16"): {"psnr_mean": 56.5},
    ("4agents", "FLAM, β = 1e-05"): {"psnr_mean": 56.5},
    ("4agents", "FLAM, β = 0.0001"): {"psnr_mean": 56.5},
    ("4agents", "FLAM, β = 0.001"): {"psnr_mean": 56.3},
    ("4agents", "FLAM, β = 0.01"): {"psnr_mean": 24.9},
}


def write_results(
    workdir: str | Path,
    study: str,
    preset: str,
    columns: Mapping[str, Any],
    missing: Sequence[str],
    settings: Mapping[str, Settings] = MappingProxyType({}),
    changes: Sequence[str] = (),
) -> Path:
    """Writes `results.json` and `results.html` of a study.

    Args:
      workdir: of the study.
      study: its name.
      preset: its preset.
      columns: from `summarize`.
      missing: folders of the cells that are not finished.
      settings: of the rows of every column.
      changes: flags of the command that change fields in every run.

    Returns:
      Path of the page.
    """
    workdir = Path(workdir)
    command = shlex.join(
        ["python", "-m", "flam_jax.reproduce", f"--study={study}", f"--preset={preset}", *changes, "--workdir=WORKDIR"]
    )
    result = {
        "study": study,
        "preset": preset,
        "command": command,
        "confidence": CONFIDENCE,
        "settings": dict(settings),
        "columns": columns,
        "differences": {column: differences(rows) for column, rows in columns.items()},
        "at_equal_kl": {column: at_equal_information(rows) for column, rows in columns.items()},
        "missing": list(missing),
    }
    write_text(workdir / "results.json", json.dumps(result, indent=1) + "\n")
    note = (
        f"Preset {preset}. Means over seeds ± half of the 95 % confidence interval (Student's t); differences likewise "
        "(Welch's t), in bold where the interval leaves out zero. All rows of a table use one data set, and one "
        "tokenizer where nothing else is said. The paper's figures are of its own sizes and corpora."
    )
    if missing:
        note += f" Not finished: {', '.join(missing)}."
    body = _by_agents(columns) + "".join(_column(name, rows, settings.get(name, {})) for name, rows in columns.items())
    title = html.escape(f"Study {study}")
    path = workdir / "results.html"
    write_text(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body><main class="broad">'
        f'<header><h1>{title}</h1><p class="note">{html.escape(note)}</p>'
        f'<p class="note">This page is made again by <code>{html.escape(command)}</code>.</p></header>{body}'
        "</main></body></html>\n",
    )
    return path


def _column(column: str, rows: Mapping[str, Any], settings: Settings) -> str:
    shown = [name for name in NUMBERS if any(name in cell["numbers"] for cell in rows.values())]
    reported = [name for name in shown if any(name in PAPER.get((column, row), {}) for row in rows)]
    head = ["", "seeds"]
    for name in shown:
        head += [NUMBERS[name][0], *(["the paper's"] if name in reported else [])]
    lines = []
    for row, cell in rows.items():
        line: list[Any] = [row, len(cell["seeds"])]
        paper = PAPER.get((column, row), {})
        for name in shown:
            entry = cell["numbers"].get(name)
            line.append(_text(entry["mean"], entry["half_width"], name) if entry else None)
            if name in reported:
                line.append(f"{paper[name]:g}" if name in paper else None)
        lines.append(line)
    curves = []
    for color, (row, cell) in zip(itertools.cycle(COLORS), rows.items(), strict=False):
        for index, psnr in enumerate(cell["psnr"]):
            curves.append(Line(row if index == 0 else "", list(range(1, len(psnr) + 1)), psnr, color))
    devices = ", ".join(sorted({device for cell in rows.values() for device in cell["devices"]}))
    facts = html.escape(f"{devices}. {_tokenizers(rows)}")
    charts = line_chart("PSNR, dB, every seed", curves, "step") + _by_information(rows)
    charts += "".join(_by_setting(rows, settings, swept) for swept in SWEPT)
    tables = table(head, lines) + _differences(rows) + _equal_information(rows)
    return (
        f'<section><h2>{html.escape(column)}</h2><p class="note">{facts}</p>{tables}'
        f'<div class="charts">{charts}</div>{_settings(rows, settings)}</section>'
    )


def _differences(rows: Mapping[str, Any]) -> str:
    """A table of `differences`; empty where there is one row alone."""
    found = differences(rows)
    shown = [name for name in CLAIMED if any(name in entry["numbers"] for entry in found.values())]
    if not shown:
        return ""
    lines = []
    for row, entry in found.items():
        numbers = [entry["numbers"].get(name) for name in shown]
        lines.append([row, entry["less"], *(_apart(number, name) for number, name in zip(numbers, shown, strict=True))])
    return f"<h3>Differences</h3>{table(['', 'less', *(NUMBERS[name][0] for name in shown)], lines)}"


def _apart(number: Mapping[str, Any] | None, name: str) -> Markup | None:
    """A difference, in bold where its interval leaves out zero."""
    if number is None:
        return None
    mean, half = number["mean"], number["half_width"]
    text = html.escape(_text(mean, half, name))
    return Markup(f"<b>{text}</b>" if half is not None and abs(mean) > half else text)


def _settings(rows: Mapping[str, Any], settings: Settings) -> str:
    """What the rows were run with, where it is not the experiment's."""
    names = list(dict.fromkeys(name for row in rows for name in settings.get(row, {})))
    if not names:
        return ""
    lines = [[row, *(str(settings.get(row, {}).get(name, "–")) for name in names)] for row in rows]
    return f"<details><summary>Settings other than the experiment's</summary>{table(['', *names], lines)}</details>"


def _tokenizers(rows: Mapping[str, Any]) -> str:
    """Whether the runs of a column are of one tokenizer: its training differs from machine to machine."""
    each = [cell["numbers"].get("ceiling_psnr_mean", {}).get("values", ()) for cell in rows.values()]
    ceilings = list(itertools.chain.from_iterable(each))
    if not ceilings or max(ceilings) - min(ceilings) < SAME_CEILING:
        return ""
    return (
        f"The runs are not of one tokenizer, as those of one study on one machine are: its ceiling is "
        f"{min(ceilings):.2f} dB for some and {max(ceilings):.2f} dB for others, which is part of every difference."
    )


def _by_information(rows: Mapping[str, Any]) -> str:
    """Mean PSNR by KL: every seed a dot, the rows of one model joined at their means."""
    lines = []
    for color, (model, cells) in zip(itertools.cycle(COLORS), by_bottleneck(rows).items(), strict=False):
        found = sorted((cell["numbers"] for cell in cells), key=lambda numbers: numbers["kl"]["mean"])
        kl, psnr = ([value for numbers in found for value in numbers[name]["values"]] for name in ("kl", "psnr_mean"))
        lines.append(Line(model, kl, psnr, color, joined=False))
        kl, psnr = ([numbers[name]["mean"] for numbers in found] for name in ("kl", "psnr_mean"))
        lines.append(Line("", kl, psnr, color))
    return line_chart("PSNR mean, dB, by what the actions say", lines, "KL, nats a frame")


@dataclasses.dataclass(frozen=True)
class _Swept:
    """Fields that say one thing, by which prediction is drawn where rows differ in nothing else."""

    fields: tuple[str, ...]  # the last is the one that is drawn
    title: str
    x_name: str
    logarithmic: bool


SWEPT = (
    _Swept(("dynamics.num_factors",), "PSNR mean, dB, by the number of factors", "factors", False),
    _Swept(("dynamics.kl_weight", "dynamics.kl_weight_final"), "PSNR mean, dB, by β", "log10 β", True),
    _Swept(("dynamics.training.learning_rate",), "PSNR mean, dB, by the learning rate", "log10 learning rate", True),
)


def _by_setting(rows: Mapping[str, Any], settings: Settings, swept: _Swept) -> str:
    """Mean PSNR by one setting, under the tokenizer's own; empty where no rows differ in it alone."""
    groups: dict[str, list[tuple[float, str]]] = {}
    for row in rows:
        fields = dict(settings.get(row, {}))
        x, *_ = [fields.pop(name, None) for name in reversed(swept.fields)]
        if x is not None and (x > 0 or not swept.logarithmic):
            groups.setdefault(repr(fields), []).append((math.log10(x) if swept.logarithmic else float(x), row))
    found = [sorted(group) for group in groups.values() if len({x for x, _ in group}) > 1]
    models = []
    for group in found:
        name = next(row for row in rows if row in {member for _, member in group})
        models.append((name.split(",")[0], [(x, rows[row]["numbers"]) for x, row in group]))
    return _under_the_ceiling(swept.title, models, swept.x_name) if models else ""


def _under_the_ceiling(
    title: str, models: Sequence[tuple[str, Sequence[tuple[float | int, Mapping[str, Any]]]]], x_name: str
) -> str:
    """Mean PSNR by what x is, every seed a dot and the means joined, under the tokenizer's own.

    Args:
      title: of the chart.
      models: name, and x and the numbers of each of its rows.
      x_name: shown below the axis.
    """
    lines, ceilings = [], {}
    for color, (model, points) in zip(itertools.cycle(COLORS), models, strict=False):
        seeds = [(x, value) for x, numbers in points for value in numbers["psnr_mean"]["values"]]
        lines.append(Line(model, [x for x, _ in seeds], [y for _, y in seeds], color, joined=False))
        means = [numbers["psnr_mean"]["mean"] for _, numbers in points]
        lines.append(Line("", [x for x, _ in points], means, color))
        for x, numbers in points:
            ceilings[x] = max(numbers["ceiling_psnr_mean"]["mean"], ceilings.get(x, -math.inf))
    ceilings = dict(sorted(ceilings.items()))
    lines.append(Line("tokenizer (ceiling)", list(ceilings), list(ceilings.values()), CEILING_COLOR, dashed=True))
    return line_chart(title, lines, x_name)


def _equal_information(rows: Mapping[str, Any]) -> str:
    """A table of PSNR at equal KL; empty where the first model has one bottleneck only."""
    lines = []
    for row, found in at_equal_information(rows).items():
        numbers: list[str | None] = [None] * 4
        if found["kl"]:
            psnr, first = found["psnr"], found["first"]
            numbers = [_text(*interval(values), name) for values, name in ((found["kl"], "kl"), (psnr, "psnr_mean"))]
            numbers += [_text(*interval(first), "psnr_mean"), _text(*difference(psnr, first), "psnr_mean")]
        beyond = ", ".join(_text(kl, None, "kl") for kl in sorted(found["out_of_reach"]))
        lines.append([row, len(found["kl"]), *numbers, beyond or None])
    if not lines:
        return ""
    first = next(iter(rows))
    note = (
        f"PSNR mean at equal KL: {first}'s is read from the curve of every seed, at the KL of every run of the other "
        "row that all these curves reach."
    )
    head = ["", "runs", "KL, nats a frame", "PSNR mean", f"{first} at the same KL", "difference", "KL out of reach"]
    return f'<p class="note">{html.escape(note)}</p>{table(head, lines)}'


def _by_agents(columns: Mapping[str, Any]) -> str:
    """Mean PSNR by the number of agents, where the columns differ in it, under the tokenizer's own."""
    counts = {column: int(found[1]) for column in columns if (found := re.fullmatch(r"(\d+)agents", column))}
    if len(counts) < 2:
        return ""
    rows = [row for row in next(iter(columns.values())) if sum(row in columns[column] for column in counts) > 1]
    models = [
        (row, [(count, columns[column][row]["numbers"]) for column, count in counts.items() if row in columns[column]])
        for row in rows
    ]
    chart = _under_the_ceiling("PSNR mean, dB, every seed", models, "agents")
    return f'<section><h2>By the number of agents</h2><div class="charts">{chart}</div></section>'


def _text(mean: float, half_width: float | None, name: str) -> str:
    digits = (
        0
        if name in ("steps", "seconds", "parameters")
        else 1
        if name == "fvd"
        else 2
        if "psnr" in name or name == "kl"
        else 3
    )
    if half_width is None or name in ("steps", "parameters"):
        return f"{mean:,.{digits}f}"
    return f"{mean:,.{digits}f} ± {half_width:,.{digits}f}"


__all__ = ["write_results"]
