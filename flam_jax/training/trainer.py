"""The loop of a stage: restore, step, log, evaluate, save, and end in a state that can go on."""

import collections
import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from flam_jax.checkpoints import Checkpoints, check_config, finished_step, write_finished
from flam_jax.config import Config, to_json
from flam_jax.training.batches import DeviceBatch, Loader, next_batch
from flam_jax.training.metrics import MetricWriter, NoWriter, Progress, describe_seconds
from flam_jax.training.sharding import RULES, Rule, check_batch_size, make_mesh, replicated, tree_shardings
from flam_jax.training.signals import Preempted, StopRequest
from flam_jax.training.stage import Stage
from flam_jax.training.state import TrainState
from flam_jax.training.step import WATCHED, compile_step, make_state, state_shapes

# Steps in flight. Values of a step are looked at only when this many later steps are under way: the device never waits
# for the host, and a step that is not finite is still found with its own batch at hand.
IN_FLIGHT = 2
EARLY = 0.25  # share of training in which no warnings are given


class NonFiniteError(FloatingPointError):
    """A loss or gradient that is not finite; the message names step, metric and the records of the batch."""


@dataclasses.dataclass(frozen=True)
class _Pending:
    step: int  # updates done after it
    metrics: Mapping[str, jax.Array]
    batch: DeviceBatch


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
      stage: initial variables, loss and evaluation.
      config: the whole configuration; the stage's `training` section is used, all of it is stored.
      workdir: of the run; the stage writes to `<workdir>/<stage.name>`, `metrics.jsonl` and `tensorboard`.
      make_loader: makes the iterator over this process's training batches, at its start; its state is set when the run
        goes on. Not called when the stage is finished.
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
    training = config[stage.name].training
    directory = Path(workdir) / stage.name
    mesh = mesh or make_mesh(**config.mesh)
    check_batch_size(training, mesh, f"{stage.name}.training")
    check_config(directory, config, stage.name)
    with StopRequest() as stop, Checkpoints(directory, training.checkpoints_kept) as checkpoints:
        if (checkpoints.latest_step() or 0) < training.num_steps:
            run = _Run(stage, config, Path(workdir), make_loader(), mesh, checkpoints, stop)
            try:
                state = run.go(rules)
            finally:
                run.close()
            return {"params": state.evaluation_params}
        if finished_step(directory) < training.num_steps:  # killed between the last checkpoint and the mark
            write_finished(directory, training.num_steps, checkpoints.meta()["seconds"])
        if jax.process_index() == 0:
            print(f"{stage.name} finished before: {training.num_steps} steps", flush=True)
        return {"params": checkpoints.parameters(lambda shapes: tree_shardings(shapes, mesh, rules))}


