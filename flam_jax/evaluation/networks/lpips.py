"""LPIPS, version 0.1: how different two images look, by the features of a network that classifies images.

Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (CVPR 2018).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float

# The metric's own scaling of values in [-1, 1].
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32).reshape(1, 1, 1, 3)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32).reshape(1, 1, 1, 3)
_EPSILON = 1e-10


@dataclasses.dataclass(frozen=True)
class Convolution:
    """One convolution of a backbone, with the rectification behind it.

    Attributes:
      position: its number in torchvision's `features`, which names its parameters.
      inputs: channels that it reads.
      outputs: channels that it makes.
      kernel: pixels a side.
      stride: of the convolution.
      padding: zeros on every side.
      pool: side of the max-pooling with stride 2 before it; 0 is none.
      compared: whether LPIPS compares what it makes.
    """

    position: int
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pool: int = 0
    compared: bool = False


# AlexNet in the form with one column (Krizhevsky 2014), and VGG16 (Simonyan and Zisserman 2015).
BACKBONES = {
    "alex": (
        Convolution(0, 3, 64, kernel=11, stride=4, padding=2, compared=True),
        Convolution(3, 64, 192, kernel=5, padding=2, pool=3, compared=True),
        Convolution(6, 192, 384, pool=3, compared=True),
        Convolution(8, 384, 256, compared=True),
        Convolution(10, 256, 256, compared=True),
    ),
    "vgg": (
        Convolution(0, 3, 64),
        Convolution(2, 64, 64, compared=True),
        Convolution(5, 64, 128, pool=2),
        Convolution(7, 128, 128, compared=True),
        Convolution(10, 128, 256, pool=2),
        Convolution(12, 256, 256),
        Convolution(14, 256, 256, compared=True),
        Convolution(17, 256, 512, pool=2),
        Convolution(19, 512, 512),
        Convolution(21, 512, 512, compared=True),
        Convolution(24, 512, 512, pool=2),
        Convolution(26, 512, 512),
        Convolution(28, 512, 512, compared=True),
    ),
}
# Pixels a side below which a pooling has nothing to read.
SMALLEST = {"alex": 31, "vgg": 16}


@struct.dataclass
class Lpips:
    """The metric with its parameters, a pytree.

    Attributes:
      parameters: float32 arrays with the names and shapes of `parameter_shapes(backbone)`.
      backbone: `"alex"` or `"vgg"`.
    """

    parameters: Any
    backbone: str = struct.field(pytree_node=False, default="alex")

    def __call__(self, first: Float[Array, "*b H W 3"], second: Float[Array, "*b H W 3"]) -> Float[Array, "*b"]:
        """How different frames look; 0 for equal ones, the same in both orders.

        Args:
          first: frames with values in [0, 1].
          second: frames to compare them with, one by one.

        Returns:
          LPIPS of every pair, at least 0 and without unit.

        Raises:
          ValueError: the frames are smaller than the backbone can see.
        """
        return jnp.sum(self.per_layer(first, second), axis=-1)

    def per_layer(self, first: Float[Array, "*b H W 3"], second: Float[Array, "*b H W 3"]) -> Float[Array, "*b 5"]:
        """The five parts of the sum, one for each layer that is compared; arguments and errors as above."""
        height, width = first.shape[-3:-1]
        check_size(self.backbone, height, width)
        # Apart, not as one batch: who compares several frames with the same has the features of these computed once.
        one, other = (
            _features(self.parameters, frames.reshape(-1, height, width, 3), self.backbone)
            for frames in (first, second)
        )
        parts = []
        for layer, pair in enumerate(zip(one, other, strict=True)):
            weighted = (_unit(pair[0]) - _unit(pair[1])) ** 2 * self.parameters[f"heads.{layer}"].reshape(1, 1, 1, -1)
            parts.append(jnp.mean(jnp.sum(weighted, axis=-1), axis=(-2, -1)))
        return jnp.stack(parts, axis=-1).reshape(*first.shape[:-3], len(parts))


def parameter_shapes(backbone: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters: kernels [height, width, inputs, outputs], biases, and one head a layer."""
    shapes: dict[str, tuple[int, ...]] = {}
    for part in BACKBONES[backbone]:
        shapes[f"features.{part.position}.kernel"] = (part.kernel, part.kernel, part.inputs, part.outputs)
        shapes[f"features.{part.position}.bias"] = (part.outputs,)
    compared = [part.outputs for part in BACKBONES[backbone] if part.compared]
    return shapes | {f"heads.{layer}": (channels,) for layer, channels in enumerate(compared)}


def check_size(backbone: str, height: int, width: int) -> None:
    """Refuses frames that the backbone cannot see.

    Raises:
      ValueError: names the least size.
    """
    least = SMALLEST[backbone]
    if min(height, width) < least:
        raise ValueError(
            f"LPIPS ({backbone}) needs frames of at least {least} pixels per side, these have {height}x{width}"
        )


def _features(parameters: Mapping[str, Any], frames: jax.Array, backbone: str) -> list[jax.Array]:
    """What the compared layers make of frames in [0, 1]."""
    x = (2.0 * frames - 1.0 - _SHIFT) / _SCALE
    found = []
    for part in BACKBONES[backbone]:
        if part.pool:
            x = nn.max_pool(x, (part.pool, part.pool), (2, 2))
        x = jax.lax.conv_general_dilated(
            x,
            parameters[f"features.{part.position}.kernel"],
            (part.stride, part.stride),
            [(part.padding, part.padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision="highest",  # accelerators would round the factors: small differences are what is measured
        )
        x = nn.relu(x + parameters[f"features.{part.position}.bias"].reshape(1, 1, 1, -1))
        if part.compared:
            found.append(x)
    return found


def _unit(features: jax.Array) -> jax.Array:
    """Every pixel's channels, divided by their length."""
    return features / (jnp.linalg.norm(features, axis=-1, keepdims=True) + _EPSILON)


__all__ = ["BACKBONES", "SMALLEST", "Convolution", "Lpips", "check_size", "parameter_shapes"]
