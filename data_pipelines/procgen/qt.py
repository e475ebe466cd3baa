"""The Qt libraries that Procgen draws with, from the wheel PyQt5-Qt5, so that no system package is needed."""

import ctypes
import functools
import importlib.util
from pathlib import Path

# In the order in which they need each other.
_LIBRARIES = ("icudata", "icuuc", "icui18n", "Qt5Core", "Qt5Gui")


@functools.cache
def load_qt() -> None:
    """Loads the libraries of the wheel, if it is installed, for every library that is loaded after them.

    Without the wheel nothing happens: Qt may be installed on the system. EnvPool says so when it is not.
    """
    spec = importlib.util.find_spec("PyQt5")
    if spec is None or not spec.submodule_search_locations:
        return
    for package in spec.submodule_search_locations:
        for library in _LIBRARIES:
            for file in sorted((Path(package) / "Qt5" / "lib").glob(f"lib{library}.so.*"))[:1]:
                try:
                    ctypes.CDLL(str(file), ctypes.RTLD_GLOBAL)
                except OSError as error:
                    raise ImportError(f"{file.name} does not load: {error}") from error
