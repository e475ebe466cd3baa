"""Checkpoints on disk: one folder per stage, nothing pickled, every step written whole or not at all.

    <workdir>/<stage>/checkpoints/<step>/   Orbax: params, ema (where averaged), optimizer, meta (JSON)
    <workdir>/<stage>/finished.json         {"step": ..., "seconds": ...}; the stage is done up to that step

What a start reads, in this order:
  1. the configuration inside the newest checkpoint: it must agree with the one asked for (`check_config`);
  2. `finished.json`: the stage is skipped when it is done up to the asked number of steps;
  3. the newest checkpoint: state, step, seconds, and the position of the loader;
  4. nothing there: the stage starts from its seed.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from flam_jax.config import Config, differences

FORMAT = 1  # of the folder; raised when older checkpoints can no longer be read
_ARRAYS = ("params", "ema", "optimizer")


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, unreadable or of another configuration; the message is one line."""


class Checkpoints:
    """The checkpoints of one stage. Saves are asynchronous; close it, or use it in a `with` statement."""

    def __init__(self, directory: str | Path, kept: int = 1, *, read_only: bool = False):
        """Opens a stage's folder.

        Args:
          directory: the stage's folder, `<workdir>/<stage>`.
          kept: newest checkpoints that are kept.
          read_only: never writes, nor makes the folder.
        """
        import orbax.checkpoint as ocp  # slow to import, and of no use to who only wants the modules

        self._ocp = ocp
        self.directory = Path(directory).absolute()
        self._manager = ocp.CheckpointManager(
            self.directory / "checkpoints",
            item_handlers={name: ocp.StandardCheckpointHandler() for name in _ARRAYS}
            | {"meta": ocp.JsonCheckpointHandler()},
            options=ocp.CheckpointManagerOptions(
                max_to_keep=kept, create=not read_only, cleanup_tmp_directories=not read_only
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for running saves and lets go of the folder."""
        self._manager.close()

    def wait(self) -> None:
        """Waits until every save is on disk.

        Raises:
          CheckpointError: a save failed, for example because the disk is full.
        """
        with _one_line(f"{self.directory}: the checkpoint could not be written"):
            self._manager.wait_until_finished()

    def latest_step(self) -> int | None:
        """The newest complete checkpoint; None when there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, meta: Mapping[str, Any]) -> None:
        """Starts to write a checkpoint; returns once the arrays are copied, so that their buffers may be donated.

        Args:
          step: updates done.
          state: a `TrainState`.
          meta: what else the run needs to go on, as JSON: `config`, `loader`, `seconds`.

        Raises:
          CheckpointError: this or the save before could not be written.
        """
        args = self._ocp.args
        items = {
            "params": args.StandardSave(state.params),
            "optimizer": args.StandardSave(state.opt_state),
            "meta": args.JsonSave({"format": FORMAT, "step": step, **meta}),
        }
        if state.ema_params is not None:
            items["ema"] = args.StandardSave(state.ema_params)
        with _one_line(f"{self.directory}: checkpoint {step} could not be written"):
            self._manager.save(step, args=args.Composite(**items), force=True)

    def meta(self, step: int | None = None) -> dict[str, Any]:
        """The JSON part of a checkpoint, of the newest by default.

        Raises:
          CheckpointError: there is none, it cannot be read, or its format is another.
        """
        step = self._existing(step)
        with _one_line(f"{self.directory}: checkpoint {step} cannot be read"):
            args = self._ocp.args
            meta = self._manager.restore(step, args=args.Composite(meta=args.JsonRestore()))["meta"]
        if meta.get("format") != FORMAT:
            raise CheckpointError(
                f"{self.directory}: checkpoint {step} has format {meta.get('format')}, expected {FORMAT}"
            )
        return meta

    def restore(self, shapes: Any, step: int | None = None) -> Any:
        """Restores a `TrainState` into given shapes and shardings, whatever mesh it was saved on.

        Args:
          shapes: a `TrainState` of `jax.ShapeDtypeStruct` with shardings.
          step: of the checkpoint, the newest by default.

        Raises:
          CheckpointError: there is none, or its arrays are not these.
        """
        step = self._existing(step)
        args = self._ocp.args
        items = {"params": shapes.params, "optimizer": shapes.opt_state}
        if shapes.ema_params is not None:
            items["ema"] = shapes.ema_params
        with _one_line(f"{self.directory}: checkpoint {step} cannot be restored"):
            restored = self._manager.restore(
                step, args=args.Composite(**{name: args.StandardRestore(item) for name, item in items.items()})
            )
        number = jax.device_put(jax.numpy.asarray(step, shapes.step.dtype), shapes.step.sharding)
        return shapes.replace(
            step=number,
            params=restored["params"],
            opt_state=restored["optimizer"],
            ema_params=restored.get("ema") if shapes.ema_params is not None else None,
        )

    def parameters(self, shardings: Callable[[Any], Any] | None = None, step: int | None = None) -> Any:
        """The parameters to evaluate with: the moving average where there is one, as nested dicts.

        Args:
          shardings: from a tree of shapes to one of shardings; everything on the first local device by default.
          step: of the checkpoint, the newest by default.

        Raises:
          CheckpointError: there is no checkpoint, or it cannot be read.
        """
        step = self._existing(step)
        one_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        with _one_line(f"{self.directory}: checkpoint {step} cannot be read"):
            saved = self._manager.item_metadata(step)
            name = "ema" if saved.get("ema") is not None else "params"
            shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), saved[name])
            where = shardings(shapes) if shardings else jax.tree.map(lambda _: one_device, shapes)
            shapes = jax.tree.map(lambda a, b: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=b), shapes, where)
            args = self._ocp.args
            return self._manager.restore(step, args=args.Composite(**{name: args.StandardRestore(shapes)}))[name]

    def _existing(self, step: int | None) -> int:
        steps = self._manager.all_steps()
        if not steps:
            raise CheckpointError(f"{self.directory} holds no checkpoint")
        if step is not None and step not in steps:
            raise CheckpointError(
                f"{self.directory} holds no checkpoint {step}, only {', '.join(map(str, sorted(steps)))}"
            )
        return max(steps) if step is None else step


