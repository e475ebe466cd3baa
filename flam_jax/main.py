"""The launcher: data, tokenizer, dynamics, evaluation, report. The same command goes on where an earlier one stopped.

    python -m flam_jax.main --config=FILE[:ARGUMENTS] --workdir=FOLDER [--config.FIELD=VALUE ...]

    --config     an experiment by its name, for example multigrid:cpu, or by its file, experiments/multigrid.py:cpu
    --workdir    where everything goes: configuration, checkpoints, metrics, pictures, report
    --config.x.y=VALUE   changes one field of the configuration, for example --config.dynamics.num_factors=6
    --help       this text and the experiments; --help=fields: all fields; --help=dynamics: those of one part
    --version

Several processes that run as one, with the same configuration and workdir, find each other where SLURM, Open MPI, GKE
or a TPU pod has started them. Elsewhere each is told (docs/guide/scaling.md):
    --coordinator=HOST:PORT   address of process 0
    --num_processes=N         how many there are
    --process_id=I            which of them this is, from 0

Exit status: 0 done; 1 an error, told in one line; 2 a wrong command line or configuration; 75 asked to end by SIGTERM
or Ctrl-C, with a checkpoint saved (a second one ends at once, without).
"""

import contextlib
import errno
import importlib.util
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.locks import FileLock, describe_lock_error
from flam_jax.command_line import parse_arguments
from flam_jax.config import Config, ConfigError, check_memory, fields, load_config, to_json
from flam_jax.help import list_experiments, list_fields
from flam_jax.messages import answer, print_error, short_repr
from flam_jax.process import configure_process


def main(arguments: list[str]) -> int:
    """Runs the whole path of a configuration; returns the exit status."""
    if answer(arguments, lambda: f"{__doc__}\n{list_experiments()}\n"):
        return 0
    asked = next((word for word in arguments if word.startswith("--help=")), None)
    if asked:
        return _list_fields(asked.removeprefix("--help="))
    try:
        options = parse_arguments(arguments)
        config = load_config(options.config, overrides=options.overrides)
    except ConfigError as error:
        print_error("flam_jax", error)
        return 2
    command = shlex.join(["python", "-m", "flam_jax.main", *arguments])
    return guarded_run(config, options.workdir, cluster_flags=options.cluster, command=command)


def _list_fields(part: str) -> int:
    listed = list_fields("" if part == "fields" else part)
    if not listed:
        parts = sorted({name.split(".")[0] for name in fields()})
        print_error("flam_jax", f"--help={short_repr(part)}: expected fields, or a part: {', '.join(parts)}")
        return 2
    print(listed)
    return 0


def guarded_run(
    config: Config,
    workdir: str | Path,
    last: str = "report",
    cluster_flags: Mapping[str, str] | None = None,
    command: str = "",
) -> int:
    """As `run`, in a workdir that is made; turns the errors that a user can mend into one line and a status."""
    return _guarded([workdir], lambda folders: run(config, folders[0], last, command), cluster_flags)


def guarded_run_together(configs: Sequence[Config], workdirs: Sequence[str | Path]) -> int:
    """As `run_together`, likewise."""
    return _guarded(workdirs, lambda folders: run_together(configs, folders))


def _guarded(
    workdirs: Sequence[str | Path],
    work: Callable[[list[Path]], None],
    cluster_flags: Mapping[str, str] | None = None,
) -> int:
    quiet_logging()
    from flam_jax import cluster
    from flam_jax.surroundings import check_devices, check_surroundings

    try:
        check_surroundings()
        cluster.start(cluster_flags)
        check_devices()
        with contextlib.ExitStack() as stack:
            work([stack.enter_context(open_workdir(workdir)) for workdir in workdirs])
    except Exception as error:
        status = _report(error)
        if cluster.has_lost_peer(error):
            sys.stdout.flush()
            os._exit(status)  # the end of Python would wait for the others, of which one never comes
        return status
    return 0


def _report(error: Exception) -> int:
    """Says an error that a user can mend in one line; returns the exit status. Raises all others."""
    from data_pipelines import DataError
    from flam_jax.checkpoints import CheckpointError
    from flam_jax.cluster import ClusterError, has_lost_peer
    from flam_jax.evaluation.networks.weights import WeightsError
    from flam_jax.surroundings import SurroundingsError
    from flam_jax.training.sharding import ShardingError
    from flam_jax.training.signals import PREEMPTED_STATUS, Preempted
    from flam_jax.training.trainer import NonFiniteError

    mendable = (ClusterError, ConfigError, DataError, CheckpointError, SurroundingsError)
    mendable += (NonFiniteError, ShardingError, WeightsError)
    if isinstance(error, Preempted):
        print_error("flam_jax", error)
        return PREEMPTED_STATUS
    if has_lost_peer(error):
        print_error("flam_jax", "another process of the run ended; its output says why. The same command goes on")
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
        print_error("flam_jax", f"{error.filename or 'the disk'}: {error.strerror}; no checkpoint was lost")
    elif isinstance(error, mendable):
        print_error("flam_jax", error)
    else:
        raise error
    return 1


def run(config: Config, workdir: Path, last: str = "report", command: str = "") -> None:
    """From a configuration to a trained, evaluated model; stages that are done are skipped.

    Args:
      config: of the run.
      workdir: an existing folder.
      last: `report`, or `tokenizer` for a tokenizer that other runs take with `tokenizer.restore_from`.
      command: that started the run; the report shows it.
    """
    from flam_jax.training.trainer import train_together

    mesh = _check(config, workdir)
    if command:
        _write_command(workdir, command)
    dataset = _prepare_data(config)
    if not config.tokenizer.restore_from:
        train_together([_job("tokenizer", config, workdir, dataset)], mesh=mesh)
    if last == "report":
        _finish([config], [workdir], dataset, mesh)


