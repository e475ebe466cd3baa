"""Inception I3D on colour videos: 400 numbers that say what goes on in a clip, the features of FVD.

Sources: Carreira and Zisserman, "Quo Vadis, Action Recognition?" (CVPR 2017), for the network; Unterthiner et al.,
"Towards Accurate Generative Models of Video" (2018), for its use: videos of 224x224 pixels with values in [-1, 1], the
logits of the Kinetics classes averaged over time. Batch normalization is folded into kernels and biases.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SIZE = 224  # pixels a side
CLASSES = 400
# Time is halved three times, rounding up, and the last average is over two: with fewer frames it has nothing to read.
LEAST_FRAMES = 9

# Outputs of the branches of an inception block: 1x1x1; 1x1x1 then 3x3x3; the same, narrower; 1x1x1 after a pooling.
_BLOCKS = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
FEATURES = 1024
# Poolings by the block that follows: window and stride over time, height, width.
_POOLS = {
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}


def logits(parameters: Mapping[str, Any], videos: Float[Array, "b t H W 3"]) -> Float[Array, "b 400"]:
    """Features of videos.

    Resizing is bilinear between centres of pixels, without smoothing before it shrinks, as in the PyTorch ports of FVD;
    the first implementation took the corners of pixels in place of their centres, so its values differ a little.

    Args:
      parameters: float32 arrays with the names and shapes of `parameter_shapes()`.
      videos: values in [0, 1], any size of frames, at least 9 frames.

    Returns:
      Logits of the Kinetics classes, averaged over time.

    Raises:
      ValueError: the videos are too short.
    """
    check_length(videos.shape[1])
    shape = (*videos.shape[:2], SIZE, SIZE, 3)
    resized = jax.image.resize(videos, shape, "bilinear", antialias=False)
    return _network(parameters, 2.0 * resized - 1.0)


def check_length(frames: int) -> None:
    """Refuses videos that are too short for the network.

    Raises:
      ValueError: names the least number of frames.
    """
    if frames < LEAST_FRAMES:
        raise ValueError(f"I3D needs clips of at least {LEAST_FRAMES} frames, these have {frames}")


def parameter_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters: kernels [time, height, width, inputs, outputs] and biases."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (kernel, inputs, outputs) in units().items():
        shapes |= {f"{name}.kernel": (*kernel, inputs, outputs), f"{name}.bias": (outputs,)}
    return shapes


def units() -> dict[str, tuple[tuple[int, int, int], int, int]]:
    """Kernel size, inputs and outputs of every convolution; the names are those of the widely used PyTorch port."""
    one, three = (1, 1, 1), (3, 3, 3)
    found = {"Conv3d_1a_7x7": ((7, 7, 7), 3, 64), "Conv3d_2b_1x1": (one, 64, 64), "Conv3d_2c_3x3": (three, 64, 192)}
    for name, (inputs, (b0, b1a, b1b, b2a, b2b, b3b)) in _BLOCKS.items():
        found |= {
            f"{name}.b0": (one, inputs, b0),
            f"{name}.b1a": (one, inputs, b1a),
            f"{name}.b1b": (three, b1a, b1b),
            f"{name}.b2a": (one, inputs, b2a),
            f"{name}.b2b": (three, b2a, b2b),
            f"{name}.b3b": (one, inputs, b3b),
        }
    return found | {"logits": (one, FEATURES, CLASSES)}


def _network(parameters: Mapping[str, Any], x: jax.Array) -> jax.Array:
    """From videos in [-1, 1], of any size of which 32 is a divisor, to averaged logits."""

    def unit(name: str, x: jax.Array, stride: int = 1) -> jax.Array:
        return jax.nn.relu(_convolve(parameters, name, x, stride))

    x = unit("Conv3d_1a_7x7", x, stride=2)
    x = _max_pool(x, (1, 3, 3), (1, 2, 2))
    x = unit("Conv3d_2c_3x3", unit("Conv3d_2b_1x1", x))
    for name in _BLOCKS:
        if name in _POOLS:
            x = _max_pool(x, *_POOLS[name])
        branches = (
            unit(f"{name}.b0", x),
            unit(f"{name}.b1b", unit(f"{name}.b1a", x)),
            unit(f"{name}.b2b", unit(f"{name}.b2a", x)),
            unit(f"{name}.b3b", _max_pool(x, (3, 3, 3), (1, 1, 1))),
        )
        x = jnp.concatenate(branches, axis=-1)
    x = jnp.mean(x, axis=(2, 3), keepdims=True)
    x = (x[:, :-1] + x[:, 1:]) / 2.0
    return jnp.mean(_convolve(parameters, "logits", x), axis=(1, 2, 3))


def _convolve(parameters: Mapping[str, Any], name: str, x: jax.Array, stride: int = 1) -> jax.Array:
    kernel = parameters[f"{name}.kernel"]
    numbers = ("NDHWC", "DHWIO", "NDHWC")
    x = jax.lax.conv_general_dilated(x, kernel, (stride,) * 3, "SAME", dimension_numbers=numbers, precision="highest")
    return x + parameters[f"{name}.bias"].reshape(1, 1, 1, 1, -1)


def _max_pool(x: jax.Array, window: tuple[int, int, int], stride: tuple[int, int, int]) -> jax.Array:
    """Maxima over windows of time, height and width, one axis after another: on a CPU faster than all at once.

    The ends are filled so that the result has the size over the stride, rounded up. Ports fill with zeros; here it is
    minus infinity, which is the same for what is pooled: nothing that comes out of a rectification is below zero.
    """
    for axis, (size, step) in enumerate(zip(window, stride, strict=True), start=1):
        if size == 1:
            continue
        one, by = [1] * x.ndim, [1] * x.ndim
        one[axis], by[axis] = size, step
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, one, by, "SAME")
    return x


__all__ = [
    "CLASSES",
    "FEATURES",
    "LEAST_FRAMES",
    "SIZE",
    "check_length",
    "logits",
    "parameter_shapes",
    "units",
]
