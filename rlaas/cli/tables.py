"""Tables that fit the terminal: columns fold between words, names never break, and what is too wide goes upright."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

__all__ = ["fitting_table"]

# What stays on one line: a word, and an interval with its sign.
_UNIT = re.compile(r"± \S+|\S+")
_GAP = 2
"""Characters between two columns of a table without borders."""


def fitting_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    width: int,
    *,
    right: Sequence[int] = (),
) -> RenderableType:
    """A table of at most ``width`` characters in which no word is broken.

    The first column names its row and is never folded; the others fold between words where they have to. What does
    not fit so goes without borders, and at last upright: the name of a row, and below it a line for each of its cells.

    Args:
        title: above the table.
        columns: headings.
        rows: cells, as many as there are columns; texts are taken as they are.
        width: of the terminal.
        right: positions of columns of figures, which stand at their right end.
    """
    texts = [[str(cell) for cell in row] for row in rows]
    heading = Text(title, style="italic")
    n = len(columns)
    if (widths := _widths(columns, texts, width - 3 * n - 1)) is not None:
        table = Table()
    elif (widths := _widths(columns, texts, width - _GAP * (n - 1))) is not None:
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    else:
        return Group(heading, *(_upright(columns, row) for row in texts))
    for j, (column, wide) in enumerate(zip(columns, widths, strict=True)):
        justify: Literal["left", "right"] = "right" if j in right else "left"
        table.add_column(Text(_folded(column, wide)), width=wide, justify=justify, overflow="fold")
    for row in texts:
        # As Text, so that no name or unit in brackets is taken for markup.
        table.add_row(*(Text(_folded(cell, wide)) for cell, wide in zip(row, widths, strict=True)))
    return Group(heading, table)


def _widths(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """Widths of the columns, at most ``width`` together, or None where that does not hold every word."""
    cells = [[column, *(row[j] for row in rows)] for j, column in enumerate(columns)]
    wanted = [max(_longest(text.splitlines()) for text in column) for column in cells]
    least = [max(_longest(_UNIT.findall(text)) for text in column) for column in cells]
    least[0] = wanted[0]
    spare = width - sum(least)
    if spare < 0:
        return None
    found = list(least)
    # Those that lack least first: so that most columns stand on one line.
    for j in sorted(range(len(columns)), key=lambda j: wanted[j] - least[j]):
        more = min(spare, wanted[j] - least[j])
        found[j] += more
        spare -= more
    return found


def _folded(text: str, width: int) -> str:
    """The text in lines of at most ``width`` characters, where it is longer; an interval keeps its sign."""
    if _longest(text.splitlines()) <= width:
        return text
    lines = [""]
    for unit in _UNIT.findall(text):
        if lines[-1] and cell_len(lines[-1]) + 1 + cell_len(unit) <= width:
            lines[-1] += f" {unit}"
        else:
            lines.append(unit)
    return "\n".join(lines[1:])


def _longest(texts: Sequence[str]) -> int:
    return max((cell_len(text) for text in texts), default=0)


def _upright(columns: Sequence[str], row: Sequence[str]) -> RenderableType:
    table = Table.grid(padding=(0, 0, 0, 2), pad_edge=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for column, cell in zip(columns[1:], row[1:], strict=True):
        if cell:
            table.add_row(Text(column, style="dim"), Text(cell))
    return Group(Text(row[0], style="bold", overflow="fold"), table)
