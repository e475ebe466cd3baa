"""The loop of a stage: restore, step, log, evaluate, save, and end in a state that can go on."""

import collections
import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from flam_jax.checkpoints import Checkpoints, check_config, finished_step, write_finished, write_text
from flam_jax.cluster import from_all_processes, on_this_process, wait_for_all
from flam_jax.config import Config, field_names, get_field, to_json
from flam_jax.training.batches import DeviceBatch, Loader, next_batch
from flam_jax.training.metrics import MetricWriter, NoWriter, Progress, describe_seconds
from flam_jax.training.sharding import (
    RULES,
    Rule,
    check_batch_size,
    describe,
    local_rows,
    make_mesh,
    replicated,
    tree_shardings,
)
from flam_jax.training.signals import Preempted, StopRequest
from flam_jax.training.skipped import Skipped
from flam_jax.training.stage import Stage
from flam_jax.training.state import TrainState
from flam_jax.training.step import WATCHED, compile_step, state_maker, state_shapes

# Steps in flight. Values of a step are looked at only when this many later steps are under way: the device never waits
# for the host, and a step that is not finite is still found with its own batch at hand.
IN_FLIGHT = 2
EARLY = 0.25  # share of training in which no warnings are given
MOST_SKIPPED = 100  # updates in a row that may be skipped: after so many it is not the batch


class NonFiniteError(FloatingPointError):
    """A loss or gradient that is not finite; the message names step, metric, the batch's records and a copy of it."""


@dataclasses.dataclass(frozen=True)
class _Pending:
    step: int  # updates done after it
    metrics: Mapping[str, jax.Array]
    batch: DeviceBatch


@dataclasses.dataclass(frozen=True)
class Job:
    """What one run of a stage is made of.

    Attributes:
      stage: initial variables, loss and evaluation.
      config: the whole configuration; the stage's `training` section is used, all of it is stored.
      workdir: of the run; the stage writes to `<workdir>/<stage.name>`, `metrics.jsonl` and `tensorboard`.
      make_loader: makes the iterator over this process's training batches, at its start; its state is set when the run
        goes on. Not called when the stage is finished.
    """

    stage: Stage
    config: Config
    workdir: Path
    make_loader: Callable[[], Loader]

    @property
    def directory(self) -> Path:
        """Of the stage."""
        return self.workdir / self.stage.name

    @property
    def training(self) -> Config:
        """Section of the configuration."""
        return self.config[self.stage.name].training


def train(
    stage: Stage,
    config: Config,
    workdir: str | Path,
    make_loader: Callable[[], Loader],
    *,
    mesh: Mesh | None = None,
    rules: tuple[Rule, ...] = RULES,
) -> dict[str, Any]:
    """Trains one stage up to `config[stage.name].training.num_steps`, from its last checkpoint if there is one.

    A run that was killed, or ended by SIGTERM, goes on when called again and ends in the same parameters (on CPU bit
    for bit) and the same metric values as one that never was. A finished stage is restored and returned at once.

    Args:
      stage, config, workdir, make_loader: as in `Job`.
      mesh: devices; from `config.mesh` by default.
      rules: shardings by parameter path.

    Returns:
      `{"params": ...}`, the averaged ones when `ema_decay` is set.

    Raises:
      CheckpointError: the workdir holds another configuration, or a save failed.
      NonFiniteError: the loss or the gradients are not finite; the last checkpoint is.
      Preempted: the run was asked to end and has saved.
      ShardingError: mesh, batch size and parameters do not fit together.
    """
    (variables,) = train_together([Job(stage, config, Path(workdir), make_loader)], mesh=mesh, rules=rules)
    return variables


