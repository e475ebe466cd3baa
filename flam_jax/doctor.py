"""Says what this machine and this installation can do, and what each missing piece would enable.

    flam doctor
    python -m flam_jax.doctor

One line each, for the current folder: `ok`; `missing`, which some things need; `wrong`, with which runs fail.

Exit status: 0 nothing is wrong; 1 something is; 2 a wrong command line.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from data_pipelines.locks import has_locks
from data_pipelines.registry import DATASETS, definition
from flam_jax.messages import answer, print_error, short_repr
from flam_jax.output import configure_output
from flam_jax.surroundings import detect_cluster, find_problems

OK, MISSING, WRONG = "ok", "missing", "wrong"
LEAST_PYTHON = (3, 11)
# What an extra enables: the data sets of the registry, and the rest.
EXTRAS = {
    **{definition(name).extra: f"the data set {name}" for name in DATASETS if definition(name).extra},
    "tpu-plan": "flam plan, which compiles steps for TPUs that are not there",
    "weights": "the conversion of the published weights of LPIPS and FVD",
    "docs": "the documentation site",
    "test": "the tests",
}
_CLUSTER_VARIABLES = ("SLURM_", "OMPI_", "PMI_", "PMIX_", "TPU_", "JAX_", "XLA_")
_LEAST_SPACE = 2**30  # bytes; a run with its data set takes a few hundred MiB to many GiB
_SECONDS_FOR_DEVICES = 180
_DEVICES = """
import jax
for device in jax.devices():
    print(device.platform, device.device_kind, (device.memory_stats() or {}).get("bytes_limit", 0), sep="|")
"""


class Line(NamedTuple):
    """What was found of one thing."""

    mark: str
    name: str
    text: str


def main(arguments: list[str]) -> int:
    """Prints what is found; returns the exit status."""
    if answer(arguments, __doc__ or ""):
        return 0
    if arguments:
        print_error("flam_jax.doctor", f"unexpected argument {short_repr(arguments[0])}; usage: flam doctor")
        return 2
    wrong = False
    for check in CHECKS:
        for line in _guarded(check):
            print(f"{line.mark:<8} {line.name:<22} {line.text}", flush=True)
            wrong = wrong or line.mark == WRONG
    return int(wrong)


def _guarded(check: Callable[[], Iterator[Line]]) -> Iterator[Line]:
    """The lines of a check; one line for whatever it stumbles over."""
    try:
        yield from check()
    except Exception as error:
        detail = (str(error).strip().splitlines() or [""])[0][:200]
        yield Line(WRONG, check.__name__.removeprefix("find_"), f"no answer: {type(error).__name__}: {detail}")


def find_python() -> Iterator[Line]:
    """The interpreter."""
    mark = OK if sys.version_info[:2] >= LEAST_PYTHON else WRONG
    yield Line(mark, "python", f"{sys.version.split()[0]}, expected {'.'.join(map(str, LEAST_PYTHON))} or later")


def find_packages() -> Iterator[Line]:
    """What the package requires, against the versions that it asks for."""
    from packaging.requirements import Requirement

    try:
        texts = importlib.metadata.requires("flam_jax") or []
    except importlib.metadata.PackageNotFoundError:
        yield Line(MISSING, "flam_jax", "not installed: versions are not checked, and there is no command flam")
        return
    yield Line(OK, "flam_jax", importlib.metadata.version("flam_jax"))
    requirements = [Requirement(text) for text in texts]
    for requirement in requirements:
        if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
            found = _version(requirement.name)
            fits = found and requirement.specifier.contains(found, prereleases=True)
            yield Line(OK if fits else WRONG, requirement.name, f"{found or 'not installed'} ({requirement.specifier})")
    provided = importlib.metadata.metadata("flam_jax").get_all("Provides-Extra") or []
    for extra, use in EXTRAS.items():
        if extra not in provided:  # another version is installed than this one
            continue
        needed = [
            each
            for each in requirements
            if each.marker and each.marker.evaluate({"extra": extra}) and not each.marker.evaluate({"extra": ""})
        ]
        absent = [
            str(each).partition(";")[0].strip()
            for each in needed
            if not each.specifier.contains(_version(each.name) or "0", prereleases=True)
        ]
        if not needed:
            yield Line(MISSING, f"extra {extra}", f"not for this system; it would enable {use}")
        elif absent:
            yield Line(MISSING, f"extra {extra}", f'{use}: pip install "flam_jax[{extra}]" ({", ".join(absent)})')
        else:
            yield Line(OK, f"extra {extra}", use)
    board = _version("tensorboard")
    use = "the curves of a run in a browser (pip install tensorboard; tensorboard --logdir FOLDER)"
    yield Line(OK if board else MISSING, "tensorboard", use)


def _version(name: str) -> str:
    """Of an installed package; empty where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def find_surroundings() -> Iterator[Line]:
    """Variables under which runs fail, and those of a cluster."""
    for problem in find_problems():
        yield Line(WRONG, "variables", problem)
    seen = sorted(name for name in os.environ if name.startswith(_CLUSTER_VARIABLES))
    cluster = detect_cluster(os.environ)
    text = f"{cluster}: this is one of several processes" if cluster else "none: this process runs alone"
    yield Line(OK, "cluster", f"{text} ({', '.join(seen[:8])}{', ...' if seen[8:] else ''})" if seen else text)


