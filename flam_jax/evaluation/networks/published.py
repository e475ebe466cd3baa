"""From the state dicts of the published PyTorch files, as numpy arrays, to the parameters of the networks here."""

from collections.abc import Mapping

import numpy as np

from flam_jax.evaluation.networks import i3d, lpips
from flam_jax.evaluation.networks.weights import WeightsError, listed

_EPSILON = 1e-3  # of I3D's batch normalization
_NORM = ("weight", "bias", "running_mean", "running_var")


def from_backbone(network: str, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters out of a backbone's file: all of I3D, all but the heads of LPIPS.

    Batch normalization in inference mode is linear, so it becomes part of the kernel and the bias before it.

    Args:
      network: `"lpips_alex"`, `"lpips_vgg"` or `"i3d"`.
      state: arrays by their PyTorch names: torchvision's of AlexNet and VGG16, those of the widely used I3D port. Other
        keys, as those of classifiers, are left alone.

    Raises:
      WeightsError: names the missing keys, or the key whose shape is another.
    """
    found: dict[str, np.ndarray] = {}
    if network != "i3d":
        parts = lpips.BACKBONES[network.removeprefix("lpips_")]
        shapes: dict[str, tuple[int, ...]] = {}
        for part in parts:
            shapes[f"features.{part.position}.weight"] = (part.outputs, part.inputs, part.kernel, part.kernel)
            shapes[f"features.{part.position}.bias"] = (part.outputs,)
        taken = _take(state, shapes)
        for part in parts:
            found[f"features.{part.position}.kernel"] = _kernel(taken[f"features.{part.position}.weight"])
            found[f"features.{part.position}.bias"] = taken[f"features.{part.position}.bias"].astype(np.float32)
        return found
    taken = _take(state, _i3d_shapes())
    for name in i3d.units():
        kernel = taken[f"{name}.conv3d.weight"]
        if name == "logits":
            bias = taken[f"{name}.conv3d.bias"]
        else:
            gain, offset, mean, variance = (taken[f"{name}.bn.{part}"] for part in _NORM)
            if variance.min() < 0:
                raise WeightsError(f"{name}.bn.running_var is negative")
            gain = gain / np.sqrt(variance + _EPSILON)
            kernel, bias = kernel * gain[:, None, None, None, None], offset - mean * gain
        found |= {f"{name}.kernel": _kernel(kernel), f"{name}.bias": bias.astype(np.float32)}
    return found


def from_heads(network: str, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The heads of LPIPS out of the file that the metric's authors publish for a backbone.

    Args:
      network: `"lpips_alex"` or `"lpips_vgg"`.
      state: arrays by their names, `lin0.model.1.weight` and so on.

    Raises:
      WeightsError: names the missing keys, the key whose shape is another, or a negative head.
    """
    compared = [part.outputs for part in lpips.BACKBONES[network.removeprefix("lpips_")] if part.compared]
    names = [f"lin{layer}.model.1.weight" for layer in range(len(compared))]
    taken = _take(state, {name: (1, outputs, 1, 1) for name, outputs in zip(names, compared, strict=True)})
    for name in names:
        if taken[name].min() < 0:  # trained under this bound: the file is another
            raise WeightsError(f"{name} is negative, expected a head of LPIPS, which is not")
    return {f"heads.{layer}": taken[name].reshape(-1).astype(np.float32) for layer, name in enumerate(names)}


def _i3d_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (kernel, inputs, outputs) in i3d.units().items():
        shapes[f"{name}.conv3d.weight"] = (outputs, inputs, *kernel)
        others = [f"{name}.conv3d.bias"] if name == "logits" else [f"{name}.bn.{part}" for part in _NORM]
        shapes |= dict.fromkeys(others, (outputs,))
    return shapes


def _take(state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    missing = [name for name in shapes if name not in state]
    if missing:
        raise WeightsError(f"missing keys: {listed(missing)}")
    for name, shape in shapes.items():
        if state[name].shape != shape:
            raise WeightsError(f"{name} has shape {list(state[name].shape)}, expected {list(shape)}")
    return {name: np.asarray(state[name], np.float64) for name in shapes}


def _kernel(values: np.ndarray) -> np.ndarray:
    """PyTorch's order of axes (outputs, inputs, space) to that of jax (space, inputs, outputs)."""
    return np.ascontiguousarray(np.moveaxis(values, (0, 1), (-1, -2)), np.float32)


__all__ = ["from_backbone", "from_heads"]
