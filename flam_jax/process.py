"""What must be settled before a program of this package does anything."""

import os
import sys

_VARIABLE = "GLIBC_TUNABLES"


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