def train_together(
    jobs: Sequence[Job], *, mesh: Mesh | None = None, rules: tuple[Rule, ...] = RULES
) -> list[dict[str, Any]]:
    """As `train`, for one stage of several runs that differ in nothing but their seeds, as one program.

    The step is vmapped over the runs: for devices that one run does not fill. On disk every run is like one that was
    trained by itself, and may go on alone, or with others; its seconds are those of the whole program. Runs whose last
    checkpoints are of different steps are trained one group of equals after the other.

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
        groups: dict[int, list[int]] = {}
        for index, checkpoints in enumerate(folders):
            groups.setdefault(checkpoints.latest_step() or 0, []).append(index)
        found: dict[int, Any] = {}
        for saved, group in sorted(groups.items()):
            if saved >= first.training.num_steps:
                found |= {index: _finished(jobs[index], folders[index], mesh, rules) for index in group}
                continue
            runs: list[_Run] = []
            try:
                for index in group:
                    runs.append(_Run(jobs[index], mesh, folders[index], len(group) > 1))
                states = _go(runs, mesh, rules, stop)
            finally:
                for run in runs:
                    run.close()
            found |= dict(zip(group, (state.evaluation_params for state in states), strict=True))
    return [{"params": found[index]} for index in range(len(jobs))]


def _finished(job: Job, checkpoints: Checkpoints, mesh: Mesh, rules: tuple[Rule, ...]) -> Any:
    """Parameters of a run that needs no more steps."""
    end = job.training.num_steps
    seconds = checkpoints.meta()["seconds"]  # on every process: they read together
    if jax.process_index() == 0:
        if finished_step(job.directory) < end:  # killed between the last checkpoint and the mark
            write_finished(job.directory, end, seconds)
        print(f"{job.stage.name} finished before: {end} steps", flush=True)
    return checkpoints.parameters(lambda shapes: tree_shardings(shapes, mesh, rules))


def _go(runs: "Sequence[_Run]", mesh: Mesh, rules: tuple[Rule, ...], stop: StopRequest) -> tuple[TrainState, ...]:
    """Runs the steps that are left, of all runs at once; returns the last states."""
    first = runs[0]
    stage, training = first.stage, first.training
    batches = [run.next_batch() for run in runs]
    batch_shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), batches[0].arrays
    )
    shapes = state_shapes(batch_shapes, stage=stage, training=training, mesh=mesh, rules=rules)
    make_state = state_maker(shapes, stage=stage, training=training)
    states = tuple(run.first_state(batch, shapes, make_state) for run, batch in zip(runs, batches, strict=True))
    began = time.monotonic()
    seeds = [run.config.seed for run in runs]
    step = compile_step(shapes, batch_shapes, stage=stage, training=training, seeds=seeds, mesh=mesh)
    first.say_compiled(step.flops, step.bytes, time.monotonic() - began)
    wait_for_all()
    # One bar for all. What runs have to say stands beside it, or on lines of its own.
    progress = Progress(stage.name, first.saved, first.end) if jax.process_index() == 0 else None
    for run in runs:
        run.begin(progress, shows=run is first)

    def save(number: int) -> None:
        for run, state, loader_state in zip(runs, states, loader_states, strict=True):
            run.save(number, state, loader_state)

    def preempted(number: int) -> None:
        for run in runs:
            run.checkpoints.wait()
        raise Preempted(stage.name, number)

    loader_states = [""] * len(runs)
    for number in range(first.saved + 1, first.end + 1):
        if stop.before(number):
            save(number - 1)
            preempted(number - 1)
        states, metrics = step.run(states, tuple(batch.arrays for batch in batches))
        for run, values, batch in zip(runs, metrics, batches, strict=True):
            run.pending.append(_Pending(number, values, batch))
        loader_states = [batch.loader_state for batch in batches]
        if number < first.end:
            batches = [run.next_batch() for run in runs]
        for run, state in zip(runs, states, strict=True):
            run.look_at(IN_FLIGHT)
            if run.due(number, training.eval_every):
                run.evaluate(number, state)
        if first.due(number, training.checkpoint_every):
            save(number)
    for run in runs:
        run.finish()
    if stop.before(first.end + 1):  # during the last steps: the next stage must not begin
        preempted(first.end)
    return states


class _Run:
    """One process's run of one stage: its loader, logs and checkpoints, from its restore to its last step."""

    def __init__(self, job: Job, mesh: Mesh, checkpoints: Checkpoints, tag: bool):
        self.stage, self.config, self.directory, self.mesh = job.stage, job.config, job.directory, mesh
        self.training, self.checkpoints, self.loader = job.training, checkpoints, job.make_loader()
        self.tag = f"seed {job.config.seed}: " if tag else ""  # of what is said of one run among several
        self.end = self.training.num_steps
        self.saved = checkpoints.latest_step() or 0
        meta = checkpoints.meta() if self.saved else {}
        self.seconds_before = meta.get("seconds", 0.0)  # spent by earlier processes
        self.skipped_updates, self.skipped_in_a_row = meta.get("skipped_updates", 0), 0
        rows = local_rows(mesh, self.training.batch_size)
        self.skipped_records = Skipped(rows, meta.get("skipped_records"))
        if self.saved:
            self.loader.set_state(meta["loader"])
        first = jax.process_index() == 0
        self.writer = MetricWriter(job.workdir, self.stage.name, self.saved) if first else NoWriter()
        frozen = getattr(self.stage, "frozen", None)
        # By way of the host, which alone may place one array on the devices of several processes.
        frozen = jax.device_put(jax.tree.map(np.asarray, frozen), replicated(mesh))
        self.frozen = {} if frozen is None else {"frozen": frozen}
        self.progress: Progress | None = None
        self.shows = False
        self.pending: collections.deque[_Pending] = collections.deque()
        self.began = self.logged_at = time.monotonic()
        self.logged_step = self.saved

    def first_state(
        self, batch: DeviceBatch, shapes: TrainState, make_state: Callable[[Any, int], TrainState]
    ) -> TrainState:
        """That of the last checkpoint, or a new one."""
        if self.saved:
            state = self.checkpoints.restore(shapes)
        else:
            state = make_state(batch.arrays, self.config.seed)
        self._say_size(state)
        return state

    def begin(self, progress: Progress | None, shows: bool) -> None:
        """Speaks through `progress` from now on, and moves it when it `shows` this run."""
        self.progress, self.shows = progress, shows
        self.logged_at = time.monotonic()

    def close(self) -> None:
        """Closes the files, the loader and the progress bar."""
        close_loader = getattr(self.loader, "close", None)
        if close_loader is not None:
            close_loader()
        if self.progress is not None:
            self.progress.close()
        self.writer.close()

    def next_batch(self) -> DeviceBatch:
        batch = next_batch(self.loader, self.mesh)
        return dataclasses.replace(batch, arrays=batch.arrays | self.frozen)

    def due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.end

    def look_at(self, in_flight: int) -> None:
        """Checks, and logs where due, all steps but the newest `in_flight`."""
        while len(self.pending) > in_flight:
            done = self.pending.popleft()
            if not done.metrics["finite"]:
                self._not_finite(done)
            else:
                self.skipped_in_a_row = 0
            self.skipped_records.add(done.batch.origin)
            if self.due(done.step, self.training.log_every):
                self._log(done)

    def _log(self, done: _Pending) -> None:
        values = {name: float(value) for name, value in jax.device_get(done.metrics).items() if name != "finite"}
        if self.training.on_nonfinite == "skip":
            values["skipped_updates"] = self.skipped_updates
        values |= self.skipped_records.values()
        for text in self.skipped_records.faults(self.loader):
            self._say(text)
        now = time.monotonic()
        speed = (done.step - self.logged_step) / max(now - self.logged_at, 1e-9)
        self.logged_at, self.logged_step = now, done.step
        self.writer.scalars(done.step, values, speed)
        if self.progress is not None and self.shows:
            self.progress.update(done.step, values["loss"], speed)
        self._warn(done.step, values)

    def _warn(self, step: int, values: Mapping[str, float]) -> None:
        warnings = getattr(self.stage, "warnings", None)
        early = step < EARLY * self.end  # nothing has been learnt yet, so nothing has collapsed
        for text in warnings(values) if warnings and not early else ():
            self._say(f"warning at step {step}: {text}")

    def _not_finite(self, done: _Pending) -> None:
        """Stops, or counts an update that was skipped."""
        values = jax.device_get(done.metrics)
        names = ", ".join(name for name in WATCHED if not np.isfinite(values[name]))
        origins = {name: from_all_processes(ids) for name, ids in done.batch.origin.items()}
        origin = "; ".join(f"{name} {ids.tolist()}" for name, ids in origins.items())
        what = f"{names} not finite at step {done.step}; batch: {origin or 'unknown'}"
        if self.training.on_nonfinite == "skip":
            self.skipped_updates, self.skipped_in_a_row = self.skipped_updates + 1, self.skipped_in_a_row + 1
            if self.skipped_in_a_row < MOST_SKIPPED:
                self._say(f"update skipped: {what}")
                return
            what = f"{MOST_SKIPPED} updates in a row skipped; {what}"
        kept = f"the last checkpoint is of step {self.saved}" if self.saved else "there is no checkpoint yet"
        copy = self._keep(done, origins)
        raise NonFiniteError(f"{self.stage.name}: {what}; a copy of it is in {copy}; {kept}")

    def _keep(self, done: _Pending, origins: Mapping[str, np.ndarray]) -> Path:
        """Writes a batch to a file that `numpy.load` reads, so that what it did can be found out."""
        moving = {name: value for name, value in done.batch.arrays.items() if name != "frozen"}
        arrays = {name: np.asarray(value) for name, value in on_this_process(moving).items()}
        path = self.directory / f"not_finite_{done.step:08d}.npz"
        if jax.process_index() == 0:
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                contents: dict[str, Any] = {**arrays, **origins}
                np.savez(file, step=done.step, seed=self.config.seed, **contents)
            partial.replace(path)
        return path

    def evaluate(self, step: int, state: TrainState) -> None:
        self.look_at(0)
        params = on_this_process(state.evaluation_params)
        if jax.process_index() != 0:  # the first one does it, on its own devices; the others wait for its next step
            return
        began = time.monotonic()
        values, pictures = self.stage.evaluate({"params": params}, step, step / self.end)
        values = {name: float(value) for name, value in values.items()}
        self.writer.scalars(step, values)
        self.writer.pictures(step, pictures)
        shown = [f"{name.rsplit('/')[-1]} {value:.4g}" for name, value in values.items() if not name[-1].isdigit()]
        if shown:
            self._say(f"{step} validation: " + ", ".join(shown))
        self._warn(step, values)
        self.logged_at += time.monotonic() - began  # no training time

    def save(self, step: int, state: TrainState, loader_state: str) -> None:
        """Saves a step whose values, and those of all before it, are finite and written."""
        self.look_at(0)
        if step == self.saved:
            return
        began = time.monotonic()
        self.writer.sync()
        meta = {
            "config": json.loads(to_json(self.config)),
            "loader": json.loads(loader_state),
            "seconds": self._seconds(),
            "skipped_updates": self.skipped_updates,
            "skipped_records": self.skipped_records.state(),
        }
        self.checkpoints.save(step, state, meta)
        self.saved = step
        self.logged_at += time.monotonic() - began

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.began

    def finish(self) -> None:
        self.checkpoints.wait()
        if jax.process_index() == 0:
            write_finished(self.directory, self.end, self._seconds())
        if self.skipped_records.summary():
            self._say(self.skipped_records.summary())
        skipped = f", {self.skipped_updates} updates skipped" if self.skipped_updates else ""
        self._say(f"finished: {self.end} steps, {describe_seconds(self._seconds())}{skipped}")

    def _say_size(self, state: TrainState) -> None:
        count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        start = f"goes on from step {self.saved}" if self.saved else "starts"
        if finished_step(self.directory) > self.saved:
            start = f"was done up to step {finished_step(self.directory)}, but its checkpoint is gone; {start}"
        sizes = ", ".join(f"{axis} {size}" for axis, size in self.mesh.shape.items())
        self._say(f"{start}: {count:,} parameters, mesh {sizes} ({jax.devices()[0].device_kind})")
        if self.mesh.size > 1 and jax.process_index() == 0:
            table = describe(state)
            write_text(self.directory / "sharding.txt", table + "\n")
            self._say(f"{table.splitlines()[-1]}; how each is cut: {self.directory}/sharding.txt")

    def say_compiled(self, flops: int, size: int | None, seconds: float) -> None:
        memory = f"{size / 2**20:.0f} MiB a device" if size else "unknown memory"
        self._say(f"step compiled in {seconds:.1f} s: {flops / 1e9:.3g} GFLOP, {memory}")

    def _say(self, text: str) -> None:
        if self.progress is not None:
            self.progress.say(self.tag + text)
        elif jax.process_index() == 0:
            print(f"{self.stage.name} {self.tag}{text}", flush=True)
