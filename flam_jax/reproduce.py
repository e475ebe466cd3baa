"""Runs a whole comparison of the paper and writes its table. The same command goes on where an earlier one stopped.

    python -m flam_jax.reproduce --study=STUDY --preset=cpu|paper --workdir=FOLDER [--config.FIELD=VALUE ...]

    --study      multigrid, procgen, agents, slots, ablations, sweeps, information, or all
    --preset     cpu: made for two CPU cores; paper: the paper's setting; debug: a few steps of two models, to try it
    --workdir    every run has a folder in it; results.json and results.html stand beside them
    --config.x.y=VALUE   changes a field in every run

Exit status as that of flam_jax.main.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from flam_jax.config import Config, ConfigError, config_hash
from flam_jax.process import take_large_pages
from flam_jax.studies import PRESETS, STUDIES, Cell, cells


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m flam_jax.reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", required=True, help=", ".join((*STUDIES, "all")))
    parser.add_argument("--preset", default="cpu", help=", ".join(PRESETS))
    parser.add_argument("--workdir", required=True)
    options, rest = parser.parse_known_args(arguments)
    try:
        changes = _changes(rest)
        chosen = cells(options.study, options.preset)
        for cell in chosen:  # every mistake before any work
            cell.config(changes)
    except ConfigError as error:
        print(f"flam_jax.reproduce: {error}", file=sys.stderr)
        return 2
    return run_study(options.study, options.preset, Path(options.workdir), chosen, changes)


def run_study(study: str, preset: str, workdir: Path, chosen: list[Cell], changes: dict[str, Any]) -> int:
    """Trains and evaluates every cell that is not done, and writes the results after each; returns the exit status."""
    from flam_jax.main import guarded_run

    began = time.monotonic()
    origin: dict[str, str] = {}  # by column, the run that trains the tokenizer
    planned = []
    for cell in chosen:
        folder = workdir / cell.folder
        source = origin.setdefault(cell.column, str(folder))
        config = cell.config(changes | ({} if source == str(folder) else {"tokenizer.restore_from": source}))
        planned.append((cell, config, folder))
    left = [plan for plan in planned if not _is_done(*plan[1:])]
    print(f"{study}: {len(chosen)} runs, {len(chosen) - len(left)} of them done", flush=True)
    status = 0
    for number, (cell, config, folder) in enumerate(left):
        if number:
            minutes = (time.monotonic() - began) / number * (len(left) - number) / 60
            print(f"{study}: {len(left) - number} runs left, about {minutes:.0f} min", flush=True)
        print(f"{study}: {cell.folder}", flush=True)
        status = guarded_run(config, folder)
        if status:
            break
        _write(study, preset, workdir, planned)
    page = _write(study, preset, workdir, planned)
    print(f"{study}: {page}", flush=True)
    return status


def _changes(words: list[str]) -> dict[str, str]:
    changes = {}
    for word in words:
        name, has_value, value = word.partition("=")
        if not name.startswith("--config.") or not has_value:
            raise ConfigError(f"unexpected argument {word!r}; expected --config.FIELD=VALUE")
        changes[name.removeprefix("--config.")] = value
    return changes


def _is_done(config: Config, folder: Path) -> bool:
    """Whether the folder holds the evaluation of this configuration."""
    try:
        result = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return result.get("config_hash") == config_hash(config)


def _write(study: str, preset: str, workdir: Path, planned: list[tuple[Cell, Config, Path]]) -> Path:
    from flam_jax.evaluation.comparison import summarize, write_results

    runs, missing = [], []
    for cell, config, folder in planned:
        if _is_done(config, folder):  # not the result of other settings
            result = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
            runs.append((cell.column, cell.row, cell.seed, result))
        else:
            missing.append(cell.folder)
    workdir.mkdir(parents=True, exist_ok=True)
    return write_results(workdir, study, preset, summarize(runs), missing)


if __name__ == "__main__":
    take_large_pages()
    sys.exit(main(sys.argv[1:]))
