"""A command line that cannot work, and the check that it ends in one line that names why."""

import contextlib
import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from flam_jax import main as launcher

DEBUG, WORKDIR = "--config=experiments/multigrid.py:debug", "--workdir=HERE/run"
LONGEST = 400  # characters of a message
LONG = "x" * 300


@dataclasses.dataclass(frozen=True)
class Bad:
    """A command line that cannot work.

    Attributes:
      words: its words; HERE stands for a folder of the test.
      named: what is wrong; the message holds one of these.
      status: how the command ends.
    """

    words: Sequence[str]
    named: Sequence[str]
    status: int = 2


def each(words: Sequence[str], values: Sequence[str], named: str, status: int = 2) -> list[Bad]:
    """One command line a value, which stands for every {}."""
    return [
        Bad([word.replace("{}", value) for word in words], [named.replace("{}", value)], status) for value in values
    ]


def check(
    cases: Sequence[Bad], here: Path, main: Callable[[list[str]], int] = launcher.main, program: str = "flam_jax"
) -> None:
    """Every case is one line that names what is wrong."""
    for bad in cases:
        words = [word.replace("HERE", str(here)) for word in bad.words]
        error, output = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(error), contextlib.redirect_stdout(output):
            status = main(words)
        text = error.getvalue()
        said = f"{[word[:200] for word in words]}: {text}"
        assert status == bad.status, said
        assert output.getvalue() == "", said
        assert text.endswith("\n"), said
        assert len(text.splitlines()) == 1, said
        assert text.startswith(f"{program}: "), said
        assert len(text) - len(str(here)) < LONGEST, said
        assert "Traceback" not in text, said
        assert any(name.replace("HERE", str(here)) in text for name in bad.named), said
