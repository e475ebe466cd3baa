"""The runs of a study beside each other: means with confidence intervals over seeds, and differences."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from flam_jax.studies.definitions import AGENTS, AXES, Row

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Number:
    """A number of a run.

    Attributes:
      label: as tables call it.
      path: where it lies in `evaluation.json`; a function in the path is called.
      digits: after the decimal point.
      best_is_one: whether it is at most 1.
      has_interval: False for what is the same in all runs of a row.
    """

    label: str
    path: tuple[Any, ...]
    digits: int = 3
    best_is_one: bool = False
    has_interval: bool = True


def _below_ceiling(rollout: Mapping[str, Any]) -> float:
    return rollout["ceiling_psnr_mean"] - rollout["psnr_mean"]


def _total(seconds: Mapping[str, Any]) -> float:
    return seconds["dynamics"] + seconds["evaluation"]


# First what claims are about, of which differences are shown too.
HEADLINE_METRICS = {
    "psnr_mean": Number("PSNR mean", ("rollout", "psnr_mean"), 2),
    "below_ceiling": Number("below the ceiling, dB", ("rollout", _below_ceiling), 2),
    "ssim_mean": Number("SSIM mean", ("rollout", "ssim_mean"), 3, best_is_one=True),
    "lpips_mean": Number("LPIPS mean", ("rollout", "lpips_mean")),
    "fvd": Number("FVD", ("rollout", "fvd"), 1),
    "transfer_psnr_mean": Number("PSNR mean, displaced clip's actions", ("actions", "transfer", "psnr_mean"), 2),
    "kl": Number("KL, nats a frame", ("actions", "kl"), 2),
    "disentanglement": Number("D", ("dci", "disentanglement"), 3, best_is_one=True),
    "completeness": Number("C", ("dci", "completeness"), 3, best_is_one=True),
    "informativeness": Number("I", ("dci", "informativeness"), 3, best_is_one=True),
    "cover": Number("share of an agent's cells in one slot, lowest", ("binding", "cover", min), 3, best_is_one=True),
    "true_action": Number(
        "true action, linear probe", ("actions", "leak", "true_action", "action_linear"), 3, best_is_one=True
    ),
    "true_action_mlp": Number(
        "true action, small network", ("actions", "leak", "true_action", "action_mlp"), 3, best_is_one=True
    ),
    "direction_aware_clusters": Number(
        "direction-aware cluster accuracy", ("actions", "direction_aware_clusters", "accuracy"), 3, best_is_one=True
    ),
}
NUMBERS = {
    **HEADLINE_METRICS,
    "clusters": Number("cluster accuracy", ("actions", "clusters", "accuracy"), 3, best_is_one=True),
    "leak": Number("next cell from the action alone", ("actions", "leak", "position", "action_mlp"), best_is_one=True),
    "attention": Number("attention on agents, lowest", ("binding", "attention", min), 3, best_is_one=True),
    "holders": Number("slots that hold agents", ("binding", "holders", lambda holders: len(set(holders))), 1),
    "psnr_step_1": Number("PSNR step 1", ("rollout", "psnr", 0), 2),
    "psnr_last": Number("PSNR last step", ("rollout", "psnr", -1), 2),
    "moving_psnr_mean": Number("PSNR of moving pixels", ("rollout", "moving_psnr_mean"), 2),
    "entered_wrong": Number("entered cells, wrong", ("cells", "predicted", "entered", "wrong")),
    "entered_wrong_worst": Number(
        "entered cells of the worst agent, wrong", ("cells", "predicted", "entered", "per_agent", max)
    ),
    "followed_wrong": Number("cells entered behind another agent, wrong", ("cells", "predicted", "followed", "wrong")),
    "ceiling_psnr_mean": Number("ceiling PSNR mean", ("rollout", "ceiling_psnr_mean"), 2),
    "median_psnr_mean": Number("median frame PSNR mean", ("rollout", "median_psnr_mean"), 2),
    "copy_last_psnr_mean": Number("last frame PSNR mean", ("rollout", "copy_last_psnr_mean"), 2),
    "steps": Number("training, steps", ("steps", "dynamics"), 0, has_interval=False),
    "seconds": Number("training, s", ("seconds", "dynamics"), 0),
    "total_seconds": Number("training and evaluation, s", ("seconds", _total), 0),
    "parameters": Number("parameters", ("parameters", "dynamics"), 0, has_interval=False),
}
# These compare slots: they are left out for a model of one slot, which has no C.
SLOT_METRICS = ("disentanglement", "completeness", "informativeness", "cover")
# What bounds the KL of latent actions: rows of a series that differ on these axes alone are points of one curve.
BOTTLENECKS = ("beta", "codes")


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run of a study.

    Attributes:
      column: key of the data set.
      row: the row.
      seed: of the model.
      result: `evaluation.json`.
      position: its value on every axis of `AXES`.
    """

    column: str
    row: Row
    seed: int
    result: Mapping[str, Any]
    position: Mapping[str, float | int] = dataclasses.field(default_factory=dict)


