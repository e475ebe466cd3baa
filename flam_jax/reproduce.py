"""Runs a whole comparison of the paper and writes its table. The same command goes on where an earlier one stopped.

    python -m flam_jax.reproduce --study=STUDY --preset=cpu|gpu|paper --workdir=FOLDER [--jobs=N | --together] [...]

    --study      multigrid, procgen, agents, slots, ablations, sweeps, information, or all; tuning, on the validation
                 split, is how the settings of the others were found
    --preset     cpu: made for two CPU cores; gpu: MultiGrid at the paper's sizes, minutes a run on one GPU; paper: the
                 paper's setting; debug: a few steps of two models, to try it
    --workdir    every run has a folder in it; results.json and results.html stand beside them
    --jobs       runs side by side, which share the CPU's cores evenly; more than one is for CPUs alone (default: 1)
    --together   trains the seeds of a model as one program, for a device that one run does not fill
    --config.x.y=VALUE   changes a field in every run: one in which the runs do not differ

Exit status as that of flam_jax.main.
"""

import sys
from pathlib import Path

from flam_jax.command_line import read_flags
from flam_jax.config import ConfigError
from flam_jax.messages import answer, print_error, short_repr
from flam_jax.process import configure_process
from flam_jax.studies.definitions import cells
from flam_jax.studies.run import plan, run_study

USAGE = (
    "python -m flam_jax.reproduce --study=STUDY --workdir=FOLDER [--preset=PRESET] [--jobs=N | --together]"
    " [--config.FIELD=VALUE ...]"
)
MOST_JOBS = 1024


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit status."""
    if answer(arguments, __doc__ or ""):
        return 0
    try:
        options, changes = read_flags(
            arguments,
            USAGE,
            required=("--study", "--workdir"),
            optional=("--preset", "--jobs"),
            switches=("--together",),
            folders=("--workdir",),
            takes_overrides=True,
        )
        study, preset, workdir = options["--study"], options.get("--preset", "cpu"), Path(options["--workdir"])
        jobs, together = _jobs(options.get("--jobs", "1")), "--together" in options
        if jobs > 1 and together:
            raise ConfigError("--together: expected without --jobs, the runs are one program")
        # Makes every configuration, so that every mistake is found before any work.
        runs = plan(cells(study, preset), workdir, changes)
    except ConfigError as error:
        print_error("flam_jax.reproduce", error)
        return 2
    from flam_jax.main import prepare_workdir

    try:
        prepare_workdir(workdir)
    except ConfigError as error:
        print_error("flam_jax.reproduce", error)
        return 1
    return run_study(study, preset, workdir, runs, jobs, together, changes)


def _jobs(text: str) -> int:
    try:
        jobs = int(text)
    except ValueError:
        jobs = 0
    if not 1 <= jobs <= MOST_JOBS:
        raise ConfigError(f"--jobs={short_repr(text)}: expected a whole number from 1 to {MOST_JOBS}")
    return jobs


if __name__ == "__main__":
    configure_process()
    sys.exit(main(sys.argv[1:]))
