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
from pathlib import Path

from flam_jax.command_line import parse_arguments
from flam_jax.config import Config, ConfigError, load_config, to_json
from flam_jax.process import take_large_pages


def main(arguments: list[str]) -> int:
    """Runs the whole path of a configuration; returns the exit status."""
    if "--help" in arguments or "-h" in arguments:
        print(__doc__)
        return 0
    try:
        options = parse_arguments(arguments)
        config = load_config(options.config, overrides=options.overrides)
    except ConfigError as error:
        print(f"flam_jax: {error}", file=sys.stderr)
        return 2
    return guarded_run(config, options.workdir)


def guarded_run(config: Config, workdir: str | Path, last: str = "report") -> int:
    """As `run`, in a workdir that is made; turns the errors that a user can mend into one line and a status."""
    quiet_logging()
    from data_pipelines import DataError
    from flam_jax.checkpoints import CheckpointError
    from flam_jax.evaluation.networks.weights import WeightsError
    from flam_jax.training.sharding import ShardingError
    from flam_jax.training.signals import PREEMPTED_STATUS, Preempted
    from flam_jax.training.trainer import NonFiniteError

    try:
        run(config, prepare_workdir(workdir), last)
    except (ConfigError, DataError, CheckpointError, WeightsError, ShardingError, NonFiniteError) as error:
        print(f"flam_jax: {error}", file=sys.stderr)
        return 1
    except Preempted as stopped:
        print(f"flam_jax: {stopped}", file=sys.stderr)
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
    from flam_jax.checkpoints import adopt_tokenizer, check_config, restore_parameters, write_text
    from flam_jax.evaluation import evaluate
    from flam_jax.evaluation.perceptual import load_judges
    from flam_jax.training.dynamics_stage import DynamicsStage
    from flam_jax.training.sharding import check_batch_size, make_mesh, tree_shardings
    from flam_jax.training.tokenizer_stage import TokenizerStage
    from flam_jax.training.trainer import train

    mesh = make_mesh(**config.mesh)
    for stage in ("tokenizer", "dynamics"):  # everything that can be refused is, before hours of work
        check_batch_size(config[stage].training, mesh, f"{stage}.training")
        if stage == "tokenizer" and config.tokenizer.restore_from:
            adopt_tokenizer(config.tokenizer.restore_from, workdir, config)
        else:
            check_config(workdir / stage, config, stage)
    load_judges(config)
    write_text(workdir / "config.json", to_json(config))

    dataset = prepare(config.data)
    print(dataset.describe(), flush=True)
    if config.tokenizer.restore_from:
        print(f"tokenizer of {config.tokenizer.restore_from}", flush=True)
        frozen = restore_parameters(workdir / "tokenizer", lambda shapes: tree_shardings(shapes, mesh))
    else:
        tokenizer = TokenizerStage(config, dataset)
        frozen = train(tokenizer, config, workdir, tokenizer.make_loader, mesh=mesh)["params"]
    if last == "tokenizer":
        return
    dynamics = DynamicsStage(config, dataset, frozen)
    train(dynamics, config, workdir, dynamics.make_loader, mesh=mesh)
    evaluate(config, workdir, dataset)
    print(f"done: {workdir}/report.html, {workdir}/evaluation.json; curves: tensorboard --logdir {workdir}")


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