def find_devices() -> Iterator[Line]:
    """What JAX finds, asked in a process of its own: a plugin or a flag that does not work may end it."""
    environment = {name: value for name, value in os.environ.items() if name not in _variables_of_this_cluster()}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _DEVICES],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS_FOR_DEVICES,
            check=False,
        )
    except subprocess.TimeoutExpired:
        yield Line(WRONG, "devices", f"JAX gives no answer within {_SECONDS_FOR_DEVICES} s")
        return
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"status {done.returncode}"]
        fatal = [line for line in lines if line.startswith("F") or "Error" in line.split(":")[0]]
        yield Line(WRONG, "devices", f"JAX does not start: {(fatal or lines)[-1].strip()[:300]}")
        return
    devices = [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 2]
    for kind in dict.fromkeys(map(tuple, devices)):
        platform, name, memory = kind
        size = f", {int(memory) / 2**30:.1f} GiB" if int(memory) else ""
        yield Line(OK, "devices", f"{devices.count(list(kind))} {platform} ({name}{size})")


def _variables_of_this_cluster() -> list[str]:
    """Left out for a process that is none of the cluster's."""
    return [name for name in os.environ if name.startswith(("SLURM_", "OMPI_", "PMI_", "PMIX_"))]


def find_machine() -> Iterator[Line]:
    """Cores, memory, disk and locks."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Line(OK, "cores", f"{cores}")
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        yield Line(OK, "memory", f"{memory / 2**30:.1f} GiB")
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    yield Line(OK if free >= _LEAST_SPACE else WRONG, "disk", f"{free / 2**30:.1f} GiB free in {here}")
    try:
        locks = has_locks(here)
    except OSError as error:
        yield Line(WRONG, "folder", f"cannot write to {here}: {error.strerror or error}")
        return
    text = "two runs in one folder are kept apart" if locks else "none here: start one run at a time in a folder"
    yield Line(OK if locks else MISSING, "locks", text)


def find_terminal() -> Iterator[Line]:
    """What is printed for letters that an encoding does not have."""
    encoding = sys.stdout.encoding or "unknown"
    try:
        "²√β".encode(encoding)
    except (LookupError, UnicodeEncodeError):
        yield Line(MISSING, "encoding", f"{encoding}: some letters are printed as codes; PYTHONIOENCODING=utf-8 helps")
    else:
        yield Line(OK, "encoding", encoding)


def find_files() -> Iterator[Line]:
    """Experiments, and the folder of the networks' weights."""
    from flam_jax.config import experiments, fields

    names = [file.stem for file in experiments()]
    use = ", ".join(names) or "none is installed: --config takes files alone"
    yield Line(OK if names else MISSING, "experiments", use)
    folder = Path(fields()["evaluation.weights"].default)
    found = sorted(file.name for file in folder.glob("*.npz")) if folder.is_dir() else []
    use = "LPIPS and FVD of rollouts (docs/guide/evaluation.md)"
    text = f"{', '.join(found)} in {folder}/" if found else f"no .npz file in {folder}/: {use}"
    yield Line(OK if found else MISSING, "networks' weights", text)


CHECKS = (find_python, find_packages, find_surroundings, find_devices, find_machine, find_terminal, find_files)


if __name__ == "__main__":
    configure_output()
    sys.exit(main(sys.argv[1:]))
