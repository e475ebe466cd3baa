"""Encoders: frames to unbounded feature maps, before quantization."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flam_jax.tokenizer.patches import to_patches

# Products of float32 in full, not as an accelerator would round them by itself: a feature near the edge between two
# levels would take another code there than where the tokenizer was trained (docs/decisions/tokenizer_of_patches.md).
PRECISION = "highest"


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions on a residual branch (IMPALA, Espeholt et al. 2018)."""

    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        y = nn.Conv(self.channels, (3, 3), dtype=self.dtype, precision=PRECISION)(nn.relu(x))
        # Starting at zero makes every block the identity at first: deep stacks then train without normalization.
        zeros = nn.initializers.zeros
        y = nn.Conv(self.channels, (3, 3), dtype=self.dtype, precision=PRECISION, kernel_init=zeros)(nn.relu(y))
        return x + y


class ImpalaEncoder(nn.Module):
    """IMPALA's residual network. Each scale halves the frame by a strided convolution.

    Max-pooling, which the original uses, has a gradient that XLA runs very slowly on CPU.
    """

    out_channels: int
    channels: int
    patch_size: int
    num_res_blocks: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, frames: Float[Array, "b H W 3"]) -> Float[Array, "b h w c"]:
        x = frames.astype(self.dtype)
        scales = self.patch_size.bit_length() - 1
        for scale in range(scales):
            channels = max(self.channels >> (scales - 1 - scale), 8)
            x = nn.Conv(channels, (4, 4), strides=(2, 2), dtype=self.dtype, precision=PRECISION)(x)
            for _ in range(self.num_res_blocks):
                x = ResidualBlock(channels, self.dtype)(x)
        return nn.Conv(self.out_channels, (1, 1), dtype=self.dtype, precision=PRECISION)(nn.relu(x))


class PatchEncoder(nn.Module):
    """One perceptron on every patch by itself: what a code says depends on its own patch only.

    The receptive field cannot leak a neighbour's motion into a patch, so codes change only where pixels do.
    """

    out_channels: int
    channels: int
    patch_size: int
    num_layers: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, frames: Float[Array, "b H W 3"]) -> Float[Array, "b h w c"]:
        x = to_patches(frames, self.patch_size).astype(self.dtype)
        for _ in range(self.num_layers):
            x = nn.gelu(nn.Dense(self.channels, dtype=self.dtype, precision=PRECISION)(x))
        return nn.Dense(self.out_channels, dtype=self.dtype, precision=PRECISION)(x)