def number(result: Mapping[str, Any], path: Sequence[Any]) -> float | None:
    """A value of `evaluation.json` by its path; a function in the path is called. None where there is no number."""
    value: Any = result
    for part in path:
        try:
            value = part(value) if callable(part) else value[part]
        except (KeyError, IndexError):
            return None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and half the width of its 95 % confidence interval by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return float(np.mean(values)), None
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return float(np.mean(values)), float(half)


def difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, float | None]:
    """Mean of `first` less that of `second`, with half the width of its interval (Welch's t)."""
    mean = float(np.mean(first) - np.mean(second))
    if min(len(first), len(second)) < 2:
        return mean, None
    a, b = (float(np.var(values, ddof=1)) / len(values) for values in (first, second))
    if a + b == 0:
        return mean, 0.0
    freedom = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    return mean, float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * math.sqrt(a + b))


def summarize(runs: Sequence[FinishedRun]) -> dict[str, Any]:
    """Columns of rows of numbers.

    Args:
      runs: every finished run.

    Returns:
      `{column: {key of the row: {"name", "model", "compared_with", "series", "axis", "position", "seeds": [...],
      "numbers": {name: {"mean", "half_width", "values"}}, "psnr": [[one per step] per seed], "ceiling_psnr": likewise,
      "devices": [...]}}}`. `SLOT_METRICS` are left out for models of one slot.
    """
    columns: dict[str, Any] = {}
    for run in runs:
        rows = columns.setdefault(run.column, {})
        if run.row.key not in rows:
            described = {name: getattr(run.row, name) for name in ("name", "model", "compared_with", "series", "axis")}
            empty: dict[str, Any] = {"seeds": [], "numbers": {}, "psnr": [], "ceiling_psnr": [], "devices": []}
            rows[run.row.key] = described | {"position": dict(run.position)} | empty
        cell = rows[run.row.key]
        cell["seeds"].append(run.seed)
        for name in ("psnr", "ceiling_psnr"):
            cell[name].append(run.result["rollout"][name])
        cell["devices"].append(run.result["device"])
        for name, found in NUMBERS.items():
            value = number(run.result, found.path)
            if value is not None:
                cell["numbers"].setdefault(name, {"values": []})["values"].append(value)
    for rows in columns.values():
        for cell in rows.values():
            if "completeness" not in cell["numbers"]:
                cell["numbers"] = {name: of for name, of in cell["numbers"].items() if name not in SLOT_METRICS}
            for entry in cell["numbers"].values():
                entry["mean"], entry["half_width"] = interval(entry["values"])
    return columns


