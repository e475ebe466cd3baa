"""Tables: one value that a template shows as HTML and a document as Markdown."""

import dataclasses
from collections.abc import Sequence
from typing import Any

EMPTY = "–"


@dataclasses.dataclass(frozen=True)
class Strong:
    """A cell in bold."""

    text: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose first column is text and whose others are numbers, already formatted.

    Attributes:
      head: names of the columns.
      rows: cells; None is shown as a dash, a truth value as yes or no, `Strong` in bold.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def cells(self) -> list[list[tuple[str, bool]]]:
        """Text of every cell, and whether it is bold."""
        return [[(_text(cell), isinstance(cell, Strong)) for cell in row] for row in self.rows]

    def markdown(self) -> str:
        """The table in GitHub's Markdown."""
        lines = [[f"**{text}**" if strong else text for text, strong in row] for row in self.cells()]
        rule = ["---", *(["---:"] * (len(self.head) - 1))]
        return "\n".join(
            "| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in [self.head, rule, *lines]
        )


def _text(cell: Any) -> str:
    if cell is None:
        return EMPTY
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return cell.text if isinstance(cell, Strong) else str(cell)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


__all__ = ["EMPTY", "Strong", "Table"]
