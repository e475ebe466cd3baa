"""Random weights and inputs by name and shape, the same with and without PyTorch: numpy alone makes them.

The names are those of the published PyTorch files. Kernels are scaled so that activations keep their size (He et al.
2015), and everything else is drawn so that nothing is left out unseen: no offset of zero, no variance of one.
"""

import math
import zlib
from pathlib import Path

import numpy as np

REFERENCE = Path(__file__).with_name("reference.json")  # what `make_reference.py` writes
ALEX = {0: (3, 64, 11), 3: (64, 192, 5), 6: (192, 384, 3), 8: (384, 256, 3), 10: (256, 256, 3)}
_VGG_CHANNELS = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
_VGG_POSITIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
VGG = {position: (*_VGG_CHANNELS[number : number + 2], 3) for number, position in enumerate(_VGG_POSITIONS)}
HEADS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}
# Channels before a block, and of its six convolutions.
I3D_BLOCKS = {
    "Mixed_3b": (192, 64, 96, 128, 16, 32, 32),
    "Mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "Mixed_4b": (480, 192, 96, 208, 16, 48, 64),
    "Mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "Mixed_4d": (512, 128, 128, 256, 24, 64, 64),
    "Mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "Mixed_4f": (528, 256, 160, 320, 32, 128, 128),
    "Mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "Mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}
# Pairs of frames that LPIPS is computed on: number, height, width.
FRAMES = {"alex": ((2, 64, 64), (1, 93, 70), (1, 31, 31)), "vgg": ((2, 64, 64), (1, 47, 33), (1, 16, 16))}
# Videos: frames, height, width. An odd and an even number of frames, smaller and larger than the network's own size.
VIDEOS = ((10, 64, 64), (17, 40, 48), (9, 240, 236))


def generator(name: str) -> np.random.Generator:
    """Random numbers that depend on the name alone."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The values of one parameter, float32."""
    rng = generator(name)
    if name.startswith("lin"):
        values = rng.uniform(0.0, 1.0, shape)
    elif name.endswith("running_var") or name.endswith("bn.weight"):
        values = rng.uniform(0.5, 1.5, shape)
    elif len(shape) > 1:
        values = rng.standard_normal(shape, np.float32) * math.sqrt(2.0 / math.prod(shape[1:]))
    else:
        values = 0.1 * rng.standard_normal(shape)
    return values.astype(np.float32)


def backbone_state(backbone: str) -> dict[str, np.ndarray]:
    """A state dict like torchvision's, with a key of the classifier that nobody needs."""
    shapes: dict[str, tuple[int, ...]] = {"classifier.6.bias": (1000,)}
    for position, (inputs, outputs, kernel) in (ALEX if backbone == "alex" else VGG).items():
        shapes[f"features.{position}.weight"] = (outputs, inputs, kernel, kernel)
        shapes[f"features.{position}.bias"] = (outputs,)
    return {name: draw(name, shape) for name, shape in shapes.items()}


def heads_state(backbone: str) -> dict[str, np.ndarray]:
    """A state dict like that of the published heads."""
    names = {f"lin{layer}.model.1.weight": channels for layer, channels in enumerate(HEADS[backbone])}
    return {name: draw(name, (1, channels, 1, 1)) for name, channels in names.items()}


def i3d_state() -> dict[str, np.ndarray]:
    """A state dict like that of the PyTorch port of I3D, with a counter that nobody needs."""
    convolutions = {"Conv3d_1a_7x7": (3, 64, 7), "Conv3d_2b_1x1": (64, 64, 1), "Conv3d_2c_3x3": (64, 192, 3)}
    for name, (inputs, b0, b1a, b1b, b2a, b2b, b3b) in I3D_BLOCKS.items():
        convolutions |= {
            f"{name}.b0": (inputs, b0, 1),
            f"{name}.b1a": (inputs, b1a, 1),
            f"{name}.b1b": (b1a, b1b, 3),
            f"{name}.b2a": (inputs, b2a, 1),
            f"{name}.b2b": (b2a, b2b, 3),
            f"{name}.b3b": (inputs, b3b, 1),
        }
    shapes: dict[str, tuple[int, ...]] = {
        "logits.conv3d.weight": (400, 1024, 1, 1, 1),
        "logits.conv3d.bias": (400,),
    }
    for name, (inputs, outputs, kernel) in convolutions.items():
        shapes[f"{name}.conv3d.weight"] = (outputs, inputs, kernel, kernel, kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{part}"] = (outputs,)
    counter = {"Conv3d_1a_7x7.bn.num_batches_tracked": np.array(7)}
    return {name: draw(name, shape) for name, shape in shapes.items()} | counter


def frame_pairs(backbone: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of batches of frames f32[b H W 3] in [0, 1]; the second is the first with noise on one half."""
    pairs = []
    for shape in FRAMES[backbone]:
        rng = generator(f"frames {shape}")
        first = rng.random((*shape, 3), np.float32)
        second = first.copy()
        half = shape[1] // 2
        second[:, :half] = 0.5 * first[:, :half] + 0.5 * rng.random((*shape, 3), np.float32)[:, :half]
        pairs.append((first, second))
    return pairs


def videos() -> list[np.ndarray]:
    """Videos f32[1 t H W 3] in [0, 1]."""
    return [generator(f"video {shape}").random((1, *shape, 3), np.float32) for shape in VIDEOS]
