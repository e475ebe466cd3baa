"""The command `flam`: its parts, its help, and what it says of words that are none."""

import subprocess
import sys
from pathlib import Path

import pytest

from flam_jax import console, main
from flam_jax.config import experiments, fields
from flam_jax.messages import version

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("command", console.COMMANDS)
def test_every_command_has_help_a_version_and_a_module_of_its_own(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert console.main([command, "--version"]) == 0
    assert capsys.readouterr().out == f"flam_jax {version()}\n"
    assert console.main([command, "--help"]) == 0
    module = console.COMMANDS[command]
    assert f"python -m {module.removesuffix('.__main__')}" in capsys.readouterr().out


def test_what_a_command_says_is_what_its_module_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.main(["train", "--config=multigrid"]) == 2
    assert capsys.readouterr().err.startswith("flam_jax: --workdir is missing")


@pytest.mark.parametrize(("word", "nearest"), [("trian", "train"), ("Doctor", "doctor"), ("--no", "plan"), ("", "")])
def test_a_word_that_is_no_command_is_one_line(word: str, nearest: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert console.main([word]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"flam: no such command: {word!r}; the nearest is {nearest}")


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.main([]) == 2
    assert "flam train" in capsys.readouterr().out
    assert console.main(["--help"]) == 0
    assert console.main(["--version"]) == 0


def test_help_lists_experiments_with_variants_and_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--help"]) == 0
    listed = capsys.readouterr().out
    for word in ("4agents (default)", "correlated", "starpilot", "gpu, cpu, debug", *(f.stem for f in experiments())):
        assert word in listed


def test_help_lists_experiments_that_do_not_load_or_take_no_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("import no_such_library")
    (tmp_path / "plain.py").write_text('"""Mine: one setting."""\ndef get_config(arguments): raise KeyError(arguments)')
    monkeypatch.setattr("flam_jax.help.experiments", lambda: sorted(tmp_path.glob("*.py")))
    assert main.main(["--help"]) == 0
    listed = " ".join(capsys.readouterr().out.split())
    assert "does not load: ModuleNotFoundError" in listed
    assert "plain Mine: one setting." in listed


@pytest.mark.parametrize("columns", ["40", "200"])
def test_help_lists_every_field(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main.main(["--help=fields"]) == 0
    listed = capsys.readouterr().out
    assert all(f"--config.{name}=" in listed for name in fields())
    assert "from 1 to 16" in " ".join(listed.split())
    assert max(len(line) for line in listed.splitlines() if "--config." not in line) <= max(40, min(110, int(columns)))


def test_help_lists_the_fields_of_a_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--help=data.multigrid"]) == 0
    listed = [line for line in capsys.readouterr().out.splitlines() if "--config." in line]
    assert [line.strip().split("=")[0] for line in listed] == [
        f"--config.{name}" for name in fields() if name.startswith("data.multigrid.")
    ]
    assert main.main(["--help=dynamcis"]) == 2
    assert "expected fields, or a part: data, dynamics," in capsys.readouterr().err


def test_every_default_that_is_listed_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--help=fields"]) == 0
    for line in capsys.readouterr().out.splitlines():
        name, found, value = line.strip().removeprefix("--config.").partition("=")
        if found and line.startswith("  --config."):
            assert fields()[name].convert(value) == fields()[name].default


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "flam_jax.console", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"flam_jax {version()}\n"
