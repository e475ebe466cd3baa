"""All numbers of a trained model on one split: `evaluation.json`, and the page that shows them."""

import json
import os
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.errors import DataError
from flam_jax import checkpoints
from flam_jax.build import true_actions
from flam_jax.config import Config, config_hash
from flam_jax.evaluation import actions, binding, cells, leak, perceptual
from flam_jax.evaluation import rollouts as rolling
from flam_jax.evaluation.dci import chance_likelihood, dci
from flam_jax.evaluation.examples import rollout_examples
from flam_jax.evaluation.networks.lpips import Lpips
from flam_jax.evaluation.rollouts import rounded
from flam_jax.evaluation.transfer import transfer
from flam_jax.reports.run_report import write_report
from flam_jax.world_model import WorldModel

FILE = "evaluation.json"


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
      What the file holds; keys that do not apply to the data set are absent.

    Raises:
      flam_jax.checkpoints.CheckpointError: a stage has no checkpoint.
      flam_jax.evaluation.networks.weights.WeightsError: weights of LPIPS or FVD are there and cannot be used.
      ValueError: the split's clips are too short.
    """
    began = time.monotonic()
    workdir = Path(workdir)
    if dataset is None:
        import data_pipelines

        dataset = data_pipelines.prepare(config.data)
    world_model = WorldModel.restore(workdir) if world_model is None else world_model
    finished = {stage: checkpoints.read_finished(workdir / stage) for stage in ("tokenizer", "dynamics")}
    scores = score(config, world_model, dataset)
    result = {
        "model": config.dynamics.name,
        "dataset": dataset_name(config),
        "split": config.evaluation.split,
        "config_hash": config_hash(config),
        "seed": config.seed,
        "device": describe_device(),
        "steps": {stage: done.get("step", 0) for stage, done in finished.items()},
        "parameters": {
            "tokenizer": _count(world_model.tokenizer_params),
            "dynamics": _count(world_model.dynamics_params),
        },
        "seconds": {stage: done["seconds"] for stage, done in finished.items() if "seconds" in done},
        **scores,
    }
    result["seconds"]["evaluation"] = round(time.monotonic() - began, 1)
    if jax.process_index() == 0:
        checkpoints.write_text(workdir / FILE, json.dumps(result, indent=1) + "\n")
        write_report(config, workdir, result, rollout_examples(config, world_model, dataset))
    return result


def _count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def dataset_name(config: Config) -> str:
    """Short name of the data that a configuration trains on, for example `multigrid 4 agents 64x64`."""
    size = f"{config.data.frame_size}x{config.data.frame_size}"
    if config.data.name == "multigrid":
        grid = config.data.multigrid
        shared = f", {grid.shared_actions} alike" if grid.shared_actions else ""
        return f"multigrid {grid.num_agents} agents{shared} {size}"
    return f"{config.data.procgen.game} {size}"


def describe_device() -> str:
    """Kind and number of the devices at hand."""
    device = jax.devices()[0]
    cores = (
        f", {len(os.sched_getaffinity(0))} cores"
        if device.platform == "cpu" and hasattr(os, "sched_getaffinity")
        else ""
    )
    return f"{jax.device_count()} x {device.device_kind}{cores}"


def score(config: Config, world_model: WorldModel, dataset: Any) -> dict[str, Any]:
    """The measured parts of `evaluation.json`: `rollout`, `actions`; on MultiGrid `binding`, `dci`, `cells`, `leak`."""
    settings = config.evaluation
    judges = perceptual.load_judges(config)  # first: broken weights are told before any work
    lpips = judges.lpips if isinstance(judges.lpips, Lpips) else None
    context, length = settings.context, settings.context + settings.steps
    source = dataset.split(settings.split)
    clips = rolling.choose(len(source), settings.num_clips)
    blank = jnp.asarray(dataset.blank)
    parts, records, played, features = [], [], [], []
    for record, count in rolling.batches(source, clips, settings.batch_size, length):
        given = rolling.told(world_model, record)
        part = rolling.roll_out(world_model, record["frames"], blank, context, given, lpips)
        if not isinstance(judges.i3d, str):
            seen_by_i3d = perceptual.clip_features(judges.i3d, part, record["frames"], dataset.blank)
            features.append({name: values[:count] for name, values in seen_by_i3d.items()})
        parts.append(_without_filling(part, count, settings.batch_size))
        records.append({key: value[:count] for key, value in record.items()})
        played.append((record, count))
    seen = _joined([part.observation for part in parts])
    fvd = judges.i3d if isinstance(judges.i3d, str) else perceptual.fvd(features)
    no_lpips = judges.lpips if isinstance(judges.lpips, str) else ""
    result: dict[str, Any] = {
        "rollout": rolling.summarize(parts, fvd, no_lpips),
        "actions": _action_scores(world_model, seen, settings.batch_size),
    }
    skipped = getattr(source, "unreadable", set()).intersection(clips)  # others stood in for them
    if skipped:
        result["rollout"]["skipped_clips"] = len(skipped)
    if "positions" in records[0]:
        grid_size = config.data.multigrid.grid_size
        record = {key: np.concatenate([part[key] for part in records]) for key in records[0]}
        places = cell_positions(record)
        on_cells = _attention_on_cells(seen.attention, places, grid_size)
        mass, cover = (np.asarray(part).mean(axis=(0, 1)) for part in on_cells)
        fit_split = "val" if settings.split == "test" else "train"
        fit_slots, fit_actions, fit_places, fit_chosen = _observed(
            config, world_model, dataset.split(fit_split), length
        )
        fitted, tested, likelihood = binding.probe_accuracy(
            _frames_first(fit_slots),
            _frames_first(fit_places),
            _frames_first(seen.slots),
            _frames_first(places),
            grid_size,
        )
        result["binding"] = binding.attention_binding(mass, cover) | binding.probe_binding(
            np.asarray(fitted), np.asarray(tested)
        )
        chance = chance_likelihood(_frames_first(fit_places), _frames_first(places), grid_size)
        result["dci"] = dci(np.asarray(likelihood), chance, result["binding"]["probe_accuracy"])
        result["binding"] |= {"mass_matrix": rounded(mass), "cover_matrix": rounded(cover)}
        predicted = np.concatenate([part.predicted for part in parts])
        true = record["frames"][:, context - 1 :]
        ends = (places[:, context - 1 :], record["directions"][:, context - 1 :].astype(np.int32))
        result["cells"] = {
            "predicted": cells.cell_errors(predicted, true, *ends, grid_size),
            "ceiling": cells.cell_errors(np.concatenate([part.ceiling for part in parts]), true, *ends, grid_size),
            "copy_last": cells.cell_errors(np.repeat(true[:, :1], settings.steps, axis=1), true, *ends, grid_size),
        }
        holders = result["binding"]["holders"]
        if seen.action_mean.shape[-1]:
            test = (seen.action_mean, places, record["actions"].astype(np.int32))
            fit = (fit_actions, fit_places, fit_chosen)
            result["actions"]["leak"] = leak.action_leak(fit, test, holders, grid_size)
            chosen, choices = test[2], true_actions(config)[1]
            result["actions"]["clusters"] = actions.action_map(seen.action_mean, chosen[:, :-1], holders, choices)
            directed = actions.directed_actions(chosen, places, record["directions"])
            result["actions"]["direction_aware_clusters"] = actions.action_map(
                seen.action_mean, directed, holders, actions.DIRECTED_ACTIONS
            )
            result["actions"]["transfer"] = _transfer(world_model, dataset, played, context)
    return result


def _transfer(
    world_model: WorldModel, dataset: Any, played: list[tuple[dict[str, np.ndarray], int]], context: int
) -> dict[str, Any] | str:
    batches, displaced = [], []
    try:
        for record, count in played:
            clips = [{key: value[row] for key, value in record.items()} for row in range(len(record["frames"]))]
            twins = [dataset.twin(clip) for clip in clips]
            batches.append((record, {key: np.stack([twin[key] for twin in twins]) for key in twins[0]}, count))
            elsewhere = (batches[-1][1]["positions"] != record["positions"]).any(axis=(1, 3))
            displaced.append(elsewhere[:count])
    except DataError as error:  # the environment may be missing where a trained model is evaluated
        return f"not computed: {error}"
    return transfer(world_model, batches, context) | {"displaced": rounded(np.concatenate(displaced).mean())}


def cell_positions(record: dict[str, np.ndarray]) -> np.ndarray:
    """Rows and columns `i32[b t n 2]` of the agents; the records have columns and rows."""
    return record["positions"][..., ::-1].astype(np.int32)


_attention_on_cells = jax.jit(binding.attention_on_cells, static_argnums=2)


def _observed(config: Config, world_model: WorldModel, source: Any, length: int) -> tuple[np.ndarray, ...]:
    """Slots, means of latent actions, agents' cells and true actions of the clips that probes are fitted on."""
    slots, means, places, chosen = [], [], [], []
    clips = rolling.choose(len(source), config.evaluation.probe_clips)
    for record, count in rolling.batches(source, clips, config.evaluation.batch_size, length):
        seen = world_model.observe(record["frames"], rolling.told(world_model, record))
        slots.append(np.asarray(seen.slots)[:count])
        means.append(np.asarray(seen.action_mean)[:count])
        places.append(cell_positions(record)[:count])
        chosen.append(record["actions"][:count].astype(np.int32))
    return np.concatenate(slots), np.concatenate(means), np.concatenate(places), np.concatenate(chosen)


