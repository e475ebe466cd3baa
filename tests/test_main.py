"""The launcher: from a command line to a report, and what it says of it. Wrong ones are in `tests/bad_input/`."""

import errno
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flam_jax import main as launcher
from flam_jax.command_line import parse_arguments
from flam_jax.config import load_config
from flam_jax.evaluation import __main__ as evaluate
from tests import readme

ROOT = Path(__file__).parents[1]
DEBUG = "--config=experiments/multigrid.py:debug"


def test_both_forms_of_a_flag() -> None:
    words = ["--config", "a.py:cpu", "--workdir=runs/a=b", "--config.seed", "-3", "--config.data.path=x y"]
    arguments = parse_arguments(words)
    assert arguments.config == "a.py:cpu"
    assert arguments.workdir == "runs/a=b"
    assert arguments.overrides == {"seed": "-3", "data.path": "x y"}


def run(*words: str, expect: int, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the launcher says, called within this process."""
    assert launcher.main(list(words)) == expect
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert launcher.main(["--help"]) == 0
    assert "python -m flam_jax.main --config=FILE" in capsys.readouterr().out


def test_as_a_program(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flam_jax.main", "--config", "experiments/multigrid.py:debug"]
    command += [f"--workdir={tmp_path}", "--config.tokenizer.chanels=3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert (
        done.stderr == "flam_jax: config.tokenizer.chanels: no such field; the nearest is config.tokenizer.channels\n"
    )


def test_importing_the_configuration_is_light() -> None:
    code = (
        "import sys, flam_jax.config, flam_jax.main; print([m for m in ('jax', 'orbax', 'grain') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_run_that_is_asked_to_end_says_so_in_its_status(tmp_path: Path) -> None:
    """SIGTERM during training: status 75, a checkpoint, and the same command goes on from it."""
    command = [sys.executable, "-m", "flam_jax.main", DEBUG, f"--workdir={tmp_path / 'run'}"]
    command += [f"--config.data.path={tmp_path / 'data'}", "--config.tokenizer.training.num_steps=1000000"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if " loss " in line:
                process.send_signal(signal.SIGTERM)
                break
        process.stdout.read()
        error = process.stderr.read()
        assert process.wait(timeout=60) == 75, error
    assert error.splitlines()[-1].startswith("flam_jax: tokenizer: stopped at step ")
    assert "Traceback" not in error
    assert list((tmp_path / "run" / "tokenizer" / "checkpoints").iterdir())


def test_two_runs_in_one_workdir_are_refused_until_the_first_has_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    hold = (
        "import sys; from flam_jax.main import open_workdir as o; w = o(sys.argv[1]); w.__enter__(); print(1); input()"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "1\n"
        line = run(DEBUG, f"--workdir={tmp_path / 'run'}", expect=1, capsys=capsys)
        assert f"--workdir={tmp_path / 'run'}: another run is at work there" in line
        first.kill()  # the lock ends with its process, also when that cannot say so
    with launcher.open_workdir(tmp_path / "run") as workdir:
        assert workdir == tmp_path / "run"


def test_a_full_disk_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.jsonl")

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(launcher, "run", full)
    line = run(DEBUG, f"--workdir={tmp_path}", expect=1, capsys=capsys)
    assert line == "flam_jax: metrics.jsonl: No space left on device; no checkpoint was lost"


@pytest.mark.xdist_group("debug_run")
def test_the_whole_path_and_the_same_command_again(debug_run: Path) -> None:
    """The debug preset from nothing to the report; a second start finds everything done."""
    printed = (debug_run / "output.txt").read_text()
    assert "finished before" not in printed
    assert ("tensorboard" in printed.splitlines()[-1]) == bool(importlib.util.find_spec("tensorboard"))
    for name in ("config.json", "metrics.jsonl", "evaluation.json", "report.html", "tensorboard", "dynamics/pictures"):
        assert (debug_run / "runs" / "multigrid" / name).exists(), name
    page = (debug_run / "runs" / "multigrid" / "report.html").read_text()
    assert "Made by <code>python -m flam_jax.main --config=experiments/multigrid.py:debug --workdir=runs/multi" in page
    assert "too short to mean anything" in page
    command = [sys.executable, "-m", "flam_jax.main", DEBUG, "--workdir=runs/multigrid"]
    output = readme.run(command, debug_run).stdout
    assert "tokenizer finished before: 6 steps" in output
    assert "dynamics finished before: 6 steps" in output
    refused = readme.run([*command, "--config.tokenizer.channels=8"], debug_run, check=False)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "config.tokenizer.channels was 16, now 8" in refused.stderr


@pytest.mark.xdist_group("debug_run")
def test_a_changed_configuration_of_a_trained_run_is_noticed(
    debug_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(debug_run / "runs" / "multigrid", run)
    config = json.loads((run / "config.json").read_text())
    config["dynamics"]["kl_weight"] = 0.25
    (run / "config.json").write_text(json.dumps(config))
    assert evaluate.main([f"--workdir={run}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "config.dynamics.kl_weight was 0.005, now 0.25" in line


@pytest.mark.xdist_group("debug_run")
def test_a_tokenizer_that_does_not_fit_or_is_not_there_is_refused(
    debug_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That one which fits is taken is seen in `test_reproduce.py`: all rows of a study share one."""
    monkeypatch.chdir(debug_run)
    command = [DEBUG, "--workdir=runs/genie", "--config.dynamics.name=genie"]
    for origin, changes, expected in (
        ("multigrid", ["--config.tokenizer.channels=8"], "config.tokenizer.channels is 16 there, 8 here"),
        ("multigrid", ["--config.data.frame_size=32"], "config.data.frame_size is (64, 64) there, (32, 32) here"),
        ("nowhere", [], "'runs/nowhere': expected the workdir of a run whose tokenizer is finished"),
    ):
        assert launcher.main([*command, f"--config.tokenizer.restore_from=runs/{origin}", *changes]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert expected in line
    assert not (debug_run / "runs" / "genie" / "tokenizer").exists()


@pytest.mark.long
@pytest.mark.xdist_group("debug_run")
def test_tokenizer_and_dynamics_are_taken_to_other_data(debug_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(debug_run)
    taken = [f"--config.{stage}.restore_from=runs/multigrid" for stage in ("tokenizer", "dynamics")]
    command = [DEBUG, "--workdir=runs/taken", "--config.data.multigrid.num_agents=2", *taken]
    assert launcher.main([*command, "--config.dynamics.kl_weight=0.01"]) == 0
    page = Path("runs/taken/report.html").read_text()
    assert "tokenizer of runs/multigrid" in page
    assert "dynamics gone on from runs/multigrid" in page


@pytest.mark.xdist_group("debug_run")
def test_dynamics_that_do_not_fit_are_refused(
    debug_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(debug_run)
    shutil.copytree(debug_run / "runs" / "multigrid" / "tokenizer", tmp_path / "run" / "tokenizer")
    command = [DEBUG, "--workdir=runs/refused", "--config.tokenizer.restore_from=runs/multigrid"]
    for origin, changes, expected in (
        ("runs/multigrid", ["--config.dynamics.model_dim=8"], "config.dynamics.model_dim is 16 there, 8 here"),
        ("runs/multigrid", ["--config.dynamics.name=adaworld"], "config.dynamics.name is flam there, adaworld here"),
        (str(tmp_path / "run"), [], "expected the workdir of a run whose dynamics are finished"),
    ):
        assert launcher.main([*command, f"--config.dynamics.restore_from={origin}", *changes]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert expected in line
    assert launcher.main([DEBUG, "--workdir=runs/refused", "--config.dynamics.restore_from=runs/multigrid"]) == 2
    assert "tokenizer.restore_from to name the same run" in capsys.readouterr().err


@pytest.mark.long  # tests/training/test_trainer.py has a shorter one
@pytest.mark.xdist_group("debug_run")
def test_two_seeds_that_are_trained_together_are_two_runs(debug_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(debug_run)
    fields = {"tokenizer.restore_from": "runs/multigrid"}
    configs = [load_config("experiments/multigrid.py", "debug", fields | {"seed": seed}) for seed in (5, 6)]
    workdirs = [f"runs/together/seed{seed}" for seed in (5, 6)]
    assert launcher.guarded_run_together(configs, workdirs) == 0
    kl = []
    for workdir, seed in zip(workdirs, (5, 6), strict=True):
        result = json.loads((Path(workdir) / "evaluation.json").read_text())
        assert result["seed"] == seed
        assert result["steps"] == {"tokenizer": 6, "dynamics": 6}
        kl.append(result["actions"]["kl"])
        assert (Path(workdir) / "report.html").exists()
    assert kl[0] != kl[1]


def test_runs_without_a_tokenizer_are_not_trained_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config("experiments/multigrid.py", "debug")
    assert launcher.guarded_run_together([config], [tmp_path]) == 1
    assert "config.tokenizer.restore_from = ''" in capsys.readouterr().err
