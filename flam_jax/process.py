"""What must be settled before a program of this package does anything."""

import contextlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from flam_jax.output import configure_output

_VARIABLE = "GLIBC_TUNABLES"
COMPILED = "JAX_COMPILATION_CACHE_DIR"  # read by jax
# What the TPU's compiler is told where there is no TPU. Else it looks for one, and asks a metadata server.
_NO_CHIPS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",  # any that it knows
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is used, so several programs may
}


def configure_process() -> None:
    """What a program calls first."""
    configure_output()
    leave_absent_chips_alone()
    take_large_pages()


def has_tpu() -> bool:
    """Whether this machine has TPU chips."""
    return Path("/dev/accel0").exists() or Path("/dev/vfio/0").exists()


def leave_absent_chips_alone() -> None:
    """Keeps the TPU's compiler quiet on a machine that has it for plans only (`flam_jax.topology`)."""
    if importlib.util.find_spec("libtpu") and not has_tpu():
        for name, value in _NO_CHIPS.items():
            os.environ.setdefault(name, value)


def take_large_pages() -> None:
    """Starts the program anew, once, so that its memory comes in large pages where the system has them to give.

    XLA on a CPU asks for the temporary memory of every step anew and gives it back after it. In pages of 4 KiB the
    system spends a fifth of the step on handing them out (RESULTS.md). The C library reads this wish only when a
    program starts. Whoever has wishes of his own, in the variable GLIBC_TUNABLES, keeps them.
    """
    if sys.platform != "linux" or _VARIABLE in os.environ:
        return
    os.environ[_VARIABLE] = "glibc.malloc.hugetlb=1"  # other C libraries take no notice
    sys.stdout.flush()
    os.execv(sys.executable, sys.orig_argv)


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
    """While this lasts, processes that are started take from each other what they have compiled.

    In a folder of this machine that goes with it: XLA's programs for a CPU may not run on another one. Where the
    variable `JAX_COMPILATION_CACHE_DIR` is set already, it stays as it is.
    """
    if COMPILED in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="flam_jax_compiled_", ignore_cleanup_errors=True) as folder:
        os.environ[COMPILED] = folder
        try:
            yield
        finally:
            del os.environ[COMPILED]
