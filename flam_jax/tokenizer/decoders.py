"""Decoders: quantized features to frames."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flam_jax.tokenizer.encoders import ResidualBlock
from flam_jax.tokenizer.patches import from_patches


class CnnDecoder(nn.Module):
    """Mirror image of `ImpalaEncoder`: residual blocks at every scale, sub-pixel convolutions between the scales."""

    channels: int
    patch_size: int
    num_res_blocks: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, "b h w c"]) -> Float[Array, "b H W 3"]:
        x = nn.Conv(self.channels, (3, 3), dtype=self.dtype)(features.astype(self.dtype))
        scales = self.patch_size.bit_length() - 1
        for scale in range(scales):
            for _ in range(self.num_res_blocks):
                x = ResidualBlock(x.shape[-1], self.dtype)(x)
            channels = 3 if scale == scales - 1 else max(self.channels >> (scale + 1), 8)
            x = nn.Conv(4 * channels, (3, 3), dtype=self.dtype)(nn.relu(x))
            x = from_patches(x, 2)
        return x.astype(jnp.float32) + 0.5


class PatchDecoder(nn.Module):
    """One perceptron on every feature vector by itself; the counterpart of `PatchEncoder`."""

    channels: int
    patch_size: int
    num_layers: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, "b h w c"]) -> Float[Array, "b H W 3"]:
        x = features.astype(self.dtype)
        for _ in range(self.num_layers):
            x = nn.gelu(nn.Dense(self.channels, dtype=self.dtype)(x))
        x = nn.Dense(3 * self.patch_size**2, dtype=self.dtype)(x)
        return from_patches(x, self.patch_size).astype(jnp.float32) + 0.5