def differences(rows: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every row less the row that it is compared with (`compared_with`), in the numbers of `HEADLINE_METRICS`.

    Rows whose other row is not finished are left out.

    Args:
      rows: of a column, from `summarize`.

    Returns:
      `{row: {"less": key of the other row, "numbers": {name: {"mean", "half_width"}}}}`, half_width as `difference`
      has it.
    """
    found = {}
    for row, cell in rows.items():
        other = cell["compared_with"]
        if other not in rows:
            continue
        both = (cell["numbers"], rows[other]["numbers"])
        numbers = {}
        for name in HEADLINE_METRICS:
            if all(name in of for of in both):
                apart = difference(*(of[name]["values"] for of in both))
                numbers[name] = dict(zip(("mean", "half_width"), apart, strict=True))
        found[row] = {"less": other, "numbers": numbers}
    return found


def at_equal_information(rows: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Mean PSNR of the runs of a row, and of the first row's series at the same KL (ours).

    The rows of the first series that differ in its bottleneck alone are points of one curve. Every seed has its own,
    straight between the points; it is read at the KL of every run of the other rows that lies within the reach of all
    seeds. Other runs are not extrapolated.

    Args:
      rows: of a column, from `summarize`.

    Returns:
      `{row: {"kl": [one per run within reach], "psnr": [likewise], "first": [mean over these runs, per seed of the
      curve], "out_of_reach": [KL of the others], "means": {"kl", "psnr", "first", "difference": (mean, half_width)}}}`,
      without `means` where no run is within reach; empty where the first series has no two rows with common seeds.
    """
    own = next(iter(by_bottleneck(rows).values()), [])
    seeds = set.intersection(*(set(rows[key]["seeds"]) for key in own)) if len(own) > 1 else set()
    if not seeds:
        return {}
    curves = []
    for seed in sorted(seeds):
        points = []
        for cell in (rows[key] for key in own):
            at = cell["seeds"].index(seed)
            points.append([cell["numbers"][name]["values"][at] for name in ("kl", "psnr_mean")])
        curves.append(np.array(sorted(points)).T)
    low, high = max(kl[0] for kl, _ in curves), min(kl[-1] for kl, _ in curves)
    found = {}
    for row, cell in rows.items():
        if row in own or not {"kl", "psnr_mean"} <= set(cell["numbers"]):
            continue
        runs = list(zip(*(cell["numbers"][name]["values"] for name in ("kl", "psnr_mean")), strict=True))
        within = [run for run in runs if low <= run[0] <= high]
        kl, psnr = [kl for kl, _ in within], [psnr for _, psnr in within]
        first = [float(np.interp(kl, *curve).mean()) for curve in curves] if within else []
        found[row] = {"kl": kl, "psnr": psnr, "first": first}
        found[row]["out_of_reach"] = [kl for kl, _ in runs if not low <= kl <= high]
        if within:
            found[row]["means"] = {"kl": interval(kl), "psnr": interval(psnr), "first": interval(first)}
            found[row]["means"]["difference"] = difference(psnr, first)
    return found


def by_bottleneck(rows: Mapping[str, Any]) -> dict[str, list[str]]:
    """Keys of the rows with KL and PSNR, by series: those together that differ in what bounds the KL alone."""
    found: dict[str, list[str]] = {}
    for row, cell in rows.items():
        if {"kl", "psnr_mean"} <= set(cell["numbers"]):
            found.setdefault(cell["series"] if cell["axis"] in BOTTLENECKS else row, []).append(row)
    return found


def study_result(
    study: str,
    preset: str,
    command: str,
    runs: Sequence[FinishedRun],
    missing: Sequence[str] = (),
    settings: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
) -> dict[str, Any]:
    """All that a study's `results.json` holds, and of which its page is made.

    Args:
      study: its name.
      preset: its preset.
      command: that makes it.
      runs: the finished ones.
      missing: folders of those that are not finished.
      settings: by column and row the fields in which one row is not as its experiment has it.
    """
    columns = summarize(runs)
    series: dict[str, dict[str, list[list[str]]]] = {}
    for column, rows in columns.items():
        series[column] = {axis: _series(rows, axis) for axis in AXES}
        series[column]["bottleneck"] = list(by_bottleneck(rows).values())
    return {
        "study": study,
        "preset": preset,
        "command": command,
        "confidence": CONFIDENCE,
        "numbers": {
            name: {field: getattr(found, field) for field in ("label", "digits", "best_is_one", "has_interval")}
            for name, found in NUMBERS.items()
        },
        "axes": {name: dataclasses.asdict(axis) for name, axis in AXES.items()},
        "agents": {column: AGENTS[column] for column in columns if column in AGENTS},
        "settings": dict(settings or {}),
        "columns": columns,
        "differences": {column: differences(rows) for column, rows in columns.items()},
        "at_equal_kl": {column: at_equal_information(rows) for column, rows in columns.items()},
        "series": series,
        "missing": list(missing),
    }


def _series(rows: Mapping[str, Any], axis: str) -> list[list[str]]:
    """Keys of the rows that differ on an axis alone, a list a series, in the order of the axis."""
    found: dict[str, list[str]] = {}
    for row, cell in rows.items():
        if axis in cell["position"] and (cell["axis"] == axis or cell["series"] == row):
            found.setdefault(cell["series"], []).append(row)
    ordered = [sorted(keys, key=lambda key: rows[key]["position"][axis]) for keys in found.values()]
    return [keys for keys in ordered if len({rows[key]["position"][axis] for key in keys}) > 1]


__all__ = [
    "HEADLINE_METRICS",
    "NUMBERS",
    "SLOT_METRICS",
    "FinishedRun",
    "Number",
    "at_equal_information",
    "by_bottleneck",
    "difference",
    "differences",
    "interval",
    "number",
    "study_result",
    "summarize",
]
