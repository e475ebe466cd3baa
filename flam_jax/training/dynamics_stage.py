"""Stage 2: factorizer, inverse and forward dynamics and aggregator learn on the frozen tokenizer's features."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flam_jax.baselines.action_conditioned import ActionConditioned
from flam_jax.baselines.object_centric import ObjectCentric
from flam_jax.build import build_dynamics, build_tokenizer, true_actions
from flam_jax.config import Config
from flam_jax.dynamics.factorizer import Competition
from flam_jax.dynamics.flam import FlamOutput
from flam_jax.dynamics.loss import dynamics_loss
from flam_jax.pictures import rollout_picture, slot_picture, to_uint8
from flam_jax.training.codes import code_type, encode_records
from flam_jax.training.health import action_leak, centroids, code_use, health_values, health_warnings
from flam_jax.training.stage import Batch
from flam_jax.training.state import WHOLE, Span
from flam_jax.training.tokenizer_stage import to_float
from flam_jax.training.validation import mean_values, validation_batches
from flam_jax.world_model import WorldModel


class DynamicsStage:
    """Next-feature prediction with a penalty on what the latent actions say."""

    name = "dynamics"

    def __init__(self, config: Config, dataset: Any, tokenizer_params: Any):
        """Takes the whole configuration, the data set (`data_pipelines.prepare`), and the trained tokenizer."""
        self.config, self.dataset = config, dataset
        self.tokenizer, self.module = build_tokenizer(config), build_dynamics(config)
        self.frozen = tokenizer_params
        self.fields = config.dynamics
        # Of the records' fields, what a step reads beside the frames.
        self.told = ("actions",) if isinstance(self.module, ActionConditioned) else ()

    def make_loader(self, rows: Sequence[int] | None = None) -> Any:
        """Training batches, or certain rows of them: frames, or their codes with `cache_codes`."""
        from data_pipelines import make_loader

        training, records = self.fields.training, self.dataset.split("train")
        if self.fields.cache_codes:
            records = encode_records(self.tokenizer, self.frozen, records, self.told)
        return make_loader(
            records,
            keys=("codes" if self.fields.cache_codes else "frames", *self.told),
            batch_size=training.batch_size,
            window=training.window,
            seed=self.config.seed,
            num_workers=self.config.data.loader_workers,
            rows=rows,
        )

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """What the loader gives, as shapes."""
        leading, size = (batch_size, self.fields.training.window), self.config.data.frame_size
        shapes = {"frames": jax.ShapeDtypeStruct((*leading, size, size, 3), jnp.uint8)}
        if self.fields.cache_codes:
            grid = size // self.config.tokenizer.patch_size
            shapes = {"codes": jax.ShapeDtypeStruct((*leading, grid, grid), code_type(self.tokenizer.levels))}
        if self.told:
            actors, _ = true_actions(self.config)
            actions = leading if self.config.data.name == "procgen" else (*leading, actors)
            shapes["actions"] = jax.ShapeDtypeStruct(actions, jnp.int8)
        return shapes

    def init(self, key: jax.Array, batch: Batch) -> Mapping[str, Any]:
        first, second = jax.random.split(key)
        features = self._features(batch)
        return self.module.init({"params": first, "action": second}, features[:1])

    def loss(
        self, params: Any, batch: Batch, key: jax.Array, progress: jax.Array
    ) -> tuple[jax.Array, Mapping[str, jax.Array]]:
        features = self._features(batch)
        noise_key, action_key = jax.random.split(key)
        kl_weight = self.kl_weight(progress)
        competition = self.competition(progress, noise_key, features.shape[0])
        start = self.fields.prediction_steps_start
        several = progress >= start if start > 0 else True
        slots_first = self._learns_slots(progress) if self._slot_parts else False
        phase = dict(several=several, slots_first=slots_first, actions=self._true_actions(batch))
        loss, metrics, _ = self._dynamics_loss(params, features, action_key, kl_weight, competition, **phase)
        return loss, {**metrics, "kl_weight": kl_weight, "sharpness": competition.sharpness.mean()}

    def kl_weight(self, progress: jax.Array | float) -> jax.Array:
        """β at a share of training: constant, then geometrically (linearly, where one end is 0) to its final value."""
        first, last, start = self.fields.kl_weight, self.fields.kl_weight_final, self.fields.kl_anneal_start
        share = jnp.clip((progress - start) / max(1 - start, 1e-6), 0, 1)
        if first > 0 and last > 0:
            return first * (last / first) ** share
        return first + (last - first) * share

    def competition(self, progress: jax.Array | float, key: jax.Array, batch: int) -> Competition:
        """How the slots of `batch` examples compete at a share of training.

        The sharpness grows geometrically, with noise while it does; the noise of the queries falls linearly. The
        balance falls late: a slot that shares an entity and the background evenly with others lets go of it when the
        competition is sharp enough to choose, and it is the balance that says of what. Where slots are learned apart
        and then frozen, all this happens while they are learned.
        """
        fields = self.fields
        warmup = fields.slot_anneal_end * (fields.slot_training_share if self._slot_parts else 1)
        share = jnp.clip(progress / max(warmup, 1e-6), 0, 1)
        jitter_key, query_key = jax.random.split(key)
        jitter = jnp.where(share < 1, fields.inverse_temperature_jitter, 0.0) * jax.random.normal(jitter_key, (batch,))
        sharpness = fields.inverse_temperature * fields.inverse_temperature_start ** (1 - share) * jnp.exp(jitter)
        noise = jax.random.normal(query_key, (batch, fields.num_factors, fields.model_dim))
        balance = fields.separation_penalty * (1 - share**4) if fields.separation_penalty else None
        return Competition(sharpness, fields.query_noise * (1 - share) * noise, balance)

    def evaluate(
        self, variables: Mapping[str, Any], step: int, progress: float
    ) -> tuple[Mapping[str, float], Mapping[str, np.ndarray]]:
        actions, positions, codes = [], [], []

        def judge(batch: Batch) -> Mapping[str, jax.Array]:
            batch = {**batch, "frozen": self.frozen}
            values, action, position, code = self._judge(variables["params"], batch, jnp.float32(progress))
            actions.append(np.asarray(action))
            positions.append(np.asarray(position))
            if code is not None:
                codes.append(np.asarray(code))
            return values

        values = mean_values(judge, self._validation)
        leak = action_leak(actions, positions)
        if np.isfinite(leak):
            values["action_leak"] = leak
        if codes:
            values |= code_use(codes)
        return {f"validation/{name}": value for name, value in values.items()}, self._pictures(variables)

    def span(self, part: str) -> Span:
        """Slots that are learned apart are frozen at `slot_training_share`; the dynamics on them wait until then."""
        if not self._slot_parts:
            return WHOLE
        share = self.fields.slot_training_share
        return (0.0, share) if part in self._slot_parts else (share, 1.0)

    def warnings(self, values: Mapping[str, float]) -> list[str]:
        """What collapsed, and the remedy."""
        return health_warnings(values)

    def prepare(self, batch: Batch) -> Batch:
        """Frames or codes as the features that the loss works on."""
        features = self._features(batch)
        return {**{name: value for name, value in batch.items() if name in self.told}, "features": features}

    def _features(self, batch: Batch) -> jax.Array:
        if "features" in batch:
            return batch["features"]
        frozen = {"params": batch["frozen"]}
        if "codes" in batch:
            codes = jnp.asarray(batch["codes"], jnp.int32)
            return self.tokenizer.apply(frozen, codes, method="features")  # type: ignore
        features = self.tokenizer.apply(frozen, to_float(batch["frames"]), method="encode")
        return jax.lax.stop_gradient(features)  # type: ignore

    def _true_actions(self, batch: Batch) -> jax.Array | None:
        """The actions that the model is told, if it is."""
        if isinstance(self.module, ActionConditioned):
            return self.module.joint_token(jnp.asarray(batch["actions"], jnp.int32))
        return None

    @property
    def _slot_parts(self) -> tuple[str, ...]:
        """Parts of a model that learns its slots first, and its dynamics when these are frozen; none of the others."""
        return self.module.slot_parts if isinstance(self.module, ObjectCentric) else ()

    def _learns_slots(self, progress: jax.Array) -> jax.Array:
        """Whether such a model learns its slots at this share of training."""
        return progress < self.fields.slot_training_share

    def _dynamics_loss(
        self, params: Any, features: Any, key: Any, kl_weight: Any, competition: Any, **phase: Any
    ) -> Any:
        return dynamics_loss(
            self.module,
            {"params": params},
            features,
            key,
            kl_weight=kl_weight,
            prediction_steps=self.fields.prediction_steps,
            levels=tuple(self.tokenizer.levels) if self.fields.quantize_predictions else None,
            competition=competition,
            **phase,
        )

    @functools.cached_property
    def _validation(self) -> list[dict[str, np.ndarray]]:
        training = self.fields.training
        keys = ("frames", *self.told)
        return validation_batches(self.dataset.split("val"), training.batch_size, training.window, keys=keys)

    @functools.partial(jax.jit, static_argnums=0)
    def _judge(self, params: Any, batch: Batch, progress: jax.Array) -> Any:
        """Values of one validation batch, its latent actions, the next positions of the slots, and the codes."""
        features, actions = self._features(batch), self._true_actions(batch)
        key, kl_weight = jax.random.key(0), self.kl_weight(progress)
        loss, metrics, _ = self._dynamics_loss(params, features, key, kl_weight, None, actions=actions)
        output = self.module.apply({"params": params}, features, None, actions)
        assert isinstance(output, FlamOutput)
        shuffled = jnp.roll(output.action_mean, 1, axis=0)
        exchanged = self.module.apply({"params": params}, features, None, shuffled)
        assert isinstance(exchanged, FlamOutput)
        own, others = (
            jnp.square(result.next_features - features[:, 1:]).sum(axis=(-3, -2, -1)).mean()
            for result in (output, exchanged)
        )
        values = {"loss": loss, **metrics, **health_values(output)}
        values["shuffle_gain"] = others / jnp.maximum(own, 1e-9) - 1
        if self._slot_parts:
            values["slot_loss"] = output.slot_loss
        return values, output.action_mean, centroids(output.attention)[:, 1:], output.action_codes

    @functools.cached_property
    def _clips(self) -> dict[str, jax.Array]:
        length = self.config.evaluation.context + self.config.evaluation.steps
        keys = ("frames", *self.told)
        batch = validation_batches(self.dataset.split("val"), 2, length, num_windows=2, keys=keys)[0]
        return {name: jnp.asarray(value) for name, value in batch.items()}

    def _pictures(self, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Rollouts, true frames above imagined ones, and what every factor looks at."""
        model = WorldModel.from_parts(self.config, self.frozen, variables["params"])
        clips, told, context = self._clips["frames"], self._clips.get("actions"), self.config.evaluation.context
        actions = model.infer_actions(clips, told)[:, context - 1 :]
        told = None if told is None else told[:, :context]
        imagined = to_uint8(np.asarray(model.rollout(clips[:, :context], actions, told)))
        masks = np.asarray(model.factor_masks(clips))
        pictures = {}
        for index, clip in enumerate(np.asarray(clips)):
            pictures[f"rollout_{index}"] = rollout_picture(clip, imagined[index], masks[index])
            pictures[f"factors_{index}"] = slot_picture(clip, masks[index])
        return pictures
