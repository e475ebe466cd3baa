"""What all tests share: a quick compiler, what it compiled, and one run of the main job."""

import contextlib
import fcntl
import gc
import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Test runs compile hundreds of small programs once each: the compiler's optimizations cost more than they save.
_QUICK_COMPILE = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_parallel_codegen_split_count=1 --xla_llvm_enable_noalias_metadata=false"
    " --xla_llvm_enable_alias_scope_metadata=false --xla_llvm_enable_invariant_load_metadata=false"
)
# XLA ends the process at a flag that it does not know. jaxlib 0.12 does not know this one; earlier than 0.10 not tried.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    _QUICK_COMPILE += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_QUICK_COMPILE}".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Arrays of different rank do not meet: a missing axis would be filled in without a word.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
# Tracing makes millions of objects that live: looking for dead ones among them took a tenth of the time.
gc.set_threshold(300_000, 50, 1_000)
# Groups of tests that take longest, the longest first.
_SLOW = ("debug_run", "test_field_effects", "test_interface", "test_stages", "test_runner", "test_experiments")
_MOST_MEMORY = 3 * 2**30  # bytes that a test process keeps from one file to the next


def pytest_configure(config: pytest.Config) -> None:
    """Opens a folder in which all processes of this test session find what one of them has compiled."""
    from flam_jax.process import compiled_once

    sharing = contextlib.ExitStack()
    config.add_cleanup(sharing.close)
    sharing.enter_context(compiled_once())  # in a worker, that of the session
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a file run in one process, which compiles for all of them; what takes long begins first.

    Begun last, it would leave the other processes without work.
    """
    rank = {}
    for item in items:
        long, group = item.get_closest_marker("long") is not None, item.get_closest_marker("xdist_group")
        name = group.args[0] if group else item.path.stem
        rank[item] = 0 if long else 1 + _SLOW.index(name) if name in _SLOW else 1 + len(_SLOW)
        if not long and not group:
            item.add_marker(pytest.mark.xdist_group(name))
    items.sort(key=rank.__getitem__)


@pytest.fixture(autouse=True, scope="module")
def bounded_memory() -> Iterator[None]:
    """Releases compiled programs, of which a process collects gigabytes; what was compiled stays on disk."""
    yield
    statistics = Path("/proc/self/statm")
    if statistics.is_file() and int(statistics.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > _MOST_MEMORY:
        import jax

        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def debug_run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder in which the README's first command has been run, in the debug preset: `runs/multigrid` lies there.

    Run once for all processes of a test session. Tests that use it belong to the group `debug_run`, so that no process
    waits for another.
    """
    from tests import readme

    root = tmp_path_factory.getbasetemp()
    root = root if worker_id == "master" else root.parent
    folder = root / "debug_run"
    with (root / "debug_run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "output.txt").exists():
            readme.prepare(folder)
            (command,) = readme.runnable(readme.commands()[0])
            (folder / "output.txt").write_text(readme.run(command, folder).stdout)
    return folder