def run_together(configs: Sequence[Config], workdirs: Sequence[Path]) -> None:
    """As `run` for several seeds of one configuration with a tokenizer that is there: their dynamics are one program.

    Raises:
      ConfigError: a configuration would train a tokenizer of its own.
    """
    for config in configs:
        if not config.tokenizer.restore_from:
            raise ConfigError("config.tokenizer.restore_from = '': runs that are trained together share a tokenizer")
    mesh, *_ = [_check(config, workdir) for config, workdir in zip(configs, workdirs, strict=True)]
    _finish(configs, workdirs, _prepare_data(configs[0]), mesh)


def _check(config: Config, workdir: Path) -> Any:
    """Refuses what can be refused, before hours of work; returns the mesh."""
    from flam_jax.checkpoints import adopt_tokenizer, check_config, check_initial, write_text
    from flam_jax.cluster import log_line, on_first_process
    from flam_jax.evaluation.perceptual import load_metrics
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
    if config.dynamics.restore_from:
        check_initial(config.dynamics.restore_from, workdir, config)
    lpips = load_metrics(config).lpips
    if isinstance(lpips, str) and config.tokenizer.lpips_weight and not config.tokenizer.restore_from:
        reason = lpips.removeprefix("not computed: ")
        log_line(f"config.tokenizer.lpips_weight: the tokenizer is trained without LPIPS ({reason})")
    on_first_process(lambda: write_text(workdir / "config.json", to_json(config)))
    return mesh


def _write_command(workdir: Path, command: str) -> None:
    from flam_jax.checkpoints import write_text
    from flam_jax.cluster import on_first_process
    from flam_jax.reports.run_report import COMMAND_FILE

    on_first_process(lambda: write_text(workdir / COMMAND_FILE, command + "\n"))


def _prepare_data(config: Config) -> Any:
    """The data set. The first process makes it, if need be; the others find it, or make it on disks of their own."""
    from data_pipelines import DataError, prepare
    from flam_jax.cluster import log_line, on_first_process
    from flam_jax.training.memory import total_memory

    found: list[Any] = []

    def prepare_first() -> None:
        found.append(prepare(config.data))
        log_line(found[0].describe())

    on_first_process(prepare_first, errors=DataError)
    dataset = found[0] if found else prepare(config.data)
    if dataset.recipe.source:  # only now is it known how much there is
        check_memory(config, total_memory(), dataset.num_frames)
    return dataset


def _finish(configs: Sequence[Config], workdirs: Sequence[Path], dataset: Any, mesh: Any) -> None:
    """From trained tokenizers to reports."""
    import jax

    from flam_jax.cluster import log_line
    from flam_jax.evaluation import evaluate
    from flam_jax.training.trainer import train_together
    from flam_jax.world_model import WorldModel

    jobs = []
    for config, workdir in zip(configs, workdirs, strict=True):
        if config.tokenizer.restore_from:
            log_line(f"tokenizer of {config.tokenizer.restore_from}")
        if config.dynamics.restore_from:
            log_line(f"dynamics go on from {config.dynamics.restore_from}")
        jobs.append(_job("dynamics", config, workdir, dataset))
    train_together(jobs, mesh=mesh)
    for job in jobs:
        folder = job.workdir
        world_model = WorldModel.restore(folder)  # on every process: they read it together
        if jax.process_index() == 0:
            evaluate(job.config, folder, dataset, world_model)
        log_line(f"done: {folder}/report.html, {folder}/evaluation.json{_curves(folder)}")
    for line in dataset.faults():
        log_line(line)


def _curves(folder: Path) -> str:
    """Where curves are seen while a run lasts, where that is installed; the report has them too."""
    return f"; curves: tensorboard --logdir {folder}" if importlib.util.find_spec("tensorboard") else ""


def _job(name: str, config: Config, workdir: Path, dataset: Any) -> Any:
    """A run of one stage, on what the stages that it needs have left in the workdir."""
    from flam_jax.checkpoints import restore_parameters
    from flam_jax.training.stages import find_stage
    from flam_jax.training.trainer import Job

    stage = find_stage(name)
    frozen = {needed: restore_parameters(workdir / needed) for needed in stage.needs}
    origin = config.dynamics.restore_from if name == "dynamics" else ""
    return Job(stage(config, dataset, frozen), config, workdir, Path(origin) / name if origin else None)


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


@contextlib.contextmanager
def open_workdir(path: str | Path) -> Iterator[Path]:
    """As `prepare_workdir`, for one run at a time: the lock ends with its process, however that ends.

    Raises:
      ConfigError: it cannot be made or written to, or another run is at work in it.
    """
    from flam_jax.cluster import on_first_process

    path = Path(path)
    with contextlib.ExitStack() as stack:

        def lock() -> None:
            file = prepare_workdir(path) / ".lock"
            try:
                opened = stack.enter_context(FileLock(file))
            except OSError as error:
                raise ConfigError(f"--workdir: {describe_lock_error(file, error)}") from error
            try:
                opened.acquire(wait=False)
            except BlockingIOError:
                raise ConfigError(f"--workdir={path}: another run is at work there; wait or take another") from None
            # A folder in which nothing was done is left as it was. While the lock is still held.
            stack.callback(lambda: _remove_lock(file))

        on_first_process(lock, errors=ConfigError)
        yield path


def _remove_lock(file: Path) -> None:
    with contextlib.suppress(OSError):  # of another user
        if list(file.parent.iterdir()) == [file]:
            file.unlink()


def quiet_logging() -> None:
    """Leaves the libraries' warnings and errors; their progress is not this program's."""
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.ERROR)
    for name in ("jax", "orbax", "grain"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    configure_process()
    sys.exit(main(sys.argv[1:]))
