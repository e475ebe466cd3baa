"""Adversarial loss of the tokenizer: a discriminator of patches, and the two losses of one backward pass.

A discriminator scores every patch of a frame: high where it takes it for real. It learns with the hinge loss and the R1
penalty (Mescheder et al. 2018), the decoder learns to raise its scores with the adaptive weight of VQGAN (Esser et al.
2021). The gradients of the two do not meet: each sees the other's output as a constant.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

# The discriminator's place in the parameters that the tokenizer's stage trains.
PART = "discriminator"
# Of the squared gradient of a patch's score by pixels in [0, 1].
R1_WEIGHT = 0.05
# Of the ratio of two gradients: the discriminator's may vanish.
_LARGEST_RATIO = 1e4


def without_discriminator(params: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Parameters of a stage as later stages take them: what only its own training needs is left out."""
    return {part: values for part, values in params.items() if part != PART}


class PatchDiscriminator(nn.Module):
    """Residual blocks that halve a frame (StyleGAN2's), down to one score for each patch. Nothing is normalized.

    Attributes:
      channels: of the coarsest scale; each finer one has half of it, 8 at least.
      patch_size: pixels per side of a patch, a power of 2.
    """

    channels: int
    patch_size: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, frames: Float[Array, "b H W 3"]) -> Float[Array, "b h w"]:
        x = frames.astype(self.dtype) * 2.0 - 1.0
        scales = self.patch_size.bit_length() - 1
        widths = [max(self.channels >> (scales - 1 - scale), 8) for scale in range(scales)]
        x = nn.leaky_relu(nn.Conv(widths[0], (4, 4), strides=(2, 2), dtype=self.dtype)(x), 0.2)
        for width in widths[1:]:
            y = nn.leaky_relu(nn.Conv(x.shape[-1], (3, 3), dtype=self.dtype)(x), 0.2)
            y = nn.leaky_relu(nn.Conv(width, (4, 4), strides=(2, 2), dtype=self.dtype)(y), 0.2)
            x = (nn.Dense(width, use_bias=False, dtype=self.dtype)(_halve(x)) + y) * 2**-0.5
        x = nn.leaky_relu(nn.Conv(widths[-1], (3, 3), dtype=self.dtype)(x), 0.2)
        return nn.Conv(1, (3, 3), dtype=self.dtype)(x)[..., 0].astype(jnp.float32)


def adversarial_loss(
    discriminator: nn.Module,
    params: PyTree,
    reconstruction: Float[Array, "b t H W 3"],
    frames: Float[Array, "b t H W 3"],
    gradient: Float[Array, "b t H W 3"],
) -> tuple[Float[Array, ""], Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The decoder's and the discriminator's part of the loss, on single frames.

    The decoder's part is -mean D(x̂), times |∂L_image/∂x̂| / |∂D/∂x̂|: at the reconstruction x̂ it pulls as hard as the
    image loss. The discriminator's is the hinge loss mean max(0, 1 - D(x)) + mean max(0, 1 + D(x̂)), and `R1_WEIGHT`
    times |∂D/∂x|² of real frames x, a mean over patches.

    Args:
      discriminator: frames in [0, 1] to scores of patches.
      params: its parameters. The decoder's part has no gradient by them.
      reconstruction: of the tokenizer. The discriminator's part has no gradient by it.
      frames: that it shows.
      gradient: of the image loss by the reconstruction.

    Returns:
      The decoder's part, the discriminator's part, and values to log.
    """
    flat = (-1, *frames.shape[-3:])
    real, fake = frames.reshape(flat), jax.lax.stop_gradient(reconstruction).reshape(flat)

    def score(params: PyTree, x: jax.Array) -> jax.Array:
        return discriminator.apply({"params": params}, x)  # type: ignore  # scores

    constant = jax.lax.stop_gradient(params)
    value, pull = jax.value_and_grad(lambda x: -score(constant, x).mean())(fake)
    ratio = jnp.linalg.norm(gradient.reshape(-1)) / (jnp.linalg.norm(pull.reshape(-1)) + 1e-8)
    ratio = jax.lax.stop_gradient(jnp.clip(ratio, 0.0, _LARGEST_RATIO))
    # Its gradient is at hand: not passed through the discriminator again.
    adversarial = value + jnp.sum(pull * (reconstruction.reshape(flat) - fake))

    def total(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        scores = score(params, x)
        return scores.sum(), scores

    (_, real_scores), slope = jax.value_and_grad(total, has_aux=True)(real)
    fake_scores = score(params, fake)
    r1 = jnp.sum(jnp.square(slope)) / real_scores.size
    hinge = nn.relu(1.0 - real_scores).mean() + nn.relu(1.0 + fake_scores).mean()
    values = {"adversarial": adversarial, "discriminator": hinge, "r1": r1, "adaptive_weight": ratio}
    return ratio * adversarial, hinge + R1_WEIGHT * r1, values


def _halve(x: Any) -> Any:
    """Means of 2 x 2 pixels."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
