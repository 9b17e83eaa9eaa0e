"""What rich makes of parts of a report, as text: in colour if the output is a terminal."""

from __future__ import annotations

import shutil

from rich.console import Console, RenderableType

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