class _one_line:
    """Turns whatever Orbax raises into a CheckpointError of one line."""

    def __init__(self, what: str):
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, CheckpointError):
            lines = str(error).strip().splitlines()
            detail = lines[0][:200] if lines else type(error).__name__
            raise CheckpointError(f"{self.what}: {detail}") from error


def restore_parameters(directory: str | Path, shardings: Callable[[Any], Any] | None = None) -> Any:
    """The newest parameters of a stage's folder, averaged ones where the run averaged.

    Args:
      directory: `<workdir>/tokenizer` or `<workdir>/dynamics`.
      shardings: from a tree of shapes to one of shardings; everything on the first local device by default.

    Raises:
      CheckpointError: the folder holds no readable checkpoint.
    """
    if not (Path(directory) / "checkpoints").is_dir():
        raise CheckpointError(f"{directory} holds no checkpoint")
    with Checkpoints(directory, read_only=True) as checkpoints:
        return checkpoints.parameters(shardings)


def check_config(directory: str | Path, config: Config, stage: str) -> None:
    """Refuses to go on with a stage that was trained with another configuration.

    A stage without a checkpoint takes any. What may differ stands at `flam_jax.config.differences`.

    Raises:
      CheckpointError: names the fields that differ and both values.
    """
    if not (Path(directory) / "checkpoints").is_dir():
        return
    with Checkpoints(directory, read_only=True) as checkpoints:
        if checkpoints.latest_step() is None:
            return
        meta = checkpoints.meta()
    different = differences(meta["config"], config, stage)
    if different:
        fields = "; ".join(f"config.{name} was {old}, now {new}" for name, old, new in different)
        raise CheckpointError(f"{directory} was trained with another configuration: {fields}; take another --workdir")


def adopt_tokenizer(source: str | Path, workdir: str | Path, config: Config) -> None:
    """Copies the trained tokenizer of another run, whole or not at all; does nothing when it was copied before.

    Args:
      source: workdir of the other run.
      workdir: of this run.
      config: of this run; it must agree with the other in the data and in the tokenizer, its training apart.

    Raises:
      CheckpointError: there is no finished tokenizer, or it is of other data or other sizes.
    """
    origin, target = Path(source) / "tokenizer", Path(workdir) / "tokenizer"
    field = f"config.tokenizer.restore_from = {str(source)!r}"
    if not finished_step(origin) or not (origin / "checkpoints").is_dir():
        raise CheckpointError(f"{field}: expected the workdir of a run whose tokenizer is finished")
    with Checkpoints(origin, read_only=True) as checkpoints:
        stored = checkpoints.meta()["config"]
    free = ("seed", "tokenizer.training.", "tokenizer.restore_from")
    different = [entry for entry in differences(stored, config, "tokenizer") if not entry[0].startswith(free)]
    if different:
        fields = "; ".join(f"config.{name} is {old} there, {new} here" for name, old, new in different)
        raise CheckpointError(f"{field}: that tokenizer does not fit: {fields}")
    if jax.process_index() == 0 and not finished_step(target):
        if target.is_dir():
            raise CheckpointError(f"{target} holds an unfinished tokenizer of this run's own; take another --workdir")
        partial = target.with_name("tokenizer.partial")
        with _one_line(f"{target}: the tokenizer could not be copied"):
            shutil.rmtree(partial, ignore_errors=True)  # of a start that was killed
            shutil.copytree(origin, partial)
            partial.replace(target)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("tokenizer adopted")


def finished_step(directory: str | Path) -> int:
    """The step up to which a stage is done; 0 when it is not."""
    return read_finished(directory).get("step", 0)


def read_finished(directory: str | Path) -> dict[str, Any]:
    """What `write_finished` wrote; empty when the stage is not done."""
    try:
        return json.loads((Path(directory) / "finished.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_finished(directory: str | Path, step: int, seconds: float) -> None:
    """Marks a stage as done; call it when its last checkpoint is on disk."""
    write_text(Path(directory) / "finished.json", json.dumps({"step": step, "seconds": round(seconds, 3)}))


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file so that a reader, or a start after a crash, sees the old or the new one, never a part."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


__all__ = [
    "CheckpointError",
    "Checkpoints",
    "adopt_tokenizer",
    "check_config",
    "finished_step",
    "read_finished",
    "restore_parameters",
    "write_finished",
    "write_text",
]
