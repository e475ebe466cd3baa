"""Converts the published PyTorch weights of a network that judges rollouts. Needs the extra `weights` (PyTorch).

    python -m flam_jax.evaluation.convert_weights --network=NAME --backbone=FILE [--heads=FILE] --out=FILE.npz

    --network    lpips_alex, lpips_vgg or i3d
    --backbone   torchvision's alexnet-owt-7be5be79.pth or vgg16-397923af.pth; for i3d rgb_imagenet.pt
    --heads      of LPIPS: alex.pth or vgg.pth of its authors, from the folder weights/v0.1
    --out        what is written; evaluation looks for weights/NAME.npz

Exit status: 0 done; 1 a file that cannot be used, told in one line; 2 a wrong command line.
"""

import dataclasses
import importlib
import os
import sys
from typing import Any

import numpy as np

from flam_jax.command_line import read_flags
from flam_jax.config import ConfigError
from flam_jax.evaluation.networks import NETWORKS, published, weights
from flam_jax.evaluation.networks.weights import WeightsError
from flam_jax.messages import answer, print_error, short_repr
from flam_jax.output import configure_output

USAGE = "python -m flam_jax.evaluation.convert_weights --network=NAME --backbone=FILE [--heads=FILE] --out=FILE.npz"


@dataclasses.dataclass(frozen=True)
class Options:
    """What was asked for."""

    network: str
    backbone: str
    heads: str | None
    out: str


def parse(arguments: list[str]) -> Options:
    """Reads and checks a command line without the program's name.

    Raises:
      ConfigError: a flag is unknown, repeated, missing, or has a value that cannot be.
    """
    flags, _ = read_flags(
        arguments,
        USAGE,
        required=("--network", "--backbone", "--out"),
        optional=("--heads",),
        files=("--backbone", "--heads", "--out"),
    )
    options = Options(flags["--network"], flags["--backbone"], flags.get("--heads"), flags["--out"])
    if options.network not in NETWORKS:
        raise ConfigError(f"--network={short_repr(options.network)}: expected one of {', '.join(NETWORKS)}")
    if options.network == "i3d" and options.heads:
        raise ConfigError("--heads: i3d has none")
    if options.network != "i3d" and not options.heads:
        raise ConfigError(f"--heads is missing: {options.network} needs the heads of LPIPS")
    if not options.out.endswith(".npz"):
        raise ConfigError(f"--out={short_repr(options.out)}: expected a file that ends in .npz")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if answer(arguments, __doc__ or ""):
        return 0
    try:
        options = parse(arguments)
    except ConfigError as error:
        print_error("flam_jax.evaluation.convert_weights", error)
        return 2
    try:
        parameters = _converted("backbone", options.network, options.backbone)
        if options.heads:
            parameters |= _converted("heads", options.network, options.heads)
        weights.write(options.out, options.network, parameters)
    except WeightsError as error:
        print_error("flam_jax.evaluation.convert_weights", error)
        return 1
    print(f"{options.out}: {options.network}, {sum(value.size for value in parameters.values()):,} parameters")
    return 0


def _converted(part: str, network: str, path: str) -> dict[str, np.ndarray]:
    convert = published.from_backbone if part == "backbone" else published.from_heads
    try:
        return convert(network, load_state_dict(path))
    except WeightsError as error:
        raise WeightsError(f"--{part}={path}: {error}") from error


def load_state_dict(path: str) -> dict[str, np.ndarray]:
    """The floating-point tensors of a PyTorch file, read without running any code that it may hold.

    Args:
      path: of a state dict.

    Returns:
      Arrays by name, float32.

    Raises:
      WeightsError: PyTorch is not installed, or the file is missing, damaged or no state dict.
    """
    if not os.path.isfile(path):
        raise WeightsError("no such file")
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        raise WeightsError(
            'PyTorch is not installed; install the extra "weights": pip install -e ".[weights]"'
        ) from error
    try:
        # Some of the published files were saved from a GPU.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        lines = str(error).strip().splitlines()
        detail = lines[0][:120] if lines else type(error).__name__
        raise WeightsError(f"PyTorch cannot read it as weights alone: {detail}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError("expected a state dict, which holds tensors by name")
    return {name: value.float().numpy() for name, value in state.items() if value.is_floating_point()}


if __name__ == "__main__":
    configure_output()
    sys.exit(main())
