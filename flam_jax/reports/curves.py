"""The training curves of a run, from its `metrics.jsonl`."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flam_jax import pictures
from flam_jax.metrics_file import read_metrics
from flam_jax.reports.charts import Chart, Line, line_chart

VALIDATION = "validation/"
TRAIN_COLOR, VALIDATION_COLOR = "#8fb4ea", "#2563c9"
LOGARITHMIC = ("loss", "l2", "l1", "prediction_loss", "grad_norm", "kl_weight", "learning_rate")
# Shown in full; all others lie folded below them.
FIRST = (
    "loss",
    "prediction_loss",
    "psnr",
    "psnr_moving",
    "kl",
    "active_units",
    "attention_entropy",
    "shuffle_gain",
    "action_leak",
    "action_code_perplexity",
    "code_perplexity",
    "code_jitter",
)
# Points of one line; more cannot be seen.
MOST_POINTS = 400


@dataclasses.dataclass(frozen=True)
class StageCurves:
    """The charts of one stage of training, one a metric."""

    name: str
    first: Sequence[Chart]
    more: Sequence[Chart]


def training_curves(workdir: str | Path) -> list[StageCurves]:
    """One chart a metric, for each stage; training and validation share a chart."""
    series: dict[str, dict[str, list[tuple[int, Any]]]] = {}
    for entry in read_metrics(workdir):
        stage = series.setdefault(entry["stage"], {})
        for name, value in entry["values"].items():
            stage.setdefault(name, []).append((entry["step"], value))
    found = []
    for stage, values in series.items():
        groups = sorted({name.removeprefix(VALIDATION).split("/")[0] for name in values})
        first = [_chart(group, values) for group in FIRST if group in groups]
        found.append(StageCurves(stage, first, [_chart(group, values) for group in groups if group not in FIRST]))
    return found


def _chart(group: str, values: Mapping[str, Sequence[tuple[int, Any]]]) -> Chart:
    """One metric, or all parts of one (`kl_factor/0`, `kl_factor/1`, ...)."""
    members = [name for name in values if name.removeprefix(VALIDATION).split("/")[0] == group]
    parts = sorted({name.removeprefix(VALIDATION) for name in members} - {group}, key=_by_number)
    palette = ["#{:02x}{:02x}{:02x}".format(*color) for color in pictures.colors(len(parts))]
    lines, named = [], set()
    for name in sorted(members, key=lambda name: (name.startswith(VALIDATION), _by_number(name))):
        plain = name.removeprefix(VALIDATION)
        points = values[name][:: max(1, len(values[name]) // MOST_POINTS)]
        if plain in parts:
            label, color = plain.split("/", 1)[1], palette[parts.index(plain)]
        else:
            validation = name.startswith(VALIDATION)
            label, color = ("validation", VALIDATION_COLOR) if validation else ("training", TRAIN_COLOR)
        dashed = plain in parts and label in named  # the same part on the other split
        shown = "" if dashed else label
        named.add(label)
        lines.append(Line(shown, [step for step, _ in points], [value for _, value in points], color, dashed))
    return line_chart(group.replace("_", " "), lines, "step", logarithmic=group in LOGARITHMIC)


def _by_number(name: str) -> tuple[str, int, str]:
    head, _, tail = name.rpartition("/")
    return (head, int(tail), "") if tail.isdigit() else (head, -1, tail)


__all__ = ["StageCurves", "training_curves"]
