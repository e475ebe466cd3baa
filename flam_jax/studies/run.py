"""The runs of a study: their folders, training them one by one, side by side or together, and the study's results."""

import dataclasses
import json
import multiprocessing
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Mapping
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from flam_jax.config import Config, ConfigError, field_names, from_json, get_field, identity, load_config, to_json
from flam_jax.output import configure_output
from flam_jax.process import compiled_once
from flam_jax.studies.definitions import AXES, Cell
from flam_jax.studies.summary import FinishedRun, study_result

TOKENIZER_SEED = 0  # one tokenizer for all seeds of a column
LOG = "log.txt"  # in the folder of a run: what it printed, where several ran side by side


@dataclasses.dataclass(frozen=True)
class Run:
    """One folder of a study.

    Attributes:
      config: of the run.
      folder: its workdir.
      cell: of the tables; None for the run that trains the tokenizer of a column.
      tokenizer: workdir of the run whose tokenizer it takes; None where it trains one, or where the user gave one.
    """

    config: Config
    folder: Path
    cell: Cell | None
    tokenizer: Path | None

    @property
    def last(self) -> str:
        """Where `flam_jax.main.run` ends."""
        return "report" if self.cell else "tokenizer"

    @property
    def command(self) -> str:
        """The command that makes the run alone; "" for one that trains the tokenizer of a column."""
        if self.cell is None:
            return ""
        default = load_config(self.cell.experiment, self.cell.arguments)
        fields = {name: get_field(self.config, name) for name in field_names(self.config)}
        changed = [f"--config.{name}={_flag_text(v)}" for name, v in fields.items() if v != get_field(default, name)]
        experiment = f"--config={self.cell.experiment}:{self.cell.arguments}"
        return shlex.join(["python", "-m", "flam_jax.main", experiment, *changed, f"--workdir={self.folder}"])

    def is_done(self) -> bool:
        """Whether the folder holds the result of this configuration."""
        if self.cell is None:
            from flam_jax.checkpoints import finished_step

            return finished_step(self.folder / "tokenizer") >= self.config.tokenizer.training.num_steps
        return self.result() is not None

    def result(self) -> dict[str, Any] | None:
        """What `evaluation.json` holds; None where it is missing or of other settings."""
        try:
            result = json.loads((self.folder / "evaluation.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return result if result.get("identity") == identity(self.config) else None


def _flag_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def plan(chosen: list[Cell], workdir: Path, changes: dict[str, Any]) -> list[Run]:
    """The cells in their folders, and before the first of each column the run that trains its tokenizer.

    Raises:
      ConfigError: a field that does not exist or in which the cells differ, or a value that cannot work.
    """
    for name in changes:
        # Or rows would be another one under their own names.
        if name == "seed" or len({repr(cell.overrides.get(name)) for cell in chosen}) > 1:
            raise ConfigError(
                f"--config.{name}: the runs of the study differ in it; expected a field they have in common"
            )
    runs: dict[Path, Run] = {}
    for cell in chosen:
        if "tokenizer.restore_from" in changes:
            runs[workdir / cell.folder] = Run(cell.config(changes), workdir / cell.folder, cell, None)
            continue
        tokenizer = workdir / cell.column / "tokenizer"
        if tokenizer not in runs:
            runs[tokenizer] = Run(cell.config(changes | {"seed": TOKENIZER_SEED}), tokenizer, None, None)
        config = cell.config(changes | {"tokenizer.restore_from": str(tokenizer)})
        runs[workdir / cell.folder] = Run(config, workdir / cell.folder, cell, tokenizer)
    return list(runs.values())


def run_study(
    study: str,
    preset: str,
    workdir: Path,
    runs: list[Run],
    jobs: int,
    together: bool,
    changes: Mapping[str, Any],
) -> int:
    """Trains and evaluates all that is not done, and writes the results after each; returns the exit status."""

    def write() -> Path:
        return _write(study, preset, workdir, runs, changes)

    left = [run for run in runs if not run.is_done()]
    print(f"{study}: {len(runs)} runs, {len(runs) - len(left)} of them done", flush=True)
    progress = _Progress(study, workdir, len(left), write)
    status = _side_by_side(left, progress, jobs) if jobs > 1 else _one_by_one(left, progress, together)
    print(f"{study}: {write()}", flush=True)
    return status


class _Progress:
    """Says what begins and what ends, with an estimate of what is left."""

    def __init__(self, study: str, workdir: Path, left: int, write: Any):
        self._study, self._workdir, self._left, self._write = study, workdir, left, write
        self._done, self._began = 0, time.monotonic()

    def starts(self, run: Run) -> None:
        self._say(f"{run.folder.relative_to(self._workdir)} starts")

    def ended(self, run: Run) -> None:
        self._done += 1
        left = self._left - self._done
        minutes = (time.monotonic() - self._began) / self._done * left / 60
        rest = f"; {left} runs left, about {minutes:.0f} min" if left else ""
        self._say(f"{run.folder.relative_to(self._workdir)} done{rest}")
        if run.cell:
            self._write()

    def failed(self, run: Run, status: int) -> None:
        log = run.folder / LOG
        said = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        last = said[-1] if said else "nothing"
        print(f"flam_jax.reproduce: {run.folder}: status {status}; the last of {log}: {last}", file=sys.stderr)

    def _say(self, text: str) -> None:
        print(f"{self._study}: {text}", flush=True)


def _one_by_one(left: list[Run], progress: _Progress, together: bool) -> int:
    from flam_jax.main import guarded_run, guarded_run_together

    groups: dict[Any, list[Run]] = {}
    for run in left:
        of_seeds = together and run.cell and run.config.tokenizer.restore_from
        groups.setdefault((run.cell.column, run.cell.row.key) if of_seeds and run.cell else run.folder, []).append(run)
    for group in groups.values():
        for run in group:
            progress.starts(run)
        if len(group) > 1:
            status = guarded_run_together([run.config for run in group], [run.folder for run in group])
        else:
            status = guarded_run(group[0].config, group[0].folder, group[0].last, command=group[0].command)
        if status:
            return status
        for run in group:
            progress.ended(run)
    return 0


def _side_by_side(left: list[Run], progress: _Progress, jobs: int) -> int:
    """Each run in a process of its own, on its own cores. When one fails the others are asked to end, and save."""
    from flam_jax.training.signals import StopRequest

    waiting, running, status = list(left), dict[int, tuple[BaseProcess, Run, set[int]]](), 0
    idle = _shares_of_cores(jobs)
    with compiled_once(), StopRequest() as stop:
        while running or (waiting and not status):
            ready = [run for run in waiting if not any(other.folder == run.tokenizer for other in left)]
            while idle and ready and not status and not stop.asked:
                run, cores = ready.pop(0), idle.pop()
                waiting.remove(run)
                process = _start(run, cores)
                running[process.sentinel] = (process, run, cores)
                progress.starts(run)
            for sentinel in connection.wait(list(running), timeout=1.0):
                assert isinstance(sentinel, int)
                process, run, cores = running.pop(sentinel)
                process.join()
                idle.append(cores)
                if process.exitcode == 0:
                    left.remove(run)
                    progress.ended(run)
                    continue
                progress.failed(run, _status(process.exitcode))
                if not status:  # the others are asked to end once: they do so at once when asked again
                    status = _status(process.exitcode)
                    _ask_to_end(running)
            if stop.asked and not status:
                status = _status(-signal.SIGTERM)
                _ask_to_end(running)
    return status


def _shares_of_cores(jobs: int) -> list[set[int]]:
    """The cores at hand, shared out evenly; empty sets where a system cannot bind a process to cores."""
    if not hasattr(os, "sched_getaffinity"):
        return [set() for _ in range(jobs)]
    cores = sorted(os.sched_getaffinity(0))
    return [set(cores[job::jobs]) or {cores[job % len(cores)]} for job in range(jobs)]


def _start(run: Run, cores: set[int]) -> BaseProcess:
    run.folder.mkdir(parents=True, exist_ok=True)
    # JAX does not live through a fork.
    process = multiprocessing.get_context("spawn").Process(
        target=_run_in_process, args=(to_json(run.config), str(run.folder), run.last, run.command, cores)
    )
    process.start()
    return process


def _run_in_process(config: str, folder: str, last: str, command: str, cores: set[int]) -> None:
    """The whole of a child process. What it prints goes to a file."""
    if cores:
        os.sched_setaffinity(0, cores)
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C reaches the parent alone, which asks its children to end, once
    with (Path(folder) / LOG).open("a", encoding="utf-8") as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
    configure_output()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from flam_jax.main import guarded_run

    sys.exit(guarded_run(from_json(config), folder, last, command=command))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _ask_to_end(running: dict[int, tuple[BaseProcess, Run, set[int]]]) -> None:
    for process, *_ in running.values():
        process.terminate()


def _status(exit_code: int | None) -> int:
    """A child's exit code; that of the launcher for one that was asked to end before it could say so itself."""
    from flam_jax.training.signals import PREEMPTED_STATUS

    if exit_code == -signal.SIGTERM:
        return PREEMPTED_STATUS
    return exit_code if exit_code is not None and exit_code > 0 else 1


def _write(study: str, preset: str, workdir: Path, runs: list[Run], changes: Mapping[str, Any]) -> Path:
    """Writes `results.json` and `results.html`; returns the path of the page."""
    from flam_jax.checkpoints import write_text
    from flam_jax.reports.study_page import study_page

    finished, missing = [], []
    for run in runs:
        if run.cell is None:
            continue
        result = run.result()
        if result is None:
            missing.append(run.cell.folder)
        else:
            finished.append(finished_run(run.cell, run.config, result))
    workdir.mkdir(parents=True, exist_ok=True)
    flags = [f"--config.{name}={value}" for name, value in changes.items()]
    command = study_command(study, preset, *flags, "--workdir=WORKDIR")
    results = study_result(study, preset, command, finished, missing, settings(runs))
    write_text(workdir / "results.json", json.dumps(results, indent=1) + "\n")
    write_text(workdir / "results.html", study_page(results))
    return workdir / "results.html"


def study_command(study: str, preset: str, *flags: str) -> str:
    """The command of a study, as a shell takes it."""
    return shlex.join(["python", "-m", "flam_jax.reproduce", f"--study={study}", f"--preset={preset}", *flags])


def finished_run(cell: Cell, config: Config, result: Mapping[str, Any]) -> FinishedRun:
    """A run with its value on every axis of the studies."""
    position = {name: float(get_field(config, axis.field)) for name, axis in AXES.items()}
    return FinishedRun(cell.column, cell.row, cell.seed, result, position)


def settings(runs: list[Run]) -> dict[str, dict[str, dict[str, Any]]]:
    """By column and key of the row: the fields in which a row of the column is not as its experiment has it."""
    columns: dict[str, list[tuple[Cell, Config]]] = {}
    for run in runs:
        if run.cell:
            columns.setdefault(run.cell.column, []).append((run.cell, run.config))
    found = {}
    for column, rows in columns.items():
        cell, _ = rows[0]
        default = load_config(cell.experiment, cell.arguments)
        known = [name for name in field_names(default) if name not in ("seed", "tokenizer.restore_from")]
        names = [
            name for name in known if any(get_field(config, name) != get_field(default, name) for _, config in rows)
        ]
        found[column] = {cell.row.key: {name: get_field(config, name) for name in names} for cell, config in rows}
    return found


__all__ = ["Run", "finished_run", "plan", "run_study", "settings", "study_command"]
