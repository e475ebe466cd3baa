"""All measures of a trained model on one split: `evaluation.json`, and the page that shows them."""

import copy
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flam_jax import checkpoints
from flam_jax.config import Config, identity
from flam_jax.evaluation.context import EvaluationContext
from flam_jax.evaluation.evaluators import EVALUATORS, evaluator
from flam_jax.reports.run_report import write_report
from flam_jax.world_model import WorldModel

FILE = "evaluation.json"
NOT_COMPUTED = "not_computed"  # there, why a measure is not: by its key


def evaluate(
    config: Config,
    workdir: str | Path,
    dataset: Any = None,
    world_model: WorldModel | None = None,
) -> dict[str, Any]:
    """Scores the model of a workdir and writes `evaluation.json` and `report.html` there.

    Args:
      config: the run's configuration. Clips of the split `evaluation.split` are scored; probes are fitted on `val` for
        `test` and on `train` for `val`.
      workdir: folder of the run.
      dataset: what `data_pipelines.prepare(config.data)` returns; prepared here when missing.
      world_model: taken from the workdir's checkpoints when missing.

    Returns:
      What the file holds. A measure for which the data or the model lack something is absent; `not_computed` says why.

    Raises:
      flam_jax.checkpoints.CheckpointError: a stage has no checkpoint.
      flam_jax.evaluation.networks.weights.WeightsError: weights of LPIPS or FVD are there and cannot be used.
      ValueError: the split's clips are too short.
    """
    began = time.monotonic()
    workdir = Path(workdir)
    world_model = WorldModel.restore(workdir) if world_model is None else world_model
    if dataset is None:
        import data_pipelines

        dataset = data_pipelines.prepare(config.data)
    finished = {stage: checkpoints.read_finished(workdir / stage) for stage in ("tokenizer", "dynamics")}
    values, pictures = measure(config, world_model, dataset)
    result = {
        "model": config.dynamics.name,
        "dataset": dataset.spec.name,
        "split": config.evaluation.split,
        "identity": identity(config),
        "seed": config.seed,
        "device": describe_device(),
        "steps": {stage: done.get("step", 0) for stage, done in finished.items()},
        "parameters": {
            "tokenizer": _count(world_model.tokenizer_params),
            "dynamics": _count(world_model.dynamics_params),
        },
        "seconds": {stage: done["seconds"] for stage, done in finished.items() if "seconds" in done},
        **({} if dataset.card is None else {"data": dataset.card.summary()}),
        **values,
    }
    if dataset.preview is not None:
        pictures["Data/clips"] = dataset.preview
    result["seconds"]["evaluation"] = round(time.monotonic() - began, 1)
    if jax.process_index() == 0:
        checkpoints.write_text(workdir / FILE, json.dumps(result, indent=1) + "\n")
        write_report(config, workdir, result, pictures)
    return result


def measure(
    config: Config, world_model: WorldModel, dataset: Any, names: Sequence[str] = EVALUATORS
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Runs evaluators.

    Args:
      config: the run's configuration.
      world_model: what is measured.
      dataset: with the splits and the specification.
      names: of `EVALUATORS`.

    Returns:
      Their values under their keys, with `not_computed`; and their pictures, u8[H W 3] by `group/name`.
    """
    context = EvaluationContext(config, world_model, dataset)
    values: dict[str, Any] = {}
    pictures: dict[str, np.ndarray] = {}
    reasons: dict[str, str] = {}
    for name in names:
        found = evaluator(name)
        missing = found.needs(dataset.spec, world_model)
        if missing:
            reasons[".".join(found.KEY)] = missing
            continue
        *parents, leaf = found.KEY
        node = values
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf], drawn = found.run(context)
        pictures |= drawn
    return values | ({NOT_COMPUTED: reasons} if reasons else {}), pictures


def measure_in_training(config: Config, world_model: WorldModel, dataset: Any) -> dict[str, float]:
    """The measures of a model that is being trained, on `evaluation.clips_in_training` clips of the validation split.

    Args:
      config: the run's configuration.
      world_model: with the parameters of the moment.
      dataset: with the splits and the specification.

    Returns:
      Every single number of `evaluation.json` by its dotted key; lists and tables are left out.
    """
    config = copy.deepcopy(config)
    config.evaluation.split = "val"
    config.evaluation.num_pictures = 0
    config.evaluation.num_clips = config.evaluation.probe_clips = config.evaluation.clips_in_training
    values, _ = measure(config, world_model, dataset)
    return dict(_numbers(values, ""))


def _numbers(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{key}", float(value)


def describe_device() -> str:
    """Kind and number of the devices at hand."""
    device = jax.devices()[0]
    cores = (
        f", {len(os.sched_getaffinity(0))} cores"
        if device.platform == "cpu" and hasattr(os, "sched_getaffinity")
        else ""
    )
    return f"{jax.device_count()} x {device.device_kind}{cores}"


def _count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


__all__ = ["FILE", "describe_device", "evaluate", "measure", "measure_in_training"]