class _Run:
    """One process's run of one stage, from its restore to its last step."""

    def __init__(
        self,
        stage: Stage,
        config: Config,
        workdir: Path,
        loader: Loader,
        mesh: Mesh,
        checkpoints: Checkpoints,
        stop: StopRequest,
    ):
        self.stage, self.config, self.workdir, self.loader, self.mesh = stage, config, workdir, loader, mesh
        self.checkpoints, self.stop = checkpoints, stop
        self.training = config[stage.name].training
        self.end = self.training.num_steps
        self.saved = checkpoints.latest_step() or 0
        meta = checkpoints.meta() if self.saved else {}
        self.seconds_before = meta.get("seconds", 0.0)  # spent by earlier processes
        if self.saved:
            loader.set_state(meta["loader"])
        first = jax.process_index() == 0
        self.writer = MetricWriter(workdir, stage.name, self.saved) if first else NoWriter()
        frozen = getattr(stage, "frozen", None)
        self.frozen = {} if frozen is None else {"frozen": jax.device_put(frozen, replicated(mesh))}
        self.progress: Progress | None = None
        self.pending: collections.deque[_Pending] = collections.deque()
        self.began = self.logged_at = time.monotonic()
        self.logged_step = self.saved

    def go(self, rules: tuple[Rule, ...]) -> TrainState:
        """Runs the steps that are left; returns the last state."""
        stage, training = self.stage, self.training
        batch = self._next_batch()
        batch_shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), batch.arrays
        )
        shapes = state_shapes(batch_shapes, stage=stage, training=training, mesh=self.mesh, rules=rules)
        if self.saved:
            state = self.checkpoints.restore(shapes)
        else:
            state = make_state(batch.arrays, shapes, stage=stage, training=training, seed=self.config.seed)
        self._say_size(state)
        began = time.monotonic()
        step = compile_step(shapes, batch_shapes, stage=stage, training=training, seed=self.config.seed, mesh=self.mesh)
        self._say_compiled(step.flops, step.bytes, time.monotonic() - began)
        self.progress = Progress(stage.name, self.saved, self.end) if jax.process_index() == 0 else None
        self.logged_at = time.monotonic()

        loader_state = ""
        for number in range(self.saved + 1, self.end + 1):
            if self.stop.asked:
                self._save(number - 1, state, loader_state)
                self._preempted(number - 1)
            state, metrics = step.run(state, batch.arrays)
            self.pending.append(_Pending(number, metrics, batch))
            loader_state = batch.loader_state
            if number < self.end:
                batch = self._next_batch()
            self._look_at(IN_FLIGHT)
            if self._due(number, training.eval_every):
                self._evaluate(number, state)
            if self._due(number, training.checkpoint_every):
                self._save(number, state, loader_state)
        self._finish()
        if self.stop.asked:  # during the last steps: the next stage must not begin
            self._preempted(self.end)
        return state

    def close(self) -> None:
        """Closes the files, the loader and the progress bar."""
        close_loader = getattr(self.loader, "close", None)
        if close_loader is not None:
            close_loader()
        if self.progress is not None:
            self.progress.close()
        self.writer.close()

    def _next_batch(self) -> DeviceBatch:
        batch = next_batch(self.loader, self.mesh)
        return dataclasses.replace(batch, arrays=batch.arrays | self.frozen)

    def _due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.end

    def _look_at(self, in_flight: int) -> None:
        """Checks, and logs where due, all steps but the newest `in_flight`."""
        while len(self.pending) > in_flight:
            done = self.pending.popleft()
            if not done.metrics["finite"]:
                self._stop_non_finite(done)
            if self._due(done.step, self.training.log_every):
                self._log(done)

    def _log(self, done: _Pending) -> None:
        values = {name: float(value) for name, value in jax.device_get(done.metrics).items() if name != "finite"}
        now = time.monotonic()
        speed = (done.step - self.logged_step) / max(now - self.logged_at, 1e-9)
        self.logged_at, self.logged_step = now, done.step
        self.writer.scalars(done.step, values, speed)
        if self.progress is not None:
            self.progress.update(done.step, values["loss"], speed)
        self._warn(done.step, values)

    def _warn(self, step: int, values: Mapping[str, float]) -> None:
        warnings = getattr(self.stage, "warnings", None)
        early = step < EARLY * self.end  # nothing has been learnt yet, so nothing has collapsed
        for text in warnings(values) if warnings and not early else ():
            self._say(f"warning at step {step}: {text}")

    def _stop_non_finite(self, done: _Pending) -> None:
        values = jax.device_get(done.metrics)
        names = ", ".join(name for name in WATCHED if not np.isfinite(values[name]))
        origin = "; ".join(f"{name} {np.asarray(ids).tolist()}" for name, ids in done.batch.origin.items())
        kept = f"the last checkpoint is of step {self.saved}" if self.saved else "there is no checkpoint yet"
        raise NonFiniteError(
            f"{self.stage.name}: {names} not finite at step {done.step}; batch: {origin or 'unknown'}; {kept}"
        )

    def _evaluate(self, step: int, state: TrainState) -> None:
        self._look_at(0)
        began = time.monotonic()
        progress = step / self.end
        values, pictures = self.stage.evaluate({"params": state.evaluation_params}, step, progress)
        values = {name: float(value) for name, value in values.items()}
        self.writer.scalars(step, values)
        self.writer.pictures(step, pictures)
        shown = [f"{name.rsplit('/')[-1]} {value:.4g}" for name, value in values.items() if not name[-1].isdigit()]
        if shown:
            self._say(f"{step} validation: " + ", ".join(shown))
        self._warn(step, values)
        self.logged_at += time.monotonic() - began  # no training time

    def _save(self, step: int, state: TrainState, loader_state: str) -> None:
        """Saves a step whose values, and those of all before it, are finite and written."""
        self._look_at(0)
        if step == self.saved:
            return
        began = time.monotonic()
        self.writer.sync()
        meta = {
            "config": json.loads(to_json(self.config)),
            "loader": json.loads(loader_state),
            "seconds": self._seconds(),
        }
        self.checkpoints.save(step, state, meta)
        self.saved = step
        self.logged_at += time.monotonic() - began

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.began

    def _finish(self) -> None:
        self.checkpoints.wait()
        directory = self.workdir / self.stage.name
        write_finished(directory, self.end, self._seconds())
        self._say(f"finished: {self.end} steps, {describe_seconds(self._seconds())}")

    def _preempted(self, step: int) -> None:
        self.checkpoints.wait()
        raise Preempted(self.stage.name, step)

    def _say_size(self, state: TrainState) -> None:
        count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        start = f"goes on from step {self.saved}" if self.saved else "starts"
        sizes = ", ".join(f"{axis} {size}" for axis, size in self.mesh.shape.items())
        self._say(f"{start}: {count:,} parameters, mesh {sizes} ({jax.devices()[0].device_kind})")

    def _say_compiled(self, flops: float | None, size: int | None, seconds: float) -> None:
        cost = f"{flops / 1e9:.3g} GFLOP (loops count once) and " if flops else ""
        memory = f"{size / 2**20:.0f} MiB" if size else "unknown memory"
        self._say(f"step compiled in {seconds:.1f} s: {cost}{memory} per device")

    def _say(self, text: str) -> None:
        if self.progress is not None:
            self.progress.say(text)
        elif jax.process_index() == 0:
            print(f"{self.stage.name} {text}", flush=True)
