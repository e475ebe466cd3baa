"""The README as data: its commands and its Python examples, made small enough for a test."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
# What the TPU's compiler is quick with: the encoder's convolutions (highest precision) take it longest, then passes.
QUICK_TO_PLAN = {
    "tokenizer.encoder": "patch",
    "tokenizer.decoder": "patch",
    "tokenizer.temporal_kernel": 1,
    "tokenizer.adversarial_weight": 0,
    "dynamics.training.window": 4,
    "dynamics.prediction_steps": 1,
}
QUICK_WORDS = [f"--config.{field}={value}" for field, value in QUICK_TO_PLAN.items()]


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every line of the bash blocks."""
    return [line for block in blocks("bash") for line in block.splitlines() if line.strip()]


def runnable(command: str) -> list[list[str]]:
    """The parts of a command that a test runs, in the debug preset: all but the installation and pytest itself."""
    parts = []
    for part in command.split(" && "):
        words = shlex.split(part)
        if words[1:3] == ["-m", "venv"] or words[0].endswith("/pip") or words[1:3] == ["-m", "pytest"]:
            continue
        assert words[0] == ".venv/bin/python", f"no test knows how to run: {part}"
        quick = QUICK_WORDS if words[1:3] == ["-m", "flam_jax.topology"] else []
        parts.append([sys.executable, *map(in_debug, words[1:]), *quick])
    return parts


def in_debug(word: str) -> str:
    """`--config=FILE:variant,cpu` -> `--config=FILE:variant,debug`, and `--preset=cpu` -> `--preset=debug`."""
    if word == "--preset=cpu":
        return "--preset=debug"
    if not word.startswith("--config="):
        return word
    path, _, arguments = word.partition(":")
    variants = [argument for argument in arguments.split(",") if argument not in ("", "cpu", "debug")]
    return f"{path}:{','.join([*variants, 'debug'])}"


def prepare(folder: Path) -> None:
    """Makes a folder look like a checkout to the commands of the README."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "experiments").symlink_to(ROOT / "experiments")


def run(words: list[str], folder: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs a command in a prepared folder."""
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    assert not check or done.returncode == 0, f"{shlex.join(words)}: {done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    return done
