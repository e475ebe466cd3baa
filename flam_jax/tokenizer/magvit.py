"""Encoder and decoder for real video, after MAGVIT-v2 (Yu et al. 2023, "Language Model Beats Diffusion").

Residual blocks with group normalization and swish. The encoder is causal in time and keeps every frame: the features of
frame t depend on frames up to t. The decoder takes one frame at a time, because a rollout decodes single imagined
frames. Departures from the paper: no block works at full resolution, and nothing is down-sampled in time.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flam_jax.tokenizer.encoders import PRECISION
from flam_jax.tokenizer.patches import from_patches

# Inputs of a causal convolution that a later frame needs, one array `b n h w c` a convolution: n = temporal_kernel - 1.
Cache = tuple[Any, ...]


class FrameNorm(nn.Module):
    """Group normalization with the statistics of one frame: eight channels a group, all positions of the frame.

    Statistics over several frames would make features depend on later ones.
    """

    affine: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w c"]:
        groups = math.gcd(x.shape[-1], max(x.shape[-1] // 8, 1))
        options: Any = dict(use_bias=self.affine, use_scale=self.affine, reduction_axes=(-3, -2, -1), dtype=self.dtype)
        return nn.GroupNorm(groups, **options)(x)


class CausalConv(nn.Module):
    """A convolution of temporal_kernel x size x size that sees no later frame; before the first frame it repeats it.

    The frames are put side by side along the channels, and one convolution of images reads them: on a CPU that is four
    times faster than a convolution of volumes.
    """

    channels: int
    temporal_kernel: int = 1
    size: int = 3
    stride: int = 1
    zero: bool = False  # kernel at first
    precision: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t h w c"], past: Float[Array, "b n h w c"] | None
    ) -> tuple[Float[Array, "b t i j o"], Float[Array, "b n h w c"]]:
        """The convolution of x after `past` (None: x begins a clip), and the past of what follows x."""
        frames, before = x.shape[1], self.temporal_kernel - 1
        seen = jnp.concatenate([jnp.repeat(x[:, :1], before, axis=1) if past is None else past, x], axis=1)
        stacked = jnp.concatenate([seen[:, i : i + frames] for i in range(self.temporal_kernel)], axis=-1)
        y = nn.Conv(
            self.channels,
            (self.size, self.size),
            strides=(self.stride, self.stride),
            kernel_init=nn.initializers.zeros if self.zero else nn.linear.default_kernel_init,
            precision=self.precision,
            dtype=self.dtype,
        )(stacked)
        return y, seen[:, frames:]


class MagvitBlock(nn.Module):
    """Two normalized causal convolutions on a residual branch."""

    temporal_kernel: int = 1
    precision: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], past: Cache) -> tuple[Float[Array, "b t h w c"], Cache]:
        """x after the residual branch, and the past of both convolutions after x."""
        options: Any = dict(temporal_kernel=self.temporal_kernel, precision=self.precision, dtype=self.dtype)
        channels, kept, y = x.shape[-1], [], x
        # The branch is zero at first: every block begins as the identity.
        for number, one in enumerate(past):
            y = nn.swish(FrameNorm(dtype=self.dtype)(y))
            y, after = CausalConv(channels, zero=number == 1, **options)(y, one)
            kept.append(after)
        return x + y, tuple(kept)


class MagvitEncoder(nn.Module):
    """Frames of clips to features, frame by frame causal. Every scale halves the frame by a strided causal convolution.

    Attributes:
      out_channels: c of the features.
      channels: of the coarsest scale; each finer one has half of it, 8 at least.
      patch_size: pixels per side of a patch, a power of 2.
      num_res_blocks: of every scale.
      temporal_kernel: frames that a convolution sees; with 1 frames are independent of each other.
    """

    out_channels: int
    channels: int
    patch_size: int
    num_res_blocks: int
    temporal_kernel: int = 1
    dtype: DTypeLike = jnp.float32

    def __call__(self, frames: Float[Array, "b t H W 3"]) -> Float[Array, "b t h w c"]:
        """Features of whole clips, all frames at once."""
        return self._encode(frames, None)[0]

    def init_cache(self, frame: Float[Array, "b H W 3"]) -> Cache:
        """The memory before a clip that begins with this frame: as if the frame had been seen for ever.

        Its size does not depend on how many frames follow.
        """
        return self._encode(frame[:, None], None)[1]

    def encode_frame(self, cache: Cache, frame: Float[Array, "b H W 3"]) -> tuple[Cache, Float[Array, "b h w c"]]:
        """The memory after the frame, and its features: those of the parallel pass."""
        features, cache = self._encode(frame[:, None], cache)
        return cache, features[:, 0]

    @nn.compact
    def _encode(
        self, frames: Float[Array, "b t H W 3"], cache: Cache | None
    ) -> tuple[Float[Array, "b t h w c"], Cache]:
        options: Any = dict(temporal_kernel=self.temporal_kernel, precision=PRECISION, dtype=self.dtype)
        scales = self.patch_size.bit_length() - 1
        past = iter([None] * scales * (1 + 2 * self.num_res_blocks) if cache is None else cache)
        x, kept = frames.astype(self.dtype), []
        for scale in range(scales):
            channels = max(self.channels >> (scales - 1 - scale), 8)
            x, after = CausalConv(channels, size=4, stride=2, **options)(x, next(past))
            kept.append(after)
            for _ in range(self.num_res_blocks):
                x, both = MagvitBlock(**options)(x, (next(past), next(past)))
                kept += both
        x = nn.swish(FrameNorm(dtype=self.dtype)(x))
        features = nn.Conv(self.out_channels, (1, 1), dtype=self.dtype, precision=PRECISION)(x)
        return features, tuple(kept)


class MagvitDecoder(nn.Module):
    """Features of single frames to frames: residual blocks, depth-to-space between the scales.

    Each scale begins with an adaptive group normalization, whose scale and bias are linear in the code features of the
    position.
    """

    channels: int
    patch_size: int
    num_res_blocks: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, "b h w c"]) -> Float[Array, "b H W 3"]:
        codes = features.astype(self.dtype)
        x = nn.Conv(self.channels, (3, 3), dtype=self.dtype)(codes)[:, None]  # blocks take clips, here of one frame
        scales = self.patch_size.bit_length() - 1
        for scale in range(scales):
            modulation = nn.Dense(2 * x.shape[-1], dtype=self.dtype)(codes)
            modulation = modulation.repeat(2**scale, axis=1).repeat(2**scale, axis=2)[:, None]
            factor, bias = jnp.split(modulation, 2, axis=-1)
            x = FrameNorm(affine=False, dtype=self.dtype)(x) * (1 + factor) + bias
            for _ in range(self.num_res_blocks):
                x, _ = MagvitBlock(dtype=self.dtype)(x, (None, None))
            x = nn.swish(FrameNorm(dtype=self.dtype)(x))
            channels = 3 if scale == scales - 1 else max(self.channels >> (scale + 1), 8)
            x = from_patches(nn.Conv(4 * channels, (3, 3), dtype=self.dtype)(x), 2)
        return x[:, 0].astype(jnp.float32) + 0.5
