"""Checkpoints on disk: one folder per stage, nothing pickled, every step written whole or not at all.

    <workdir>/<stage>/checkpoints/<step>/   Orbax: params, optimizer, meta (JSON), checksums.json
    <workdir>/<stage>/damaged/<step>/       a checkpoint that is not what was written, set aside
    <workdir>/<stage>/finished.json         {"step": ..., "seconds": ...}; the stage is done up to that step

What a start reads, in this order:
  1. the checksums of the newest checkpoint; where a file of it is damaged, those of the one before it, and so on;
  2. the configuration inside it: it must agree with the one asked for (`check_config`);
  3. `finished.json`: the stage is skipped when it is done up to the asked number of steps;
  4. the checkpoint: state, step, seconds, and the position of the loader;
  5. nothing there: the stage starts from its seed.

Orbax itself notices some damage only (a flipped byte among the numbers of an array restores as another number), and
says so with pages of text. Therefore the checksums; they are written before a checkpoint gets its name.
"""

import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipelines.paths import replacing, take_folders_literally
from flam_jax.cluster import on_first_process
from flam_jax.config import Config, differences
from flam_jax.tokenizer.discriminator import without_discriminator

# Fields that say how a model is trained, not what it is.
_OF_TRAINING = {
    *(f"tokenizer.{name}" for name in ("patches_share", "change_weight", "consistency_weight", "lpips_weight")),
    *(f"tokenizer.{name}" for name in ("entropy_weight", "adversarial_weight", "adversarial_start")),
    *(f"dynamics.{name}" for name in ("kl_weight", "kl_weight_final", "kl_anneal_start", "cache_codes")),
    *(f"dynamics.{name}" for name in ("prediction_steps", "prediction_steps_start", "separation_penalty")),
    *(f"dynamics.{name}" for name in ("slot_anneal_end", "query_noise")),
    *(f"dynamics.inverse_temperature_{name}" for name in ("start", "jitter")),
}

