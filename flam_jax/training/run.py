"""One run of one stage: its loader, logs and checkpoints."""

import collections
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from data_pipelines.paths import replacing
from flam_jax.checkpoints import Checkpoints, finished_step, restore_parameters, write_finished, write_text
from flam_jax.cluster import from_all_processes, on_this_process, wait_for_all
from flam_jax.config import Config, to_json
from flam_jax.training.batches import DeviceBatch, next_batch
from flam_jax.training.logs import MetricWriter, NoWriter, Progress, describe_seconds
from flam_jax.training.sharding import Rule, describe, local_rows, replicated, tree_shardings
from flam_jax.training.skipped import Skipped
from flam_jax.training.stage import Frozen, Stage
from flam_jax.training.state import TrainState
from flam_jax.training.step import WATCHED, CompiledStep, compile_step, state_maker, state_shapes, train_step

EARLY = 0.25  # share of training in which no warnings are given
MOST_SKIPPED = 100  # updates in a row that may be skipped: after so many it is not the batch

StateMaker = Callable[[Frozen, Any, int], TrainState]


class NonFiniteError(FloatingPointError):
    """A loss or gradient that is not finite; the message names step, metric, the batch's records and a copy of it."""


@dataclasses.dataclass(frozen=True)
class Job:
    """The parts of one run of a stage.

    Attributes:
      stage: to be trained.
      config: the whole configuration; the stage's `training` section is used, all of it is stored.
      workdir: of the run; the stage writes to `<workdir>/<stage.name>`, `metrics.jsonl` and `tensorboard`.
      initial: folder of a stage whose parameters the run begins with; None for new ones.
    """

    stage: Stage
    config: Config
    workdir: Path
    initial: Path | None = None

    @property
    def directory(self) -> Path:
        """Of the stage."""
        return self.workdir / self.stage.name

    @property
    def training(self) -> Config:
        """Section of the configuration."""
        return self.config[self.stage.name].training


@dataclasses.dataclass(frozen=True)
class _Pending:
    """A step whose metrics have not been read."""

    step: int  # updates done after it
    metrics: Mapping[str, jax.Array]
    batch: DeviceBatch


