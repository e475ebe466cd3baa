"""Many runs beside each other: means with confidence intervals over seeds, and differences."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
# Where a number lies in `evaluation.json`, and what tables call it. First what claims are about, of which differences
# are shown too.
CLAIMED = {
    "psnr_mean": ("PSNR mean", ("rollout", "psnr_mean")),
    "ssim_mean": ("SSIM mean", ("rollout", "ssim_mean")),
    "lpips_mean": ("LPIPS mean", ("rollout", "lpips_mean")),
    "fvd": ("FVD", ("rollout", "fvd")),
    "transfer_psnr_mean": ("PSNR mean, a twin's actions", ("actions", "transfer", "psnr_mean")),
    "kl": ("KL, nats a frame", ("actions", "kl")),
    "disentanglement": ("D", ("dci", "disentanglement")),
    "completeness": ("C", ("dci", "completeness")),
    "informativeness": ("I", ("dci", "informativeness")),
    "cover": ("cells of an agent in one slot, lowest", ("binding", "cover", min)),
    "true_action": ("true action from the latent one, linear", ("actions", "leak", "true_action", "action_linear")),
    "true_action_mlp": ("and by a perceptron", ("actions", "leak", "true_action", "action_mlp")),
    "directed_map": (
        "groups of latent actions that are true ones in their direction",
        ("actions", "direction_aware_clusters", "accuracy"),
    ),
}
NUMBERS = {
    **CLAIMED,
    "action_map": ("and that are true ones in any direction", ("actions", "clusters", "accuracy")),
    "leak": ("next cell from the action alone", ("actions", "leak", "position", "action_mlp")),
    "attention": ("attention on agents, lowest", ("binding", "attention", min)),
    "holders": ("slots that hold agents", ("binding", "holders", lambda holders: len(set(holders)))),
    "psnr_step_1": ("PSNR step 1", ("rollout", "psnr", 0)),
    "psnr_last": ("PSNR last step", ("rollout", "psnr", -1)),
    "moving_psnr_mean": ("PSNR of moving pixels", ("rollout", "moving_psnr_mean")),
    "followed_wrong": ("cells entered behind another agent, wrong", ("cells", "predicted", "followed", "wrong")),
    "ceiling_psnr_mean": ("ceiling PSNR mean", ("rollout", "ceiling_psnr_mean")),
    "steps": ("training, steps", ("steps", "dynamics")),
    "seconds": ("training, s", ("seconds", "dynamics")),
    "parameters": ("parameters", ("parameters", "dynamics")),
}
# These compare slots: what a model of one slot has of them (it has no C) is so by construction.
OF_SLOTS = ("disentanglement", "completeness", "informativeness", "cover")


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


def summarize(runs: Sequence[tuple[str, str, int, Mapping[str, Any]]]) -> dict[str, Any]:
    """Columns of rows of numbers.

    Args:
      runs: column, row, seed and `evaluation.json` of every finished run.

    Returns:
      `{column: {row: {"seeds": [...], "numbers": {name: {"mean", "half_width", "values"}}, "psnr": [[one per step] per
      seed], "devices": [...]}}}`.
    """
    columns: dict[str, Any] = {}
    for column, row, seed, result in runs:
        cell = columns.setdefault(column, {}).setdefault(row, {"seeds": [], "numbers": {}, "psnr": [], "devices": []})
        cell["seeds"].append(seed)
        cell["psnr"].append(result["rollout"]["psnr"])
        cell["devices"].append(result["device"])
        for name, (_, path) in NUMBERS.items():
            value = number(result, path)
            if value is not None:
                cell["numbers"].setdefault(name, {"values": []})["values"].append(value)
    for rows in columns.values():
        for cell in rows.values():
            for entry in cell["numbers"].values():
                entry["mean"], entry["half_width"] = interval(entry["values"])
    return columns


def differences(rows: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every row less the row of FLAM that it is to be compared with, in what claims are about (`CLAIMED`).

    That is the row with the same words behind its name: "PlaySlot, K = 4" less "K = 4", "globally coupled, no balance"
    less "FLAM, no balance"; and the first row where there is none. What compares slots is left out for models of one.

    Args:
      rows: of a column, from `summarize`.

    Returns:
      `{row: {"less": the other row, "numbers": {name: {"mean", "half_width"}}}}`, half_width as `difference` has it.
    """
    found = {}
    for row, cell in rows.items():
        _, _, words = row.partition(", ")
        same = [other for other in (f"FLAM, {words}", words) if other in rows and other != row]
        other = (same or list(rows))[0]
        if other == row:
            continue
        both = (cell["numbers"], rows[other]["numbers"])
        numbers = {}
        for name in CLAIMED:
            needed = (name, "completeness") if name in OF_SLOTS else (name,)
            if all(entry in of for entry in needed for of in both):
                apart = difference(*(of[name]["values"] for of in both))
                numbers[name] = dict(zip(("mean", "half_width"), apart, strict=True))
        found[row] = {"less": other, "numbers": numbers}
    return found


def at_equal_information(rows: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Mean PSNR of the runs of a row, and of the first row's model where its actions say the same (ours).

    The rows of the first model that differ in its bottleneck alone are points of one curve. Every seed has its own,
    straight between the points; it is read at the KL of every run of the other rows that lies within the reach of all
    seeds. What other runs would be worth with another KL is not asked.

    Args:
      rows: of a column, from `summarize`.

    Returns:
      `{row: {"kl": [one per run within reach], "psnr": [likewise], "first": [mean over these runs, per seed of the
      curve], "out_of_reach": [KL of the others]}}`; empty where the first model has no two rows with common seeds.
    """
    models = by_bottleneck(rows)
    own = next(iter(models.values()), [])
    seeds = set.intersection(*(set(cell["seeds"]) for cell in own)) if len(own) > 1 else set()
    if not seeds:
        return {}
    curves = []
    for seed in sorted(seeds):
        points = [
            [cell["numbers"][name]["values"][cell["seeds"].index(seed)] for name in ("kl", "psnr_mean")] for cell in own
        ]
        curves.append(np.array(sorted(points)).T)
    low, high = max(kl[0] for kl, _ in curves), min(kl[-1] for kl, _ in curves)
    found = {}
    for row, cell in rows.items():
        if any(cell is other for other in own) or not {"kl", "psnr_mean"} <= set(cell["numbers"]):
            continue
        runs = list(zip(*(cell["numbers"][name]["values"] for name in ("kl", "psnr_mean")), strict=True))
        within = [run for run in runs if low <= run[0] <= high]
        kl, psnr = [kl for kl, _ in within], [psnr for _, psnr in within]
        found[row] = {
            "kl": kl,
            "psnr": psnr,
            "first": [float(np.interp(kl, *curve).mean()) for curve in curves] if within else [],
            "out_of_reach": [kl for kl, _ in runs if not low <= kl <= high],
        }
    return found


def by_bottleneck(rows: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows with KL and PSNR, those together that differ in how much their actions can say alone."""
    models: dict[str, list[Mapping[str, Any]]] = {}
    for row, cell in rows.items():
        if {"kl", "psnr_mean"} <= set(cell["numbers"]):
            models.setdefault(re.sub(r", (β = [^,]*|\d+ codes)$", "", row), []).append(cell)
    return models


__all__ = [
    "CLAIMED",
    "NUMBERS",
    "at_equal_information",
    "by_bottleneck",
    "difference",
    "differences",
    "interval",
    "number",
    "summarize",
]
