"""What is installed works anywhere: the wheel's files alone, from an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flam_jax import console

ROOT = Path(__file__).parents[1]
WHERE = "import flam_jax, pathlib; print(pathlib.Path(flam_jax.__file__).parents[1]); "


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a wheel would install."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "setup.py", "-q", "build", f"--build-base={folder}/build", f"--build-lib={folder}/lib"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "lib"


def run(installed: Path, folder: Path, code: str, *arguments: str) -> list[str]:
    """What Python code prints in a folder in which nothing is."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", WHERE + code, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    where, *lines = done.stdout.splitlines()
    assert where == str(installed)
    return lines


def test_every_module_and_every_experiment_is_installed(installed: Path) -> None:
    for package in ("flam_jax", "data_pipelines"):
        sources = {str(file.relative_to(ROOT)) for file in (ROOT / package).rglob("*.py")}
        assert sources <= {str(file.relative_to(installed)) for file in installed.rglob("*.py")}
    experiments = {file.name for file in (ROOT / "experiments").glob("*.py")}
    assert {file.name for file in (installed / "flam_jax" / "experiments").glob("*.py")} == experiments
    assert (installed / "flam_jax" / "py.typed").is_file()
    assert not (installed / "tests").exists()


def test_files_beside_the_modules_are_installed(installed: Path) -> None:
    """Templates of pages and notes of studies."""
    found = [*(ROOT / "flam_jax").rglob("templates/*.html"), *(ROOT / "flam_jax").rglob("*.md")]
    assert all((installed / file.relative_to(ROOT)).is_file() for file in found)


def test_an_experiment_is_loaded_by_its_name(installed: Path, tmp_path: Path) -> None:
    code = "from flam_jax.config import load_config as l; print(l('multigrid:2agents,debug').data.multigrid.num_agents)"
    assert run(installed, tmp_path, code) == ["2"]


def test_the_command_lists_itself_and_its_experiments(installed: Path, tmp_path: Path) -> None:
    """Quickly: no help asks for JAX."""
    code = "import sys; from flam_jax.console import main; status = main(sys.argv[1:]); "
    code += "assert 'jax' not in sys.modules, 'jax was imported'; sys.exit(status)"
    lines = run(installed, tmp_path, code, "--help")
    assert all(any(f"flam {name}" in line for line in lines) for name in console.COMMANDS)
    for name in console.COMMANDS:
        assert run(installed, tmp_path, code, name, "--help")
    (version,) = run(installed, tmp_path, code, "train", "--version")
    assert re.fullmatch(r"flam_jax .+", version)
    assert "16agents" in "\n".join(run(installed, tmp_path, code, "train", "--help"))


def test_the_entry_point_is_the_console() -> None:
    entry = re.search(r'"flam = ([\w.]+):(\w+)"', (ROOT / "setup.py").read_text(encoding="utf-8"))
    assert entry is not None
    assert (entry[1], entry[2]) == (console.__name__, console.run.__name__)
