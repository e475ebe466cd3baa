"""Stage 1: the tokenizer learns to reconstruct frames from codes."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, UInt8

from flam_jax.build import build_tokenizer, feature_shape
from flam_jax.config import Config
from flam_jax.evaluation.perceptual import load_metrics
from flam_jax.pictures import labelled, to_uint8
from flam_jax.tokenizer.loss import tokenizer_loss, tokenizer_metrics
from flam_jax.tokenizer.patches import draw_patches
from flam_jax.tokenizer.tokenizer import TokenizerOutput
from flam_jax.training.batches import Loader
from flam_jax.training.stage import Batch, Frozen
from flam_jax.training.state import WHOLE, Span
from flam_jax.training.validation import mean_values, validation_batches

# Of the draw of patches: docs/decisions/rare_patches.md.
RARE_PATCH_POWER = 0.4

NUM_PICTURES = 8


class TokenizerStage:
    """Reconstruction of single frames. Windows of several frames only show which pixels change."""

    name = "tokenizer"
    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Config, dataset: Any, frozen: Frozen):
        """As `StageClass`."""
        self.config, self.dataset = config, dataset
        lpips = load_metrics(config).lpips if config.tokenizer.lpips_weight else ""
        self.frozen = frozen if isinstance(lpips, str) else {**frozen, "lpips": lpips}
        self.module = build_tokenizer(config)
        # Of the records' fields, what a step reads: what is reconstructed, and what from.
        self.keys = tuple(dict.fromkeys(("frames", self.module.reads)))
        fields = ("change_weight", "consistency_weight", "lpips_weight")
        self.weights = {name: config.tokenizer[name] for name in fields}

    def make_loader(self, rows: Sequence[int] | None = None) -> Loader:
        """Training batches, or certain rows of them."""
        from data_pipelines import make_loader

        training = self.config.tokenizer.training
        return make_loader(
            self.dataset.split("train"),
            keys=self.keys,
            batch_size=training.batch_size,
            window=training.window,
            seed=self.config.seed,
            num_workers=self.config.data.loader_workers,
            rows=rows,
        )

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """What the loader gives, as shapes."""
        leading = (batch_size, self.config.tokenizer.training.window)
        shapes = {"frames": jax.ShapeDtypeStruct((*leading, *self.config.data.frame_size, 3), jnp.uint8)}
        if "features" in self.keys:
            shapes["features"] = jax.ShapeDtypeStruct((*leading, *feature_shape(self.config)), jnp.float16)
        return shapes

    def init(self, key: PRNGKeyArray, frozen: Frozen, batch: Batch) -> Mapping[str, Any]:
        return self.module.init(key, to_float(batch[self.module.reads][:1, :1]))

    def loss(
        self, params: PyTree, frozen: Frozen, batch: Batch, key: PRNGKeyArray, progress: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Mapping[str, Any]]:
        frames, fields = jnp.asarray(batch["frames"]), self.config.tokenizer
        if fields.patches_share < 1:
            patches = frames[0, ..., 0].size // fields.patch_size**2
            count = max(round(fields.patches_share * patches), 1)
            frames = draw_patches(key, frames, fields.patch_size, count, RARE_PATCH_POWER)
        read = frames if self.module.reads == "frames" else batch[self.module.reads]
        output = self._output({"params": params}, read)
        return tokenizer_loss(output, to_float(frames), lpips=frozen.get("lpips"), **self.weights)

    def prepare(self, frozen: Frozen, batch: Batch) -> Batch:
        return batch

    def span(self, part: str) -> Span:
        return WHOLE

    def evaluate(
        self, variables: Mapping[str, Any], step: int, progress: float
    ) -> tuple[Mapping[str, float], Mapping[str, UInt8[np.ndarray, "H W 3"]]]:
        values = mean_values(functools.partial(self._judge, variables, self.frozen), self._validation)
        shown = {key: value[:NUM_PICTURES, -1] for key, value in self._validation[0].items()}
        frames = shown["frames"]
        reconstruction = to_uint8(np.asarray(self._reconstruct(variables, shown[self.module.reads])))
        picture = labelled([("true", frames), ("decoded", reconstruction)])
        return {f"validation/{name}": value for name, value in values.items()}, {"reconstruction": picture}

    def warnings(self, values: Mapping[str, float]) -> list[str]:
        """Names what keeps the dynamics from learning on these codes."""
        found = []
        if values.get("validation/codes_used", 99) < 8:
            found.append(
                f"only {values['validation/codes_used']:.0f} codes are used, hardly more than the background needs;"
                " raise tokenizer.change_weight"
            )
        if values.get("validation/code_jitter", 0) > 0.1:
            found.append(
                f"{values['validation/code_jitter']:.0%} of the patches that stand still change their code, noise that"
                " the dynamics must predict; use a smaller receptive field or tokenizer.consistency_weight > 0"
            )
        return found

    @functools.cached_property
    def _validation(self) -> list[dict[str, np.ndarray]]:
        training = self.config.tokenizer.training
        return validation_batches(self.dataset.split("val"), training.batch_size, training.window, keys=self.keys)

    def _output(self, variables: Any, read: Any) -> TokenizerOutput:
        output = self.module.apply(variables, to_float(read))
        assert isinstance(output, TokenizerOutput)
        return output

    @functools.partial(jax.jit, static_argnums=0)
    def _reconstruct(self, variables: Any, read: jax.Array) -> jax.Array:
        return self._output(variables, read).reconstruction

    @functools.partial(jax.jit, static_argnums=0)
    def _judge(self, variables: Any, frozen: Frozen, batch: Batch) -> dict[str, jax.Array]:
        x = to_float(batch["frames"])
        output = self._output(variables, batch[self.module.reads])
        loss, parts = tokenizer_loss(output, x, lpips=frozen.get("lpips"), **self.weights)
        return {"loss": loss, **parts} | tokenizer_metrics(output, x, tuple(self.module.levels))


def to_float(read: Any) -> jax.Array:
    """u8 frames as f32 in [0, 1]; features as f32."""
    read = jnp.asarray(read)
    return read.astype(jnp.float32) / 255.0 if read.dtype == jnp.uint8 else read.astype(jnp.float32)
