"""Paths as users write them, and folders whose names look like patterns."""

import contextlib
import functools
import glob
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# What other languages and libraries write for "no folder".
_NOTHING = ("none", "null", "nil")


def expand_path(path: str) -> str:
    """The path that a user means: `~` and `~NAME` at its beginning stand for home folders."""
    return os.path.expanduser(path)


def is_url(path: str) -> bool:
    """Whether it begins with `scheme://`."""
    return bool(_URL.match(path))


def describe_problem(path: str, what: str = "a folder") -> str:
    """What was expected in place of a path that cannot be one; empty where it can.

    Args:
      path: after `expand_path`.
      what: the kind of path, in words.
    """
    if is_url(path):
        return f"{what} of this machine or mounted on it: addresses with :// are not read"
    if path.strip().lower() in _NOTHING:
        return f"{what}; one of that name is written ./{path.strip()}"
    if path.startswith("~"):
        return f"{what}: there is no home folder {path.split('/')[0][:40]}"
    parts = path.encode(errors="replace").split(b"/")
    # With room for the paths of what lies in it.
    possible = path.strip() and "\0" not in path and len(path) <= 1024 and max(map(len, parts)) <= 255
    return "" if possible else what


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to be written in place of `path`, which it becomes at the end: readers see the old or the new one.

    It lies beside `path` under a name of its own, so that processes which write the same file do not meet, and is made
    anew, so that no link is followed. It is removed where writing fails.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    file = partial.open("xb")
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@functools.cache
def take_folders_literally() -> None:
    """Makes Orbax and TFDS find files in folders whose names hold `*`, `?` or `[`.

    Both look for files by `etils.epath.Path.glob`, which joins folder and pattern to one pattern: a checkpoint below a
    folder `[x]` is written and never found. Call it before they look for files; once for a process is enough.
    """
    from etils import epath

    kind: Any = type(epath.Path("."))
    search = kind.glob

    def search_literally(self: Any, pattern: str) -> Any:
        folder = os.fspath(self)
        return search(self if is_url(folder) else kind(glob.escape(folder)), pattern)

    kind.glob = search_literally


__all__ = ["describe_problem", "expand_path", "is_url", "replacing", "take_folders_literally"]
