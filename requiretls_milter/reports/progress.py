"""A line at the bottom of a terminal that says how far a long command has come."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from typing import TextIO

BAR = 20
"""Characters of the bar."""

_CLEAR = "\r\x1b[2K"


class ProgressLine:
    """Shows one line, which the next one overwrites; shows nothing if *stream* is no terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_shown = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._is_there = False

    def show(self, text: str) -> None:
        """Put *text* in the place of what stood there, cut to the width of the terminal."""
        if self.is_shown:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(_CLEAR + text[:width])
            self._stream.flush()
            self._is_there = True

    def clear(self) -> None:
        """Take the line away, so that something else can be printed."""
        if self._is_there:
            self._stream.write(_CLEAR)
            self._stream.flush()
            self._is_there = False


def bar(done: int, total: int) -> str:
    """A bar that is full when all is done."""
    full = min(BAR, BAR * done // total) if total else BAR
    return f"[{'#' * full}{'.' * (BAR - full)}]"


def waiting_for(pending: Iterable[str]) -> str:
    """Name what is worked on, so that one sees which server is slow."""
    return ", ".join(pending)
