"""Stage 1: the tokenizer learns to reconstruct frames from codes."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, UInt8

from flam_jax.build import build_discriminator, build_tokenizer, feature_shape
from flam_jax.config import Config
from flam_jax.evaluation.perceptual import load_metrics
from flam_jax.metrics import ssim
from flam_jax.pictures import labelled, to_uint8
from flam_jax.tokenizer.discriminator import PART, adversarial_loss
from flam_jax.tokenizer.loss import image_loss, tokenizer_loss, tokenizer_metrics
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
    """Reconstruction of frames. Windows show which pixels change and, to a causal encoder, the frames before.

    With an adversarial loss the parameters have a part of their own for the discriminator.
    """

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
        self.discriminator = build_discriminator(config) if config.tokenizer.adversarial_weight else None
        fields = ("change_weight", "consistency_weight", "lpips_weight", "entropy_weight")
        self.weights = {name: config.tokenizer[name] for name in fields}
        self.levels = tuple(self.module.levels)

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
        variables = self.module.init(key, to_float(batch[self.module.reads][:1, :1]))
        if self.discriminator is None:
            return variables
        added = self.discriminator.init(jax.random.fold_in(key, 1), to_float(batch["frames"][:1, 0]))
        return {"params": {**variables["params"], PART: added["params"]}}

    def loss(
        self, params: PyTree, frozen: Frozen, batch: Batch, key: PRNGKeyArray, progress: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Mapping[str, Any]]:
        frames, fields = jnp.asarray(batch["frames"]), self.config.tokenizer
        if fields.patches_share < 1:
            patches = frames[0, ..., 0].size // fields.patch_size**2
            count = max(round(fields.patches_share * patches), 1)
            frames = draw_patches(key, frames, fields.patch_size, count, RARE_PATCH_POWER)
        output = self._output({"params": params}, frames if self.module.reads == "frames" else batch["features"])
        frames = to_float(frames)
        loss, metrics = self._loss(output, frames, frozen)
        if self.discriminator is not None:
            added, values = self._adversarial(params[PART], output.reconstruction, frames, frozen, progress)
            loss, metrics = loss + added, {**metrics, **values}
        return loss, metrics

    def _loss(
        self, output: TokenizerOutput, frames: jax.Array, frozen: Frozen
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        return tokenizer_loss(output, frames, lpips=frozen.get("lpips"), levels=self.levels, **self.weights)

    def _adversarial(
        self, params: PyTree, reconstruction: jax.Array, frames: jax.Array, frozen: Frozen, progress: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The adversarial loss of decoder and discriminator, zero before its start, and its values."""
        assert self.discriminator is not None
        weights = {name: self.weights[name] for name in ("change_weight", "lpips_weight")}
        image = functools.partial(image_loss, frames=frames, lpips=frozen.get("lpips"), **weights)
        gradient = jax.grad(lambda x: image(x)[0])(jax.lax.stop_gradient(reconstruction))
        of_decoder, of_discriminator, values = adversarial_loss(
            self.discriminator, params, reconstruction, frames, gradient
        )
        # Computed before the start, too: XLA runs convolutions within a condition many times slower on a CPU.
        started = (progress >= self.config.tokenizer.adversarial_start).astype(jnp.float32)
        added = self.config.tokenizer.adversarial_weight * of_decoder + of_discriminator
        return started * added, {name: started * value for name, value in values.items()}

    def prepare(self, frozen: Frozen, batch: Batch) -> Batch:
        return batch

    def span(self, part: str) -> Span:
        """The discriminator is trained from the start of the adversarial loss on, all else always."""
        return (self.config.tokenizer.adversarial_start, 1.0) if part == PART else WHOLE

    def evaluate(
        self, variables: Mapping[str, Any], step: int, progress: float
    ) -> tuple[Mapping[str, float], Mapping[str, UInt8[np.ndarray, "H W 3"]]]:
        values = mean_values(functools.partial(self._judge, variables, self.frozen), self._validation)
        shown = {key: value[:NUM_PICTURES] for key, value in self._validation[0].items()}
        reconstruction = to_uint8(np.asarray(self._reconstruct(variables, shown[self.module.reads])))
        picture = labelled([("true", shown["frames"][:, -1]), ("decoded", reconstruction)])
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
        """The last frame of every window."""
        return self._output(variables, read).reconstruction[:, -1]

    @functools.partial(jax.jit, static_argnums=0)
    def _judge(self, variables: Any, frozen: Frozen, batch: Batch) -> dict[str, jax.Array]:
        frames = to_float(batch["frames"])
        output = self._output(variables, batch[self.module.reads])
        loss, parts = self._loss(output, frames, frozen)
        similarity = ssim(output.reconstruction.clip(0.0, 1.0), frames).mean()
        return {"loss": loss, **parts, "ssim": similarity, **tokenizer_metrics(output, frames, self.levels)}


def to_float(read: Any) -> jax.Array:
    """u8 frames as f32 in [0, 1]; features as f32."""
    read = jnp.asarray(read)
    return read.astype(jnp.float32) / 255.0 if read.dtype == jnp.uint8 else read.astype(jnp.float32)
