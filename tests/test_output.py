"""Neither a narrow encoding nor a reader that has gone ends a program, or leaves a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRINTS = "from flam_jax.output import configure_output; configure_output(); "


def run(code: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs Python code, its output in `shell` where given."""
    command = ["bash", "-c", f'set -o pipefail; "{sys.executable}" -c "$CODE" {shell}']
    variables = os.environ | environment | {"CODE": code}
    return subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60, check=False, errors="replace"
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_letter_is_printed_in_every_encoding(encoding: str) -> None:
    letters = "R² of 0.5 — ünïcödé, 視頻, \\udcff"
    code = f"{PRINTS}import sys; print('{letters}'); print('{letters}', file=sys.stderr)"
    done = run(code, PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    for text in (done.stdout, done.stderr):
        assert text.startswith("R")
        assert text.rstrip().endswith("\\udcff")
        assert "Traceback" not in text
    assert ("\\xb2" in done.stdout) == (encoding == "ascii")


def test_the_launcher_survives_a_narrow_encoding() -> None:
    code = "import sys; from flam_jax.process import configure_process; configure_process(); "
    code += "from flam_jax.main import main; sys.exit(main(['--config=ñ²']))"
    done = run(code, PYTHONIOENCODING="ascii", GLIBC_TUNABLES="")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_a_reader_that_has_gone_ends_the_output_and_not_the_work(tmp_path: Path) -> None:
    code = f"{PRINTS}import time\nfor i in range(20000): print('line', i, flush=i % 100 == 0)\n"
    code += f"time.sleep(0.1); open('{tmp_path}/done', 'w').close(); print('and more')"
    done = run(code, shell="| head -n 1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "line 0\n", "")
    assert (tmp_path / "done").exists()


def test_help_that_is_cut_off_is_no_error() -> None:
    code = "import sys; from flam_jax.output import configure_output; configure_output(); "
    code += "from flam_jax.console import main; sys.exit(main(['train', '--help=fields']))"
    done = run(code, shell="| head -n 1")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_is_still_an_error() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")
    done = run(f"{PRINTS}print('x', flush=True)", shell="> /dev/full")
    assert done.returncode != 0
    assert "No space left" in done.stderr
