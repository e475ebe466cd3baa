"""Parameters on disk: `.npz` files, nothing pickled, with a format number and the name of the network."""

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.paths import replacing
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
    about: dict[str, Any] = {"format": np.int64(FORMAT), "network": np.str_(network)}
    try:
        check(network, parameters)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            np.savez(file, allow_pickle=False, **about, **parameters)
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
        _check_size(path)
        with np.load(path, allow_pickle=False) as file:
            stored = {name: file[name] for name in file.files}
    # Whatever the readers of archives and arrays raise on damaged bytes; np.load gives plain arrays no `files`.
    except WeightsError:
        raise
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


def _check_size(path: Path) -> None:
    """Refuses an archive of arrays larger than any network before they are inflated: a few bytes may be gigabytes.

    Raises:
      WeightsError: they are.
      ValueError: the file is no archive of arrays.
    """
    most = max(sum(4.0 * math.prod(shape) for shape in shapes.values()) for shapes in NETWORKS.values()) + 2**20
    found = 0.0
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as file:
                shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
            found += math.prod(map(float, shape)) * dtype.itemsize
    if found > most:
        raise WeightsError(f"{path}: its arrays take {found:.3g} bytes, more than any network's weights")


__all__ = ["FORMAT", "WeightsError", "check", "listed", "read", "write"]
