"""Trains a stage: one run, or several seeds together, each from its last checkpoint to its last step."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from flam_jax.checkpoints import Checkpoints, check_config, finished_step, write_finished
from flam_jax.config import Config, field_names, get_field
from flam_jax.training.loop import run_steps
from flam_jax.training.run import Job, NonFiniteError, Run
from flam_jax.training.sharding import RULES, Rule, check_batch_size, make_mesh, tree_shardings
from flam_jax.training.signals import StopRequest
from flam_jax.training.stage import Stage
from flam_jax.training.together import Together


def train(
    stage: Stage,
    config: Config,
    workdir: str | Path,
    *,
    mesh: Mesh | None = None,
    rules: tuple[Rule, ...] = RULES,
) -> dict[str, Any]:
    """Trains one stage up to `config[stage.name].training.num_steps`, from its last checkpoint if there is one.

    A run that was killed, or ended by SIGTERM, resumes when called again and ends in the same parameters (on CPU bit
    for bit) and the same metric values as an uninterrupted one. A finished stage is restored and returned at once,
    without a loader.

    Args:
      stage, config, workdir: as in `Job`.
      mesh: devices; from `config.mesh` by default.
      rules: shardings by parameter path.

    Returns:
      `{"params": ...}`.

    Raises:
      CheckpointError: the workdir holds another configuration, or a save failed.
      NonFiniteError: the loss or the gradients are not finite; the last checkpoint is.
      Preempted: the run was asked to end and has saved.
      ShardingError: mesh, batch size and parameters do not fit together.
    """
    (variables,) = train_together([Job(stage, config, Path(workdir))], mesh=mesh, rules=rules)
    return variables


def train_together(
    jobs: Sequence[Job], *, mesh: Mesh | None = None, rules: tuple[Rule, ...] = RULES
) -> list[dict[str, Any]]:
    """As `train`, for one stage of several runs that differ in nothing but their seeds, as one program.

    The step is vmapped over the runs: for devices that one run does not fill. On disk every run is like one that was
    trained alone, and may be resumed alone or with others; its seconds are those of the whole program. Runs are grouped
    by the steps of their last checkpoints; the groups are trained one after the other.

    Args:
      jobs: the runs; what their stages keep frozen must be the same.
      mesh: devices; from the first run's `config.mesh` by default.
      rules: shardings by parameter path.

    Returns:
      `{"params": ...}` of every run.

    Raises:
      ValueError: the runs differ in more than the seed.
      CheckpointError, NonFiniteError, Preempted, ShardingError: as `train`.
    """
    first = jobs[0]
    mesh = mesh or make_mesh(**first.config.mesh)
    check_batch_size(first.training, mesh, f"{first.stage.name}.training")
    for job in jobs:
        names = field_names(first.config)
        other = {name for name in names if get_field(job.config, name) != get_field(first.config, name)}
        other -= {"seed"}
        if job.stage.name != first.stage.name or other:
            raise ValueError(f"runs that are trained together may differ in their seeds, not in {sorted(other)}")
        check_config(job.directory, job.config, job.stage.name)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest(jax.process_count()))
        folders = [stack.enter_context(Checkpoints(job.directory, job.training.checkpoints_kept)) for job in jobs]
        groups: dict[int, list[int]] = {}  # numbers of the jobs, by the step that they resume from
        for index, checkpoints in enumerate(folders):
            groups.setdefault(checkpoints.latest_step() or 0, []).append(index)
        found: dict[int, Any] = {}
        for saved, group in sorted(groups.items()):
            members = [(jobs[index], folders[index]) for index in group]
            if saved >= first.training.num_steps:
                params = [_restore_finished(job, checkpoints, mesh, rules) for job, checkpoints in members]
            else:
                params = _train_group(members, mesh, rules, stop)
            found |= dict(zip(group, params, strict=True))
    return [{"params": found[index]} for index in range(len(jobs))]


def _train_group(
    members: Sequence[tuple[Job, Checkpoints]], mesh: Mesh, rules: tuple[Rule, ...], stop: StopRequest
) -> list[Any]:
    """Trains runs that resume from the same step; returns their parameters."""
    runs: list[Run] = []
    with contextlib.ExitStack() as stack:
        for job, checkpoints in members:
            tag = f"seed {job.config.seed}: " if len(members) > 1 else ""
            runs.append(Run(job, mesh, rules, checkpoints, tag))
            stack.callback(runs[-1].close)
        states = run_steps(Together(runs), stop) if len(runs) > 1 else [run_steps(runs[0], stop)]
    return [state.params for state in states]


def _restore_finished(job: Job, checkpoints: Checkpoints, mesh: Mesh, rules: tuple[Rule, ...]) -> Any:
    """Parameters of a run that needs no more steps."""
    end = job.training.num_steps
    seconds = checkpoints.meta()["seconds"]  # on every process: they read together
    if jax.process_index() == 0:
        if finished_step(job.directory) < end:  # killed between the last checkpoint and the mark
            write_finished(job.directory, end, seconds)
        print(f"{job.stage.name} finished before: {end} steps", flush=True)
    return checkpoints.parameters(lambda shapes: tree_shardings(shapes, mesh, rules))


__all__ = ["Job", "NonFiniteError", "train", "train_together"]