FORMAT = 1  # of the folder; raised when older checkpoints can no longer be read
_ARRAYS = ("params", "optimizer")
_CHECKSUMS = "checksums.json"


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

        Raises:
          CheckpointError: there are checkpoints, and every one of them is damaged.
        """
        import orbax.checkpoint as ocp  # slow to import, and of no use to who only wants the modules

        take_folders_literally()
        self._ocp = ocp
        self.directory = Path(directory).absolute()
        self._saving = 0  # the step whose checkpoint is being written
        self._newest, self._damaged = on_first_process(
            lambda: self._find_newest(set_aside=not read_only), errors=CheckpointError
        )
        self._manager = ocp.CheckpointManager(
            self.directory / "checkpoints",
            item_handlers={name: ocp.StandardCheckpointHandler() for name in _ARRAYS}
            | {"meta": ocp.JsonCheckpointHandler()},
            options=ocp.CheckpointManagerOptions(
                max_to_keep=kept,
                create=not read_only,
                cleanup_tmp_directories=not read_only,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_checksums),
            ),
        )

    def _find_newest(self, set_aside: bool) -> tuple[int, str]:
        """The step of the newest checkpoint without damage (0: there is none), and what is wrong with newer ones."""
        folder = self.directory / "checkpoints"
        damaged: dict[int, str] = {}
        steps = sorted((int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal()), reverse=True)
        for step in steps:
            wrong = find_damage(folder / str(step))
            if not wrong:
                break
            damaged[step] = wrong
        words = "; ".join(f"checkpoint {step} is damaged: {wrong}" for step, wrong in damaged.items())
        if len(damaged) == len(steps):
            if damaged:
                raise CheckpointError(f"{self.directory}: {words}; there is no other: delete the folder to start again")
            return 0, ""
        newest = steps[len(damaged)]
        if not damaged or not set_aside:
            return newest, words
        for step in damaged:
            target = self.directory / "damaged" / str(step)
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            (folder / str(step)).rename(target)
        print(f"{self.directory}: {words}; set aside. The last good one is of step {newest}", flush=True)
        return newest, ""

    def _write_checksums(self) -> None:
        """Orbax calls it when all files of a checkpoint are written, before the folder gets its name."""
        if jax.process_index() == 0:
            for folder in (self.directory / "checkpoints").glob(f"{self._saving}*"):
                if folder.name.split(".")[0] == str(self._saving):
                    write_text(folder / _CHECKSUMS, json.dumps(_checksums(folder)))

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
        """The newest complete checkpoint without damage when this was opened; None when there was none."""
        return self._newest or None

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
        with _one_line(f"{self.directory}: checkpoint {step} could not be written"):
            self._manager.wait_until_finished()  # as `save` would: the checksums being written are of `_saving`
            self._saving = step
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
        with _one_line(f"{self.directory}: checkpoint {step} cannot be restored"):
            restored = self._manager.restore(
                step, args=args.Composite(**{name: args.StandardRestore(item) for name, item in items.items()})
            )
        number = jax.device_put(np.asarray(step, shapes.step.dtype), shapes.step.sharding)
        return shapes.replace(step=number, params=restored["params"], opt_state=restored["optimizer"])

    def parameters(self, shardings: Callable[[Any], Any] | None = None, step: int | None = None) -> Any:
        """The parameters, as nested dicts.

        Args:
          shardings: from a tree of shapes to one of shardings; everything on the first local device by default.
          step: of the checkpoint, the newest by default.

        Raises:
          CheckpointError: there is no checkpoint, it cannot be read, or the newest is damaged.
        """
        if step is None and self._damaged:
            raise CheckpointError(
                f"{self.directory}: {self._damaged}; the last good one is of step {self._newest}: the command that"
                " trained it goes on from there"
            )
        step = self._existing(step)
        one_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        with _one_line(f"{self.directory}: checkpoint {step} cannot be read"):
            saved = self._manager.item_metadata(step)["params"]
            shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), saved)
            where = shardings(shapes) if shardings else jax.tree.map(lambda _: one_device, shapes)
            shapes = jax.tree.map(lambda a, b: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=b), shapes, where)
            args = self._ocp.args
            return self._manager.restore(step, args=args.Composite(params=args.StandardRestore(shapes)))["params"]

    def _existing(self, step: int | None) -> int:
        steps = self._manager.all_steps()
        if not steps:
            raise CheckpointError(f"{self.directory} holds no checkpoint")
        if step is not None and step not in steps:
            raise CheckpointError(
                f"{self.directory} holds no checkpoint {step}, only {', '.join(map(str, sorted(steps)))}"
            )
        if step is None:
            return max(steps) if self._saving else self._newest
        return step


def find_damage(folder: Path) -> str:
    """Names a file of a checkpoint that is missing or not what was written; empty when all is well."""
    try:
        expected = dict(json.loads((folder / _CHECKSUMS).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return f"{_CHECKSUMS} is missing"
    except (ValueError, TypeError, RecursionError):
        return f"{_CHECKSUMS} cannot be read"
    found = _checksums(folder)
    for name, checksum in expected.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != checksum:
            return f"{name} is not what was written"
    return ""


def _checksums(folder: Path) -> dict[str, str]:
    """Of the files that arrays and meta are read from, by name: not those that Orbax writes about the folder itself."""
    checksums = {}
    for path in sorted(folder.glob("*/**/*")):
        if path.is_file() and path.name != "commit_success.txt":
            found = path.stat()
            checksums[path.relative_to(folder).as_posix()] = _checksum(path, found.st_size, found.st_mtime_ns)
    return checksums


@functools.lru_cache(maxsize=4096)
def _checksum(path: Path, size: int, changed: int) -> str:
    """SHA-256 of a file; read once as long as its size and the time of its last change stay."""
    del size, changed
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    """The newest parameters of a stage's folder, without a discriminator: only its own training needs that.

    Args:
      directory: `<workdir>/tokenizer` or `<workdir>/dynamics`.
      shardings: from a tree of shapes to one of shardings; everything on the first local device by default.

    Raises:
      CheckpointError: the folder holds no readable checkpoint.
    """
    if not (Path(directory) / "checkpoints").is_dir():
        raise CheckpointError(f"{directory} holds no checkpoint")
    with Checkpoints(directory, read_only=True) as checkpoints:
        return without_discriminator(checkpoints.parameters(shardings))


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
      config: of this run; it must agree with the other in what the tokenizer is and in the size of frames, not in the
        data nor in how it was trained.

    Raises:
      CheckpointError: there is no finished tokenizer, or it is of other sizes.
    """
    origin, target = Path(source) / "tokenizer", Path(workdir) / "tokenizer"
    field = f"config.tokenizer.restore_from = {str(source)!r}"
    if not finished_step(origin) or not (origin / "checkpoints").is_dir():
        raise CheckpointError(f"{field}: expected the workdir of a run whose tokenizer is finished")
    _check_same(origin, config, "tokenizer", field)

    def copy() -> None:
        if finished_step(target):
            return
        if target.is_dir():
            raise CheckpointError(f"{target} holds an unfinished tokenizer of this run's own; take another --workdir")
        partial = target.with_name("tokenizer.partial")
        with _one_line(f"{target}: the tokenizer could not be copied"):
            shutil.rmtree(partial, ignore_errors=True)  # of a start that was killed
            shutil.copytree(origin, partial)
            partial.replace(target)

    on_first_process(copy, errors=CheckpointError)


