"""Tables and sentences that fit the terminal."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pplc_cli.base.language.messages import tr
from pplc_cli.base.text import visible
from pplc_cli.cli.command import echo, hint

_WIDE = 200  # characters per line in a file or a pipe
_FOLDED = 30  # a longer text may be folded to this width before a column of numbers is left out


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        head: its heading.
        text: whether it has text, left-aligned and folded if need be, or numbers, right-aligned and never broken.
        optional: 0: always shown; the others are shown as far as the terminal is wide enough, 1 first.
    """

    head: str
    text: bool = False
    optional: int = 0


def print_table(columns: Sequence[Column], *sections: Sequence[Sequence[str]]) -> None:
    """Print a table that fits the terminal, and name the columns that are left out for it.

    Args:
        columns: the columns.
        sections: groups of rows, divided by lines; a row has a text for each column.
    """
    console = stdout()
    shown = _fitting(columns, [row for rows in sections for row in rows], console.width)
    table = Table()
    for column in shown:
        table.add_column(
            column.head,
            justify="left" if column.text else "right",
            overflow="fold",
            no_wrap=not column.text,
        )
    for rows in sections:
        for row in rows:
            table.add_row(*(Text(visible(cell)) for column, cell in zip(columns, row) if column in shown))
        table.add_section()
    console.print(table)
    missing = ", ".join(column.head for column in columns if column not in shown)
    if missing:
        hint(tr("Not shown at this width: {columns}.", columns=missing))


def say(text: str) -> None:
    """Print sentences, broken between words to fit a terminal; in a file or a pipe they stay one line."""
    console = stdout()
    if console.is_terminal:
        text = textwrap.fill(text, console.width, break_long_words=False, break_on_hyphens=False)
    echo(text)


def stdout() -> Console:
    """The console of standard output; a file or a pipe is wide, unless COLUMNS says otherwise."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDE
    return console


def _fitting(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[Column]:
    """Choose the columns of a table that is at most ``width`` characters wide, the most important ones first."""

    def cells(place: int) -> int:
        widest = max(cell_len(text) for text in (columns[place].head, *(row[place] for row in rows)))
        return 3 + (min(widest, _FOLDED) if columns[place].text else widest)  # with a border and two spaces

    chosen: set[int] = set()
    used = 1
    for place in sorted(range(len(columns)), key=lambda place: columns[place].optional):
        if not columns[place].optional or used + cells(place) <= width:
            chosen.add(place)
            used += cells(place)
    return [column for place, column in enumerate(columns) if place in chosen]
