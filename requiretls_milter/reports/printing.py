"""What rich makes of parts of a report, as text: in colour if the output is a terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

GOOD, BAD, UNSURE = "green", "red", "yellow"
"""Colours of what is well, of what is not, and of what may not be."""

MIN_WIDTH = 100
"""Columns if the output is no terminal: enough that no table is cut."""


def printed(*parts: RenderableType, width: int | None = None) -> str:
    """Print parts one below the other; no line has blanks at its end.

    What servers said is plain text: brackets and colons in it are no markup (R62).

    Args:
        parts: what to print.
        width: columns; None for those of the terminal.
    """
    columns = width or shutil.get_terminal_size((MIN_WIDTH, 0)).columns
    console = Console(width=columns, highlight=False, markup=False, emoji=False)
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def bare_table() -> Table:
    """A table without lines and heads: columns two blanks apart."""
    return Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))


def on_terminal(text: str, *, hang: int) -> str:
    """Fold lines that are longer than the terminal is wide; as it is if the output is none.

    Args:
        text: any number of lines.
        hang: the column at which a line that begins at the margin goes on; an indented one goes on
            two columns further to the right than it begins.
    """
    if not sys.stdout.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return "\n".join(_folded(line, hang, width) for line in text.split("\n"))


def _folded(line: str, hang: int, width: int) -> str:
    if len(line) <= width:
        return line
    indented = len(line) - len(line.lstrip())
    return textwrap.fill(
        line,
        max(width, 2 * hang),
        subsequent_indent=" " * (indented + 2 if indented else hang),
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )


def hanging(head: Text | str, body: Text | str, *, indent: int = 0) -> RenderableType:
    """Put *body* beside *head*; its further lines begin below its first one.

    Args:
        head: a word or two.
        body: any length.
        indent: blanks before both.
    """
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(overflow="fold")
    grid.add_column(overflow="fold")
    grid.add_row(head, body)
    return Padding(grid, (0, 0, 0, indent))