def _action_scores(world_model: WorldModel, seen: Any, batch_size: int) -> dict[str, Any]:
    mean = np.asarray(seen.action_mean)
    kl, active = np.asarray(seen.action_kl).mean(axis=(0, 1)), np.asarray(actions.active_units(jnp.asarray(mean)))
    result = {
        "kl": rounded(kl.sum()),
        "kl_per_factor": rounded(kl),
        "active_units": int(active.sum()),
        "active_units_per_factor": active.sum(axis=-1).astype(int).tolist(),
        "units": int(active.size),
    }
    size = min(batch_size, len(mean))
    if size < 2:
        return result | {"shuffle_gain": "not computed: needs evaluation.batch_size and clips of at least 2"}
    sums = np.zeros(2)
    for first in range(0, len(mean) - size + 1, size):
        part = jax.tree.map(lambda leaf, first=first: leaf[first : first + size], seen)
        sums += np.asarray(_errors(world_model, part))
    own, shuffled = sums / (len(mean) // size)
    return result | {
        "shuffle_gain": rounded(shuffled / max(own, 1e-8) - 1),
        "error": rounded(own),
        "error_shuffled": rounded(shuffled),
    }


@jax.jit
def _errors(world_model: WorldModel, seen: Any) -> tuple[jax.Array, jax.Array]:
    model, params = world_model.dynamics, world_model.dynamics_params
    return actions.prediction_errors(model, params, seen.features, seen.slots, seen.action_mean)


def _without_filling(tree: Any, count: int, size: int) -> Any:
    """Numpy leaves without the repeated clips that fill the last batch up."""

    def cut(path: Any, leaf: Any) -> np.ndarray:
        # The scores have the axis "source" before that of the batch.
        axis = 1 if path[0].name in ("psnr", "ssim", "moving_error", "lpips") else 0
        assert leaf.shape[axis] == size, f"{path}: axis {axis} of {leaf.shape} should be the batch of {size}"
        return np.take(np.asarray(leaf), np.arange(count), axis=axis)

    return jax.tree_util.tree_map_with_path(cut, tree)


def _joined(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *trees)


def _frames_first(values: np.ndarray) -> np.ndarray:
    """Clips and frames in one axis."""
    return values.reshape(-1, *values.shape[2:])


__all__ = ["FILE", "cell_positions", "dataset_name", "describe_device", "evaluate", "score"]
