"""Locks between processes, on file systems that have them and on those that have none."""

import errno
import os
import sys
from pathlib import Path
from typing import IO

# What `flock` says where a file system has no locks, such as some NFS and Lustre mounts. EBADF: it wants a file that is
# open for writing, and this one belongs to somebody else.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF}


class FileLock:
    """An exclusive lock on a file, which is made if need be. It ends with its process, however that ends.

    On a file system without locks it stands for one that was taken, after a line of warning on standard error.

    Attributes:
      path: of the file.
      works: whether the file system has locks; None before the first `acquire`.
    """

    def __init__(self, path: str | Path):
        """Opens the file.

        Raises:
          OSError: it can neither be written nor read; the message of `describe_lock_error` says more.
        """
        self.path = Path(path)
        self.works: bool | None = None
        self._file = _open(self.path)

    def acquire(self, *, wait: bool) -> None:
        """Takes the lock; when another process has it, waits for it or not.

        Raises:
          BlockingIOError: another process has it, and this one does not wait.
          OSError: the lock cannot be taken for a reason that says nothing about other processes.
        """
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            self.works = True
        except BlockingIOError:
            self.works = True
            raise
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self.works = False
            folder = self.path.parent
            print(f"{folder}: no locks here ({error.strerror}): start one run at a time in it", file=sys.stderr)

    def close(self) -> None:
        """Lets go of the lock."""
        self._file.close()

    def __enter__(self) -> "FileLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def describe_lock_error(path: str | Path, error: OSError) -> str:
    """Why a lock file cannot be opened, in one line."""
    if isinstance(error, PermissionError) and os.path.exists(path):
        return f"{path} belongs to another user: ask for its deletion, or take another folder"
    return f"cannot write to {Path(path).parent}: {error.strerror or error}"


def has_locks(folder: str | Path) -> bool:
    """Whether files in a folder that can be written to can be locked.

    Raises:
      OSError: the folder cannot be written to.
    """
    import fcntl

    path = Path(folder) / f".lock_test.{os.getpid()}"
    try:
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    finally:
        path.unlink(missing_ok=True)
    return True


def _open(path: Path) -> IO[str]:
    """The file, for writing where that is allowed: some systems lock only such."""
    try:
        return path.open("a")
    except PermissionError:
        return path.open()


__all__ = ["FileLock", "describe_lock_error", "has_locks"]
