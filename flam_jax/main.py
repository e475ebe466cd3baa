"""The launcher: data, tokenizer, dynamics, evaluation, report. The same command goes on where an earlier one stopped.

    python -m flam_jax.main --config=FILE[:ARGUMENTS] --workdir=FOLDER [--config.FIELD=VALUE ...]

    --config     an experiment, for example experiments/multigrid.py:cpu
    --workdir    where everything goes: configuration, checkpoints, metrics, pictures, report
    --config.x.y=VALUE   changes one field of the configuration, for example --config.dynamics.num_factors=6
    --help       this text

Exit status: 0 done; 1 an error, told in one line; 2 a wrong command line or configuration; 75 asked to end by SIGTERM
or Ctrl-C, with a checkpoint saved (a second one ends at once, without).
"""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flam_jax.command_line import parse_arguments, tell
from flam_jax.config import Config, ConfigError, load_config, to_json
from flam_jax.process import take_large_pages
from flam_jax.schema import check_memory


def main(arguments: list[str]) -> int:
    """Runs the whole path of a configuration; returns the exit status."""
    if "--help" in arguments or "-h" in arguments:
        print(__doc__)
        return 0
    try:
        options = parse_arguments(arguments)
        config = load_config(options.config, overrides=options.overrides)
    except ConfigError as error:
        tell("flam_jax", error)
        return 2
    return guarded_run(config, options.workdir)


def guarded_run(config: Config, workdir: str | Path, last: str = "report") -> int:
    """As `run`, in a workdir that is made; turns the errors that a user can mend into one line and a status."""
    return _guarded(lambda: run(config, prepare_workdir(workdir), last))


def guarded_run_together(configs: Sequence[Config], workdirs: Sequence[str | Path]) -> int:
    """As `run_together`, likewise."""
    return _guarded(lambda: run_together(configs, [prepare_workdir(workdir) for workdir in workdirs]))


def _guarded(work: Callable[[], None]) -> int:
    quiet_logging()
    from data_pipelines import DataError
    from flam_jax.checkpoints import CheckpointError
    from flam_jax.evaluation.networks.weights import WeightsError
    from flam_jax.training.sharding import ShardingError
    from flam_jax.training.signals import PREEMPTED_STATUS, Preempted
    from flam_jax.training.trainer import NonFiniteError

    try:
        work()
    except (ConfigError, DataError, CheckpointError, WeightsError, ShardingError, NonFiniteError) as error:
        tell("flam_jax", error)
        return 1
    except Preempted as stopped:
        tell("flam_jax", stopped)
        return PREEMPTED_STATUS
    return 0


def run(config: Config, workdir: Path, last: str = "report") -> None:
    """From a configuration to a trained, evaluated model; stages that are done are skipped.

    Args:
      config: of the run.
      workdir: an existing folder.
      last: `report`, or `tokenizer` for a tokenizer that other runs take with `tokenizer.restore_from`.
    """
    from data_pipelines import prepare
    from flam_jax.training.tokenizer_stage import TokenizerStage
    from flam_jax.training.trainer import train

    mesh = _check(config, workdir)
    dataset = prepare(config.data)
    print(dataset.describe(), flush=True)
    if not config.tokenizer.restore_from:
        tokenizer = TokenizerStage(config, dataset)
        train(tokenizer, config, workdir, tokenizer.make_loader, mesh=mesh)
    if last == "report":
        _finish([config], [workdir], dataset, mesh)


def run_together(configs: Sequence[Config], workdirs: Sequence[Path]) -> None:
    """As `run` for several seeds of one configuration with a tokenizer that is there: their dynamics are one program.

    Raises:
      ConfigError: a configuration would train a tokenizer of its own.
    """
    from data_pipelines import prepare

    for config in configs:
        if not config.tokenizer.restore_from:
            raise ConfigError("config.tokenizer.restore_from = '': runs that are trained together share a tokenizer")
    mesh, *_ = [_check(config, workdir) for config, workdir in zip(configs, workdirs, strict=True)]
    dataset = prepare(configs[0].data)
    print(dataset.describe(), flush=True)
    _finish(configs, workdirs, dataset, mesh)


def _check(config: Config, workdir: Path) -> Any:
    """Refuses what can be refused, before hours of work; returns the mesh."""
    from flam_jax.checkpoints import adopt_tokenizer, check_config, write_text
    from flam_jax.evaluation.perceptual import load_judges
    from flam_jax.training.memory import total_memory
    from flam_jax.training.sharding import check_batch_size, make_mesh

    mesh = make_mesh(**config.mesh)
    check_memory(config, total_memory())
    for stage in ("tokenizer", "dynamics"):
        check_batch_size(config[stage].training, mesh, f"{stage}.training")
        if stage == "tokenizer" and config.tokenizer.restore_from:
            adopt_tokenizer(config.tokenizer.restore_from, workdir, config)
        else:
            check_config(workdir / stage, config, stage)
    load_judges(config)
    write_text(workdir / "config.json", to_json(config))
    return mesh


def _finish(configs: Sequence[Config], workdirs: Sequence[Path], dataset: Any, mesh: Any) -> None:
    """From trained tokenizers to reports."""
    from flam_jax.checkpoints import restore_parameters
    from flam_jax.evaluation import evaluate
    from flam_jax.training.dynamics_stage import DynamicsStage
    from flam_jax.training.sharding import tree_shardings
    from flam_jax.training.trainer import Job, train_together

    jobs = []
    for config, workdir in zip(configs, workdirs, strict=True):
        if config.tokenizer.restore_from:
            print(f"tokenizer of {config.tokenizer.restore_from}", flush=True)
        frozen = restore_parameters(workdir / "tokenizer", lambda shapes: tree_shardings(shapes, mesh))
        stage = DynamicsStage(config, dataset, frozen)
        jobs.append(Job(stage, config, workdir, stage.make_loader))
    train_together(jobs, mesh=mesh)
    for job in jobs:
        evaluate(job.config, job.workdir, dataset)
        folder = job.workdir
        print(f"done: {folder}/report.html, {folder}/evaluation.json; curves: tensorboard --logdir {folder}")


def prepare_workdir(path: str | Path) -> Path:
    """Makes the folder and tries to write to it.

    Raises:
      ConfigError: it cannot be made or written to.
    """
    workdir, probe = Path(path), Path(path) / f".write_test.{os.getpid()}"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"--workdir: cannot write to {path}: {error.strerror or error}") from error
    return workdir


def quiet_logging() -> None:
    """Leaves the libraries' warnings and errors; their progress is not this program's."""
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.ERROR)
    for name in ("jax", "orbax", "grain"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    take_large_pages()
    sys.exit(main(sys.argv[1:]))
