"""The training curves of a run, from its `metrics.jsonl`."""

from pathlib import Path
from typing import Any

from flam_jax.evaluation.charts import Line, line_chart
from flam_jax.metrics_file import read_metrics

VALIDATION = "validation/"
TRAIN_COLOR, VALIDATION_COLOR = "#8fb4ea", "#1d4fa3"
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


def training_curves(workdir: str | Path) -> str:
    """An HTML section with one chart a metric, for each stage; training and validation share a chart."""
    series: dict[str, dict[str, list[tuple[int, Any]]]] = {}
    for entry in read_metrics(workdir):
        stage = series.setdefault(entry["stage"], {})
        for name, value in entry["values"].items():
            stage.setdefault(name, []).append((entry["step"], value))
    if not series:
        return "<section><h2>Training</h2><p class='note'>No metrics.jsonl in the folder of the run.</p></section>"
    parts = []
    for stage, values in series.items():
        names = sorted({name.removeprefix(VALIDATION) for name in values})
        groups = sorted({name.split("/")[0] for name in names})
        shown = [group for group in FIRST if group in groups]
        folded = [group for group in groups if group not in FIRST]
        charts = "".join(_chart(group, values) for group in shown)
        more = "".join(_chart(group, values) for group in folded)
        parts.append(
            f'<h3>{stage}</h3><div class="charts">{charts}</div>'
            f'<details><summary>{len(folded)} more</summary><div class="charts">{more}</div></details>'
        )
    return "<section><h2>Training</h2>" + "".join(parts) + "</section>"


def _chart(group: str, values: dict[str, list[tuple[int, Any]]]) -> str:
    """One metric, or all parts of one (`kl_factor/0`, `kl_factor/1`, ...)."""
    from flam_jax import pictures

    members = [name for name in values if name.removeprefix(VALIDATION).split("/")[0] == group]
    parts = sorted({name.removeprefix(VALIDATION) for name in members} - {group}, key=_by_number)
    palette = ["#{:02x}{:02x}{:02x}".format(*color) for color in pictures.colors(len(parts))]
    lines = []
    for name in members:
        plain = name.removeprefix(VALIDATION)
        points = values[name][:: max(1, len(values[name]) // MOST_POINTS)]
        if plain in parts:
            label, color = plain.split("/", 1)[1], palette[parts.index(plain)]
        else:
            validation = name.startswith(VALIDATION)
            label, color = ("validation", VALIDATION_COLOR) if validation else ("training", TRAIN_COLOR)
        lines.append(Line(label, [step for step, _ in points], [value for _, value in points], color))
    return line_chart(group.replace("_", " "), lines, "step", logarithmic=group in LOGARITHMIC)


def _by_number(name: str) -> tuple[str, int, str]:
    head, _, tail = name.rpartition("/")
    return (head, int(tail), "") if tail.isdigit() else (head, -1, tail)


__all__ = ["training_curves"]
