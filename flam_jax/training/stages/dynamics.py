"""Stage 2: factorizer, inverse and forward dynamics and aggregator learn on the frozen tokenizer's features."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, UInt8

from data_pipelines import spec_of
from flam_jax.build import build_dynamics, build_tokenizer, feature_shape
from flam_jax.config import Config
from flam_jax.dynamics import schedules
from flam_jax.dynamics.interface import ModelOutput
from flam_jax.dynamics.loss import dynamics_loss
from flam_jax.evaluation.runner import measure_in_training
from flam_jax.metrics import prediction_errors
from flam_jax.pictures import rollout_picture, slot_picture, to_uint8
from flam_jax.training.batches import Loader
from flam_jax.training.codes import encode_records
from flam_jax.training.health import action_leak, centroids, code_use, health_values, health_warnings
from flam_jax.training.stage import Batch, Frozen
from flam_jax.training.stages.tokenizer import to_float
from flam_jax.training.state import Span
from flam_jax.training.validation import mean_values, validation_batches
from flam_jax.world_model import WorldModel


class DynamicsStage:
    """Next-feature prediction with a penalty on the nats that the latent actions carry."""

    name = "dynamics"
    needs: ClassVar[tuple[str, ...]] = ("tokenizer",)

    def __init__(self, config: Config, dataset: Any, frozen: Frozen):
        """As `StageClass`."""
        self.config, self.dataset, self.frozen = config, dataset, frozen
        self.tokenizer = build_tokenizer(config)
        self.module: Any = build_dynamics(config)  # a linen module
        self.fields = config.dynamics
        # Of the records' fields, what a step reads beside frames or codes.
        self.action_keys = ("actions",) if self.module.spec.action_source == "given" else ()
        self.keys = tuple(dict.fromkeys(("frames", self.tokenizer.reads, *self.action_keys)))  # of an evaluation

    def make_loader(self, rows: Sequence[int] | None = None) -> Loader:
        """Training batches, or certain rows of them: frames, or their codes with `cache_codes`."""
        from data_pipelines import CopyPaste, make_loader

        training, records = self.fields.training, self.dataset.split("train")
        if self.fields.copy_paste:
            seed = self.config.data.seed
            records = CopyPaste(records, self.dataset.median_frame, self.fields.copy_paste, seed)
        if self.fields.cache_codes:
            records = encode_records(self.tokenizer, self.frozen["tokenizer"], records, self.action_keys)
        return make_loader(
            records,
            keys=("codes" if self.fields.cache_codes else self.tokenizer.reads, *self.action_keys),
            batch_size=training.batch_size,
            window=training.window,
            seed=self.config.seed,
            num_workers=self.config.data.loader_workers,
            rows=rows,
        )

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """What the loader gives, as shapes."""
        leading, (*grid, channels) = (batch_size, self.fields.training.window), feature_shape(self.config)
        if self.fields.cache_codes:
            shapes = {"codes": jax.ShapeDtypeStruct((*leading, *grid, channels), jnp.uint8)}
        elif self.tokenizer.reads == "features":
            shapes = {"features": jax.ShapeDtypeStruct((*leading, *grid, channels), jnp.float16)}
        else:
            shapes = {"frames": jax.ShapeDtypeStruct((*leading, *self.config.data.frame_size, 3), jnp.uint8)}
        if self.action_keys:
            actions = spec_of(self.config.data).annotations["actions"]
            shapes["actions"] = jax.ShapeDtypeStruct((*leading, *actions.shape), actions.dtype)
        return shapes

    def init(self, key: PRNGKeyArray, frozen: Frozen, batch: Batch) -> Mapping[str, Any]:
        first, second = jax.random.split(key)
        features = self._features(frozen, batch)
        return self.module.init({"params": first, "action": second}, features[:1])

    def loss(
        self, params: PyTree, frozen: Frozen, batch: Batch, key: PRNGKeyArray, progress: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Mapping[str, Any]]:
        features = self._features(frozen, batch)
        noise_key, action_key = jax.random.split(key)
        kl_weight = self.kl_weight(progress)
        annealing = self.annealing(progress, noise_key, features.shape[0])
        loss, metrics, _ = self._dynamics_loss(
            params,
            features,
            action_key,
            kl_weight,
            annealing=annealing,
            multi_step=schedules.multi_step(progress, self.fields.prediction_steps_start),
            progress=progress,
            true_actions=self._true_actions(batch),
        )
        inverse_temperature = annealing.inverse_temperature.mean()
        return loss, {**metrics, "kl_weight": kl_weight, "inverse_temperature": inverse_temperature}

    def kl_weight(self, progress: jax.Array | float) -> jax.Array:
        """β at a share of training."""
        fields = self.fields
        return schedules.beta(
            progress, start=fields.kl_weight, end=fields.kl_weight_final, anneal_start=fields.kl_anneal_start
        )

    def annealing(self, progress: jax.Array | float, key: jax.Array, batch: int) -> schedules.SlotAnnealing:
        """Of the slot attention of `batch` examples at a share of training.

        It takes place while slots are learned: in the first phase, for which the fields' shares of training are meant.
        """
        fields = self.fields
        return schedules.slot_annealing(
            progress,
            key,
            (batch, fields.num_factors, fields.model_dim),
            end=fields.slot_anneal_end * self.module.spec.phases[0].end,
            full_inverse_temperature=fields.inverse_temperature,
            inverse_temperature_start=fields.inverse_temperature_start,
            inverse_temperature_jitter=fields.inverse_temperature_jitter,
            query_noise=fields.query_noise,
            separation_penalty=fields.separation_penalty,
        )

    def evaluate(
        self, variables: Mapping[str, Any], step: int, progress: float
    ) -> tuple[Mapping[str, float], Mapping[str, UInt8[np.ndarray, "H W 3"]]]:
        actions, positions, codes = [], [], []

        def judge(batch: Batch) -> Mapping[str, jax.Array]:
            values, action, position, code = self._judge(variables["params"], self.frozen, batch, jnp.float32(progress))
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
        found = {f"validation/{name}": value for name, value in values.items()}
        model = WorldModel.from_parts(self.config, self.frozen["tokenizer"], variables["params"])
        every = self.config.evaluation.every
        if every and step % every == 0:
            measured = measure_in_training(self.config, model, self.dataset)
            found |= {f"evaluation/{name}": value for name, value in measured.items()}
        return found, self._pictures(model)

    def span(self, part: str) -> Span:
        """When a part of the parameters is trained: from its first phase to its last."""
        phases = [phase for phase in self.module.spec.phases if not phase.parts or part in phase.parts]
        return phases[0].start, phases[-1].end

    def warnings(self, values: Mapping[str, float]) -> list[str]:
        """What collapsed, and the remedy."""
        return health_warnings(values)

    def prepare(self, frozen: Frozen, batch: Batch) -> Batch:
        """Frames, codes or features of the records as the features that the loss works on."""
        features = self._features(frozen, batch)
        return {**{name: value for name, value in batch.items() if name in self.action_keys}, "encoded": features}

    def _features(self, frozen: Frozen, batch: Batch) -> jax.Array:
        if "encoded" in batch:
            return batch["encoded"]
        variables = {"params": frozen["tokenizer"]}
        if "codes" in batch:
            return self.tokenizer.apply(variables, jnp.asarray(batch["codes"]), method="features")  # type: ignore
        features = self.tokenizer.apply(variables, to_float(batch[self.tokenizer.reads]), method="encode")
        return jax.lax.stop_gradient(features)  # type: ignore

    def _true_actions(self, batch: Batch) -> jax.Array | None:
        """The true actions, for a model that is given them; None for one that infers its own."""
        return jnp.asarray(batch["actions"], jnp.int32) if self.action_keys else None

    def _dynamics_loss(self, params: Any, features: Any, key: Any, kl_weight: Any, **options: Any) -> Any:
        return dynamics_loss(
            self.module,
            {"params": params},
            features,
            key,
            kl_weight=kl_weight,
            prediction_steps=self.fields.prediction_steps,
            levels=tuple(self.tokenizer.levels),
            **options,
        )

    @functools.cached_property
    def _validation(self) -> list[dict[str, np.ndarray]]:
        training = self.fields.training
        return validation_batches(self.dataset.split("val"), training.batch_size, training.window, keys=self.keys)

    @functools.partial(jax.jit, static_argnums=0)
    def _judge(self, params: Any, frozen: Frozen, batch: Batch, progress: jax.Array) -> Any:
        """Values of one validation batch, its latent actions, the next positions of the slots, and the codes."""
        features, true_actions = self._features(frozen, batch), self._true_actions(batch)
        key, kl_weight = jax.random.key(0), self.kl_weight(progress)
        loss, metrics, _ = self._dynamics_loss(params, features, key, kl_weight, true_actions=true_actions)
        output = self.module.apply({"params": params}, features, None, None, true_actions)
        assert isinstance(output, ModelOutput)
        seen = (features, output.slots, output.attention, output.action_mean)
        own, others = prediction_errors(self.module, params, *seen)
        values = {"loss": loss, **metrics, **health_values(output)}
        values["shuffle_gain"] = others / jnp.maximum(own, 1e-9) - 1
        codes = output.extras.get("action_codes")
        return values, output.action_mean, centroids(output.attention)[:, 1:], codes

    @functools.cached_property
    def _clips(self) -> dict[str, jax.Array]:
        length = self.config.evaluation.context + self.config.evaluation.steps
        batch = validation_batches(self.dataset.split("val"), 2, length, num_windows=2, keys=self.keys)[0]
        return {name: jnp.asarray(value) for name, value in batch.items()}

    def _pictures(self, model: WorldModel) -> dict[str, np.ndarray]:
        """Rollouts, true frames above imagined ones, and the masks of the factors."""
        clips, true, context = self._clips[model.reads], self._clips.get("actions"), self.config.evaluation.context
        actions = model.infer_actions(clips, true)[:, context - 1 :]
        true = None if true is None else true[:, :context]
        imagined = to_uint8(np.asarray(model.rollout(clips[:, :context], actions, true_actions=true)))
        masks = np.asarray(model.factor_masks(clips))
        pictures = {}
        for index, clip in enumerate(np.asarray(self._clips["frames"])):
            pictures[f"rollout_{index}"] = rollout_picture(clip, imagined[index], masks[index])
            pictures[f"factors_{index}"] = slot_picture(clip, masks[index])
        return pictures