def check_initial(source: str | Path, workdir: str | Path, config: Config) -> None:
    """Refuses to begin with the dynamics of another run that do not fit.

    Args:
      source: workdir of the other run.
      workdir: of this run, with its tokenizer.
      config: of this run; it must agree with the other in what tokenizer and dynamics are.

    Raises:
      CheckpointError: there are none, they are of other sizes, or they were trained on the codes of another tokenizer.
    """
    origin, field = Path(source), f"config.dynamics.restore_from = {str(source)!r}"
    if not finished_step(origin / "dynamics") or not (origin / "dynamics" / "checkpoints").is_dir():
        raise CheckpointError(f"{field}: expected the workdir of a run whose dynamics are finished")
    _check_same(origin / "dynamics", config, "dynamics", field)
    codes, others = (restore_parameters(Path(folder) / "tokenizer") for folder in (workdir, origin))
    if not jax.tree.all(jax.tree.map(np.array_equal, codes, others)):
        raise CheckpointError(
            f"{field}: its dynamics know the codes of another tokenizer than that of config.tokenizer.restore_from"
        )


def _check_same(origin: Path, config: Config, stage: str, field: str) -> None:
    """Compares what a stage of another run is: the fields of its model and the size of frames."""
    with Checkpoints(origin, read_only=True) as checkpoints:
        stored = checkpoints.meta()["config"]
    different = [
        entry
        for entry in differences(stored, config, stage)
        if entry[0].startswith(("data.frame_size", "tokenizer.", "dynamics."))
        and not entry[0].startswith(("tokenizer.training.", "dynamics.training."))
        and not entry[0].endswith("restore_from")
        and entry[0] not in _OF_TRAINING
    ]
    if different:
        fields = "; ".join(f"config.{name} is {old} there, {new} here" for name, old, new in different)
        raise CheckpointError(f"{field}: that {stage} does not fit: {fields}")


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
    with replacing(path) as file:
        file.write(text.encode())


__all__ = [
    "CheckpointError",
    "Checkpoints",
    "adopt_tokenizer",
    "check_config",
    "check_initial",
    "finished_step",
    "read_finished",
    "restore_parameters",
    "write_finished",
    "write_text",
]
