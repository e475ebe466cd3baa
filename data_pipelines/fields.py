"""One declaration a configuration field: default, bounds or choices, meaning, and whether it decides a run's result.

Groups are plain dicts of fields and of further groups. Those of a data set stand in its folder, all others in
`flam_jax.config.groups`.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from data_pipelines.paths import describe_problem, expand_path

Group = Mapping[str, "Field | Group"]
# What cannot work, of a whole group: the field's name within it, its value, and what was expected.
Problem = tuple[str, Any, str]

# Of numbers for which nothing else is said: more overflows somewhere.
_MOST = 1_000_000_000
_LONGEST_TEXT = 200


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of the configuration. Made by the functions below.

    Attributes:
      default: its type is the field's type.
      meaning: one line; what a value stands for, with its unit.
      low, high: inclusive bounds of a number, or of every number of a tuple.
      choices: of a text that must be one of a few.
      folder: a text that names a folder.
      square: a pair for which one number stands for two equal ones.
      length: how many numbers a tuple has; 0 for any.
      decides: whether the result of a run depends on it; otherwise it may change between two starts of one run.
      absent: what was done before there was the field, or before its default changed; the default unless given.
    """

    default: Any
    meaning: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    folder: bool = False
    square: bool = False
    length: int = 0
    decides: bool = True
    absent: Any = None

    @property
    def before(self) -> Any:
        """The value that stands for a stored configuration without the field."""
        return self.default if self.absent is None else self.absent

    def describe_type(self) -> str:
        """In words, what the field takes."""
        if self.square:
            return "height and width in pixels, such as 64 or 64,96"
        if isinstance(self.default, bool):
            return "true or false"
        if self.length:
            return f"{self.length} comma-separated whole numbers from {self.low:.12g} to {self.high:.12g}"
        if isinstance(self.default, tuple):
            return "comma-separated whole numbers"
        return {int: "a whole number", float: "a number", str: "text"}[type(self.default)]

    def describe_values(self) -> str:
        """In words, what can work, with bounds or choices."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.folder:
            return "a folder" if self.default else "a folder, or empty for none"
        if isinstance(self.default, bool) or math.isinf(self.low):
            return self.describe_type()
        if self.high >= _MOST:
            return f"{self.describe_type()} of at least {self.low:.12g}"
        return f"{self.describe_type()}, from {self.low:.12g} to {self.high:.12g}"

    def convert(self, value: Any) -> Any:
        """A value of the field's type, from text as it stands on a command line, or from JSON.

        Raises:
          TypeError, ValueError, OverflowError: it is of another type.
        """
        default = self.default
        if isinstance(value, str):
            value = expand_path(value) if self.folder else _parse(value, default)
        if isinstance(value, list):
            value = tuple(value)
        if self.square and isinstance(value, int) and not isinstance(value, bool):
            value = (value,)
        if self.square and isinstance(value, tuple) and len(value) == 1:
            value = value * 2
        if isinstance(value, bool) != isinstance(default, bool):  # Python takes a bool for a number
            raise TypeError(value)
        if isinstance(default, float) and isinstance(value, int):
            value = float(value)
        if not isinstance(value, type(default)):
            raise TypeError(value)
        return value

    def expected(self, value: Any) -> str:
        """What was expected in place of a value that cannot work; empty when it can."""
        right = isinstance(value, (int, float) if isinstance(self.default, float) else type(self.default))
        if not right or isinstance(value, bool) != isinstance(self.default, bool):
            return self.describe_type()
        if self.choices:
            return "" if value in self.choices else f"one of {', '.join(self.choices)}"
        if self.folder:
            problem = "" if value == self.default == "" else describe_problem(value)
            return f"{problem}, or empty for none" if problem and self.default == "" else problem
        if isinstance(value, str):
            return "" if value.isprintable() and len(value) <= _LONGEST_TEXT else f"at most {_LONGEST_TEXT} characters"
        if isinstance(value, bool):
            return ""
        if self.square and not (len(value) == 2 and all(type(number) is int for number in value)):
            return self.describe_type()
        if self.length and not (len(value) == self.length and all(type(number) is int for number in value)):
            return self.describe_type()
        numbers = value if isinstance(value, tuple) else (value,)
        inside = all(isinstance(number, int | float) and self.low <= number <= self.high for number in numbers)
        return "" if inside else f"a number from {self.low:.12g} to {self.high:.12g}"


def whole(default: int, meaning: str, low: int = 0, high: int = _MOST, **more: Any) -> Field:
    """A whole number."""
    return Field(default, meaning, low, high, **more)


def number(default: float, meaning: str, low: float = 0, high: float = _MOST, **more: Any) -> Field:
    """A number."""
    return Field(float(default), meaning, low, high, **more)


def flag(default: bool, meaning: str, **more: Any) -> Field:
    """True or false."""
    return Field(default, meaning, **more)


def choice(choices: tuple[str, ...], meaning: str, **more: Any) -> Field:
    """One of a few words; the first is the default."""
    return Field(choices[0], meaning, choices=choices, **more)


def text(default: str, meaning: str, **more: Any) -> Field:
    """Any short text."""
    return Field(default, meaning, **more)


def folder(default: str, meaning: str, **more: Any) -> Field:
    """The path of a folder; with an empty default none is needed."""
    return Field(default, meaning, folder=True, **more)


def whole_numbers(default: tuple[int, ...], meaning: str, **more: Any) -> Field:
    """Several whole numbers, as many as one likes."""
    return Field(default, meaning, **more)


def shape(default: tuple[int, ...], meaning: str, low: int, high: int, **more: Any) -> Field:
    """As many whole numbers as the default has."""
    return Field(default, meaning, low, high, length=len(default), **more)


def size(default: tuple[int, int], meaning: str, low: int, high: int, **more: Any) -> Field:
    """Height and width; one number stands for a square."""
    return Field(default, meaning, low, high, square=True, **more)


def leaves(group: Group, prefix: str = "") -> Iterator[tuple[str, Field]]:
    """All fields of a group with their dotted names."""
    for name, member in group.items():
        if isinstance(member, Field):
            yield f"{prefix}{name}", member
        else:
            yield from leaves(member, f"{prefix}{name}.")


def _parse(text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if isinstance(default, tuple):
        return tuple(int(item) for item in text.strip("()[] ").split(",") if item.strip())
    return type(default)(text)


__all__ = [
    "Field",
    "Group",
    "Problem",
    "choice",
    "flag",
    "folder",
    "leaves",
    "number",
    "size",
    "text",
    "whole",
    "whole_numbers",
]
