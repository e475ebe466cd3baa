"""What evaluators share: the scored clips rolled out once, and what the model sees in them and in other clips."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from flam_jax.config import Config
from flam_jax.evaluation import perceptual, rollouts
from flam_jax.evaluation.attention import attention_on_cells
from flam_jax.evaluation.networks.lpips import Lpips
from flam_jax.evaluation.probes import Probes, fit_probes
from flam_jax.world_model import Observation, WorldModel

Record = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Played:
    """The scored clips, rolled out.

    Attributes:
      parts: scores and frames by batch, numpy leaves without filling.
      batches: records of every batch with its filling, and how many of its clips are none.
      fvd: by source, or why there is none.
      no_lpips: why there is no LPIPS; empty where there is one.
    """

    parts: list[rollouts.RolloutBatch]
    batches: list[tuple[Record, int]]
    fvd: dict[str, float] | str
    no_lpips: str


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the model sees in clips that probes are fitted on, with the true values.

    Attributes:
      slots: f32[b t k d].
      action_mean: f32[b t-1 k a].
      values: the annotations of every frame by their names, [b t ...].
    """

    slots: np.ndarray
    action_mean: np.ndarray
    values: dict[str, np.ndarray]

    @property
    def cells(self) -> Int[np.ndarray, "b t n 2"]:
        """Row and column of every entity's cell."""
        return rows_and_columns(self.values["positions"])


class EvaluationContext:
    """A model, the clips that it is scored on, and what several evaluators read, computed when first asked for."""

    def __init__(self, config: Config, world_model: WorldModel, dataset: Any):
        """Takes the run's configuration, its model, and the data set (`data_pipelines.prepare`).

        Raises:
          flam_jax.evaluation.networks.weights.WeightsError: weights of LPIPS or FVD are there and cannot be used.
        """
        self.config, self.settings, self.world_model, self.dataset = config, config.evaluation, world_model, dataset
        self.spec = dataset.spec
        self.source = dataset.split(self.settings.split)
        self.clips = rollouts.choose(len(self.source), self.settings.num_clips)
        self.length = self.settings.context + self.settings.steps  # frames of a scored clip
        self._metrics = perceptual.load_metrics(config)

    @functools.cached_property
    def played(self) -> Played:
        """The scored clips, rolled out by the paper's protocol."""
        settings, metrics = self.settings, self._metrics
        lpips = metrics.lpips if isinstance(metrics.lpips, Lpips) else None
        median = jnp.asarray(self.dataset.median_frame)
        parts, batches, features = [], [], []
        for record, count in rollouts.batches(self.source, self.clips, settings.batch_size, self.length):
            given = rollouts.true_actions_for(self.world_model, record)
            shown = record[self.world_model.reads]
            part = rollouts.roll_out(self.world_model, record["frames"], shown, median, settings.context, given, lpips)
            if not isinstance(metrics.i3d, str):
                found = perceptual.clip_features(metrics.i3d, part, record["frames"], self.dataset.median_frame)
                features.append({name: values[:count] for name, values in found.items()})
            parts.append(_without_filling(part, count, settings.batch_size))
            batches.append((record, count))
        fvd = metrics.i3d if isinstance(metrics.i3d, str) else perceptual.fvd(features)
        return Played(parts, batches, fvd, metrics.lpips if isinstance(metrics.lpips, str) else "")

    @functools.cached_property
    def record(self) -> Record:
        """The scored clips' fields that have one entry a frame, [b t ...]."""
        return {
            key: np.concatenate([record[key][:count] for record, count in self.played.batches])
            for key in self.played.batches[0][0]
        }

    @functools.cached_property
    def observation(self) -> Observation:
        """What the model sees in the true frames of the scored clips."""
        seen = [part.observation for part in self.played.parts]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *seen)

    @functools.cached_property
    def cells(self) -> Int[np.ndarray, "b t n 2"]:
        """Row and column of every entity's cell in the scored clips."""
        return rows_and_columns(self.record["positions"])

    @functools.cached_property
    def fitting(self) -> Seen:
        """Clips of another split: `val` where `test` is scored, `train` where `val` is. Probes are fitted on these."""
        source = self.dataset.split("val" if self.settings.split == "test" else "train")
        clips = rollouts.choose(len(source), self.settings.probe_clips)
        found: list[list[np.ndarray]] = []
        annotations: dict[str, list[np.ndarray]] = {}
        for record, count in rollouts.batches(source, clips, self.settings.batch_size, self.length):
            given = rollouts.true_actions_for(self.world_model, record)
            seen = self.world_model.observe(record[self.world_model.reads], given)
            found.append([np.asarray(value)[:count] for value in (seen.slots, seen.action_mean)])
            for name in record.keys() - {"frames", "features"}:
                annotations.setdefault(name, []).append(record[name][:count])
        slots, action_mean = (np.concatenate(values) for values in zip(*found, strict=True))
        return Seen(slots, action_mean, {name: np.concatenate(values) for name, values in annotations.items()})

    @functools.cached_property
    def probes(self) -> Probes:
        """Linear probes of every entity's cell from every slot."""
        fit = self.fitting
        return fit_probes(
            frames_first(fit.slots),
            frames_first(fit.cells),
            frames_first(self.observation.slots),
            frames_first(self.cells),
            max(self.spec.cells),
        )

    @functools.cached_property
    def mass_and_cover(self) -> tuple[Float[np.ndarray, "k n"], Float[np.ndarray, "k n"]]:
        """`attention_on_cells` of the scored clips, averaged over clips and frames."""
        found = attention_on_cells(
            jnp.asarray(self.observation.attention), jnp.asarray(self.cells), cells=self.spec.cells
        )
        mass, cover = (np.asarray(part).mean(axis=(0, 1)) for part in found)
        return mass, cover

    @functools.cached_property
    def holders(self) -> list[int]:
        """For every entity the slot that holds it best, by attention; one slot may hold several."""
        mass, cover = self.mass_and_cover
        return (mass * cover).argmax(axis=0).tolist()


def rows_and_columns(positions: Shaped[np.ndarray, "*b n 2"]) -> Int[np.ndarray, "*b n 2"]:
    """Row and column of every entity's cell; records have x and y."""
    return positions[..., ::-1].astype(np.int32)


def frames_first(values: np.ndarray) -> np.ndarray:
    """Clips and frames in one axis."""
    return values.reshape(-1, *values.shape[2:])


def _without_filling(tree: Any, count: int, size: int) -> Any:
    """Numpy leaves without the repeated clips that fill the last batch up."""

    def shorten(path: Any, leaf: Any) -> np.ndarray:
        # The scores have the axis "source" before that of the batch.
        axis = 1 if path[0].name in ("psnr", "ssim", "moving_error", "feature_error", "lpips") else 0
        assert leaf.shape[axis] == size, f"{path}: axis {axis} of {leaf.shape} should be the batch of {size}"
        return np.take(np.asarray(leaf), np.arange(count), axis=axis)

    return jax.tree_util.tree_map_with_path(shorten, tree)


__all__ = ["EvaluationContext", "Played", "Seen", "frames_first", "rows_and_columns"]