class Run:
    """One process's run of one stage, from its restore to its last step; a `loop.Trainable`.

    Attributes:
      stage, config, training, directory: as in `Job`.
      saved: step of the last checkpoint, 0 where there is none.
      end: the last step.
    """

    def __init__(self, job: Job, mesh: Mesh, rules: tuple[Rule, ...], checkpoints: Checkpoints, tag: str = ""):
        """Opens loader and logs, and sets the loader to where the last checkpoint was saved.

        Args:
          job: the run.
          mesh: devices.
          rules: shardings by parameter path.
          checkpoints: of the run; closed by its owner.
          tag: what the lines of this run begin with, where several share a terminal.
        """
        self.stage, self.config, self.directory, self.training = job.stage, job.config, job.directory, job.training
        self._mesh, self._rules, self._checkpoints, self._tag = mesh, rules, checkpoints, tag
        self._initial = job.initial
        self.end = self.training.num_steps
        self.saved = checkpoints.latest_step() or 0
        meta = checkpoints.meta() if self.saved else {}
        self._seconds_before = meta.get("seconds", 0.0)  # spent by earlier processes
        self._skipped_updates, self._skipped_in_a_row = meta.get("skipped_updates", 0), 0
        rows = local_rows(mesh, self.training.batch_size)
        self._skipped_records = Skipped(rows, meta.get("skipped_records"))
        self._loader = self.stage.make_loader(rows)
        if self.saved:
            self._loader.set_state(meta["loader"])
        self._loader_state = ""  # after the batch of the last step, as JSON
        first = jax.process_index() == 0
        self._writer = MetricWriter(job.workdir, self.stage.name, self.saved) if first else NoWriter()
        self._progress: Progress | None = None
        self._moves_bar = False
        self._pending: collections.deque[_Pending] = collections.deque()
        self._compiled: CompiledStep
        self._began = self._logged_at = time.monotonic()
        self._logged_step = self.saved

    @functools.cached_property
    def frozen(self) -> Frozen:
        """The stage's frozen parameters, whole on every device."""
        # By way of the host, which alone may place one array on the devices of several processes.
        return jax.device_put(jax.tree.map(np.asarray, dict(self.stage.frozen)), replicated(self._mesh))

    def next_batch(self) -> DeviceBatch:
        return next_batch(self._loader, self._mesh)

    def start(self, batch: DeviceBatch) -> TrainState:
        """As `Trainable`."""
        shapes, make_state = self.plan_state(batch)
        state = self.first_state(self.frozen, batch, shapes, make_state)
        step = functools.partial(train_step, stage=self.stage, training=self.training, seed=self.config.seed)
        self._compiled = self.compile(step, shapes, batch.arrays)
        self.begin()
        return state

    def plan_state(self, batch: DeviceBatch) -> tuple[TrainState, StateMaker]:
        """Shapes and shardings of the state, and what makes one of a seed."""
        stage, training = self.stage, self.training
        shapes = state_shapes(
            self.frozen, batch.arrays, stage=stage, training=training, mesh=self._mesh, rules=self._rules
        )
        return shapes, state_maker(shapes, stage=stage, training=training)

    def first_state(self, frozen: Frozen, batch: DeviceBatch, shapes: TrainState, make_state: StateMaker) -> TrainState:
        """That of the last checkpoint, or a new one."""
        if self.saved:
            state = self._checkpoints.restore(shapes)
        else:
            state = make_state(frozen, batch.arrays, self.config.seed)
            if self._initial is not None:
                params = restore_parameters(self._initial, self._shardings)
                state = TrainState(state.step, params, state.opt_state)
        self._log_size(state)
        return state

    def _shardings(self, tree: Any) -> Any:
        return tree_shardings(tree, self._mesh, self._rules)

    def compile(self, step: Callable[[Any, Frozen, Any], Any], state: Any, batch: Any) -> CompiledStep:
        """Compiles a step, on all processes, for the shapes of its arguments."""
        began = time.monotonic()
        compiled = compile_step(step, state, self.frozen, batch, mesh=self._mesh)
        memory = f"{compiled.bytes / 2**20:.0f} MiB a device" if compiled.bytes else "unknown memory"
        self.log_line(f"step compiled in {time.monotonic() - began:.1f} s: {compiled.flops / 1e9:.3g} GFLOP, {memory}")
        wait_for_all()
        return compiled

    def begin(self, progress: Progress | None = None) -> Progress | None:
        """Starts the clock and logs beside a progress bar: a new one, or that of another run, which moves it."""
        self._moves_bar = progress is None
        if progress is None and jax.process_index() == 0:
            progress = Progress(self.stage.name, self.saved, self.end)
        self._progress = progress
        self._logged_at = time.monotonic()
        return progress

    def close(self) -> None:
        """Closes the files, the loader and the progress bar."""
        self._loader.close()
        if self._progress is not None:
            self._progress.close()
        self._writer.close()

    def step(self, number: int, state: TrainState, batch: DeviceBatch) -> TrainState:
        """As `Trainable`."""
        state, metrics = self._compiled.run(state, self.frozen, batch.arrays)
        self.add(number, metrics, batch)
        return state

    def add(self, number: int, metrics: Mapping[str, jax.Array], batch: DeviceBatch) -> None:
        """Takes the metrics of a step that was started."""
        self._pending.append(_Pending(number, metrics, batch))
        self._loader_state = batch.loader_state

    def due(self, step: int, every: int) -> bool:
        """As `Trainable`."""
        return step % every == 0 or step == self.end

    def drain_metrics(self, in_flight: int) -> None:
        """As `Trainable`."""
        while len(self._pending) > in_flight:
            done = self._pending.popleft()
            if not jax.device_get(done.metrics["finite"]):
                self._not_finite(done)
            else:
                self._skipped_in_a_row = 0
            self._skipped_records.add(done.batch.origin)
            if self.due(done.step, self.training.log_every):
                self._log(done)

    def _log(self, done: _Pending) -> None:
        values = {name: float(value) for name, value in jax.device_get(done.metrics).items() if name != "finite"}
        if self.training.on_nonfinite == "skip":
            values["skipped_updates"] = self._skipped_updates
        values |= self._skipped_records.values()
        for text in self._skipped_records.faults(self._loader):
            self.log_line(text)
        now = time.monotonic()
        speed = (done.step - self._logged_step) / max(now - self._logged_at, 1e-9)
        self._logged_at, self._logged_step = now, done.step
        self._writer.scalars(done.step, values, speed)
        if self._progress is not None and self._moves_bar:
            self._progress.update(done.step, values["loss"], speed)
        self._warn(done.step, values)

    def _warn(self, step: int, values: Mapping[str, float]) -> None:
        if step < EARLY * self.end:  # nothing has been learnt yet, so nothing has collapsed
            return
        for text in self.stage.warnings(values):
            self.log_line(f"warning at step {step}: {text}")

    def _not_finite(self, done: _Pending) -> None:
        """Stops, or counts an update that was skipped."""
        values = jax.device_get(done.metrics)
        names = ", ".join(name for name in WATCHED if not np.isfinite(values[name]))
        origins = {name: from_all_processes(ids) for name, ids in done.batch.origin.items()}
        origin = "; ".join(f"{name} {ids.tolist()}" for name, ids in origins.items())
        what = f"{names} not finite at step {done.step}; batch: {origin or 'unknown'}"
        if self.training.on_nonfinite == "skip":
            self._skipped_updates, self._skipped_in_a_row = self._skipped_updates + 1, self._skipped_in_a_row + 1
            if self._skipped_in_a_row < MOST_SKIPPED:
                self.log_line(f"update skipped: {what}")
                return
            what = f"{MOST_SKIPPED} updates in a row skipped; {what}"
        kept = f"the last checkpoint is of step {self.saved}" if self.saved else "there is no checkpoint yet"
        copy = self._save_batch(done, origins)
        raise NonFiniteError(f"{self.stage.name}: {what}; a copy of it is in {copy}; {kept}")

    def _save_batch(self, done: _Pending, origins: Mapping[str, np.ndarray]) -> Path:
        """Writes a batch to a file that `numpy.load` reads, so that its effect can be found out."""
        arrays = {name: np.asarray(value) for name, value in on_this_process(done.batch.arrays).items()}
        path = self.directory / f"not_finite_{done.step:08d}.npz"
        if jax.process_index() == 0:
            contents: dict[str, Any] = {**arrays, **origins}
            with replacing(path) as file:
                np.savez(file, step=done.step, seed=self.config.seed, **contents)
        return path

    def evaluate(self, step: int, state: TrainState) -> None:
        """As `Trainable`."""
        self.drain_metrics(0)
        params = on_this_process(state.params)
        if jax.process_index() != 0:  # the first one does it, on its own devices; the others wait for its next step
            return
        began = time.monotonic()
        values, pictures = self.stage.evaluate({"params": params}, step, step / self.end)
        values = {name: float(value) for name, value in values.items()}
        self._writer.scalars(step, values)
        self._writer.pictures(step, pictures)
        shown = [f"{name.rsplit('/')[-1]} {value:.4g}" for name, value in values.items() if not name[-1].isdigit()]
        if shown:
            self.log_line(f"{step} validation: " + ", ".join(shown))
        self._warn(step, values)
        self._logged_at += time.monotonic() - began  # no training time

    def save(self, step: int, state: TrainState) -> None:
        """As `Trainable`."""
        self.drain_metrics(0)
        if step == self.saved:
            return
        began = time.monotonic()
        self._writer.sync()
        meta = {
            "config": json.loads(to_json(self.config)),
            "loader": json.loads(self._loader_state),
            "seconds": self._seconds(),
            "skipped_updates": self._skipped_updates,
            "skipped_records": self._skipped_records.state(),
        }
        self._checkpoints.save(step, state, meta)
        self.saved = step
        self._logged_at += time.monotonic() - began

    def wait(self) -> None:
        """As `Trainable`."""
        self._checkpoints.wait()

    def finish(self) -> None:
        """As `Trainable`."""
        self.wait()
        if jax.process_index() == 0:
            write_finished(self.directory, self.end, self._seconds())
        if self._skipped_records.summary():
            self.log_line(self._skipped_records.summary())
        skipped = f", {self._skipped_updates} updates skipped" if self._skipped_updates else ""
        self.log_line(f"finished: {self.end} steps, {describe_seconds(self._seconds())}{skipped}")

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began

    def _log_size(self, state: TrainState) -> None:
        count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        start = f"resumes from step {self.saved}" if self.saved else "starts"
        if finished_step(self.directory) > self.saved:
            start = f"was done up to step {finished_step(self.directory)}, but its checkpoint is gone; {start}"
        sizes = ", ".join(f"{axis} {size}" for axis, size in self._mesh.shape.items())
        self.log_line(f"{start}: {count:,} parameters, mesh {sizes} ({jax.devices()[0].device_kind})")
        if self._mesh.size > 1 and jax.process_index() == 0:
            table = describe(state)
            write_text(self.directory / "sharding.txt", table + "\n")
            self.log_line(f"{table.splitlines()[-1]}; the sharding of each: {self.directory}/sharding.txt")

    def log_line(self, text: str) -> None:
        """Prints a line about this run, on the first process."""
        if self._progress is not None:
            self._progress.log_line(self._tag + text)
        elif jax.process_index() == 0:
            print(f"{self.stage.name} {self._tag}{text}", flush=True)


__all__ = ["Job", "NonFiniteError", "Run"]
