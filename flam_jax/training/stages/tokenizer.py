"""Stage 1: the tokenizer learns to reconstruct frames from codes."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, UInt8

from flam_jax.build import build_tokenizer
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
        fields = ("change_weight", "consistency_weight", "lpips_weight")
        self.weights = {name: config.tokenizer[name] for name in fields}

    def make_loader(self, rows: Sequence[int] | None = None) -> Loader:
        """Training batches, or certain rows of them."""
        from data_pipelines import make_loader

        training = self.config.tokenizer.training
        return make_loader(
            self.dataset.split("train"),
            batch_size=training.batch_size,
            window=training.window,
            seed=self.config.seed,
            num_workers=self.config.data.loader_workers,
            rows=rows,
        )

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """What the loader gives, as shapes."""
        window, size = self.config.tokenizer.training.window, self.config.data.frame_size
        return {"frames": jax.ShapeDtypeStruct((batch_size, window, *size, 3), jnp.uint8)}

    def init(self, key: PRNGKeyArray, frozen: Frozen, batch: Batch) -> Mapping[str, Any]:
        return self.module.init(key, to_float(batch["frames"][:1, :1]))

    def loss(
        self, params: PyTree, frozen: Frozen, batch: Batch, key: PRNGKeyArray, progress: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Mapping[str, Any]]:
        frames, fields = jnp.asarray(batch["frames"]), self.config.tokenizer
        if fields.patches_share < 1:
            patches = frames[0, ..., 0].size // fields.patch_size**2
            count = max(round(fields.patches_share * patches), 1)
            frames = draw_patches(key, frames, fields.patch_size, count, RARE_PATCH_POWER)
        frames = to_float(frames)
        return tokenizer_loss(
            self._output({"params": params}, frames), frames, lpips=frozen.get("lpips"), **self.weights
        )

    def prepare(self, frozen: Frozen, batch: Batch) -> Batch:
        return batch

    def span(self, part: str) -> Span:
        return WHOLE

    def evaluate(
        self, variables: Mapping[str, Any], step: int, progress: float
    ) -> tuple[Mapping[str, float], Mapping[str, UInt8[np.ndarray, "H W 3"]]]:
        values = mean_values(functools.partial(self._judge, variables, self.frozen), self._validation)
        frames = self._validation[0]["frames"][:NUM_PICTURES, -1]
        reconstruction = to_uint8(np.asarray(self._reconstruct(variables, frames)))
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
        return validation_batches(self.dataset.split("val"), training.batch_size, training.window)

    def _output(self, variables: Any, frames: jax.Array) -> TokenizerOutput:
        output = self.module.apply(variables, frames)
        assert isinstance(output, TokenizerOutput)
        return output

    @functools.partial(jax.jit, static_argnums=0)
    def _reconstruct(self, variables: Any, frames: jax.Array) -> jax.Array:
        return self._output(variables, to_float(frames)).reconstruction

    @functools.partial(jax.jit, static_argnums=0)
    def _judge(self, variables: Any, frozen: Frozen, batch: Batch) -> dict[str, jax.Array]:
        x = to_float(batch["frames"])
        output = self._output(variables, x)
        loss, parts = tokenizer_loss(output, x, lpips=frozen.get("lpips"), **self.weights)
        levels = tuple(self.module.levels)
        return {"loss": loss, **parts} | tokenizer_metrics(output, x, levels)


def to_float(frames: Any) -> jax.Array:
    """u8 frames as f32 in [0, 1]."""
    return jnp.asarray(frames).astype(jnp.float32) / 255.0
