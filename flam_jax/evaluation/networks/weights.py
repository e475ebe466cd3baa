"""Parameters on disk: `.npz` files, nothing pickled, with a format number and the name of the network."""

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flam_jax.evaluation.networks import NETWORKS

FORMAT = 1  # raised when older files can no longer be read
_ABOUT = ("format", "network")


class WeightsError(ValueError):
    """Weights that are missing, broken or another network's; the message is one line that names the file."""


def check(network: str, parameters: Mapping[str, np.ndarray]) -> None:
    """Refuses parameters that are not a network's.

    Args:
      network: a name in `NETWORKS`.
      parameters: what should be its parameters.

    Raises:
      WeightsError: names what is missing, unknown, of another shape or type, or not finite.
    """
    shapes = NETWORKS[network]
    missing, unknown = sorted(shapes.keys() - parameters.keys()), sorted(parameters.keys() - shapes.keys())
    if missing or unknown:
        what, names = ("missing", missing) if missing else ("unknown", unknown)
        raise WeightsError(f"{what} parameters of {network}: {listed(names)}")
    for name, shape in shapes.items():
        found = parameters[name]
        if found.shape != shape or found.dtype != np.float32:
            raise WeightsError(f"{name} is {found.dtype}{list(found.shape)}, expected float32{list(shape)}")
        if not np.isfinite(found).all():
            raise WeightsError(f"{name} holds values that are not finite")


def listed(names: list[str], shown: int = 4) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def write(path: str | Path, network: str, parameters: Mapping[str, np.ndarray]) -> None:
    """Writes a file whole or not at all; its folder is made.

    Args:
      path: of the file; what was there is replaced.
      network: a name in `NETWORKS`.
      parameters: its parameters.

    Raises:
      WeightsError: the parameters are not this network's, or the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    about: dict[str, Any] = {"format": np.int64(FORMAT), "network": np.str_(network)}
    try:
        check(network, parameters)
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **about, **parameters)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written: {error.strerror or error}") from error


def read(path: str | Path, network: str) -> dict[str, np.ndarray]:
    """Reads and checks a file.

    Args:
      path: of a file that `write` made.
      network: the name in `NETWORKS` that it should hold.

    Returns:
      The parameters.

    Raises:
      WeightsError: there is no such file, it is damaged, of another format, or holds another network.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected the weights of {network}")
    try:
        with np.load(path, allow_pickle=False) as file:
            stored = {name: file[name] for name in file.files}
    # Whatever the readers of archives and arrays raise on damaged bytes; np.load gives plain arrays no `files`.
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise WeightsError(f"{path}: damaged, or no .npz file; expected the weights of {network}") from error
    form, name = (str(stored.pop(key, "unknown")) for key in _ABOUT)
    if form != str(FORMAT):
        raise WeightsError(f"{path}: format {form}, expected format {FORMAT} of the weights of {network}")
    if name != network:
        raise WeightsError(f"{path}: holds the weights of {name}, expected those of {network}")
    try:
        check(network, stored)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    return stored


__all__ = ["FORMAT", "WeightsError", "check", "listed", "read", "write"]
