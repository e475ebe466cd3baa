"""What commands say: help and version, and what a user wrote: in one line, whatever it was, without the middle of what
is long."""

import importlib.metadata
import re
import reprlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

_END = 140  # characters that stay of each end of a very long word, such as a path


def truncate(text: str) -> str:
    """At most 80 characters of a text, without its middle: for messages that say what a user wrote."""
    return text if len(text) <= 80 else f"{text[:50]}...{text[-27:]}"


class _ShortRepr(reprlib.Repr):
    def __init__(self):
        super().__init__()
        self.maxtuple, self.maxother = 16, 80

    def repr_int(self, x: int, level: int) -> str:
        # Python does not write out more than 4,300 digits.
        return truncate(repr(x) if x.bit_length() < 1000 else hex(x))

    def repr_str(self, x: str, level: int) -> str:
        return repr(truncate(x))


def short_repr(value: Any) -> str:
    """As `repr`, without the middle of what is long."""
    return _ShortRepr().repr(value)


def print_error(program: str, error: object) -> None:
    """Says on standard error what is wrong, in one line whatever a user wrote, very long words without their middle."""
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(error))
    text = re.sub(rf"(\S{{{_END}}})\S{{20,}}(\S{{{_END}}})", r"\1...\2", text)
    print(f"{program}: {text}", file=sys.stderr)


def answer(arguments: Sequence[str], help_text: str | Callable[[], str]) -> bool:
    """Prints the help or the version where a command line asks for it; returns whether it did."""
    if "--help" in arguments or "-h" in arguments:
        print(help_text if isinstance(help_text, str) else help_text())
    elif "--version" in arguments:
        print(f"flam_jax {version()}")
    else:
        return False
    return True


def version() -> str:
    """Of the installed package."""
    try:
        return importlib.metadata.version("flam_jax")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
