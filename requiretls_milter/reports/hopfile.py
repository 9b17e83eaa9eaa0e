"""Next hops from a file, one a line: ``check --from``. A list of domains for a rule is such a file.

The file may have a million lines, or may be a pipe that has none for an hour: it is read in a
thread of its own, a few lines ahead.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TextIO

MAX_LINE = 1_024
"""Characters of a line: the longest domain name has 253, and a list may stand on a line."""

AHEAD = 64
"""Lines that are read before they are wanted."""

COMMENT = "#"
"""What follows it is left out."""

PATTERN = "."
"""A line that begins so stands for subdomains, in a list for a rule: it names no next hop."""


@dataclass(frozen=True, slots=True)
class HopLine:
    """A line with text, without the blanks around it."""

    number: int
    text: str
    is_too_long: bool = False


def lines_of(file: TextIO) -> Iterator[HopLine]:
    """Read the lines that have text, none of them to more than :data:`MAX_LINE` characters."""
    number = 0
    while read := file.readline(MAX_LINE + 1):
        number += 1
        cut = len(read) > MAX_LINE and not read.endswith("\n")
        rest = read
        while cut and rest and not rest.endswith("\n"):
            rest = file.readline(MAX_LINE)
        text = read.partition(COMMENT)[0].strip()
        if text and not text.startswith(PATTERN):
            yield HopLine(number, text[:MAX_LINE], cut)


def count_of(file: TextIO) -> int | None:
    """How many lines with text a file has; None if that cannot be told without taking them."""
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return None
    begin = os.lseek(file.fileno(), 0, os.SEEK_CUR)
    with _copy(file) as own:
        total = sum(1 for _ in lines_of(own))
    os.lseek(file.fileno(), begin, os.SEEK_SET)
    return total


async def read(file: TextIO) -> AsyncIterator[HopLine]:
    """Give the lines of a file as they come.

    Raises:
        OSError: the file cannot be read any further.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[HopLine | OSError | None] = asyncio.Queue(AHEAD)

    def put(item: HopLine | OSError | None) -> None:
        putting = queue.put(item)
        try:
            asyncio.run_coroutine_threadsafe(putting, loop).result()
        except RuntimeError:  # the loop is closed
            putting.close()
            raise

    def feed() -> None:
        # At the end of the command the loop is gone: nobody wants the rest.
        with contextlib.suppress(RuntimeError, concurrent.futures.CancelledError):
            try:
                with _copy(file) as own:
                    for line in lines_of(own):
                        put(line)
                put(None)
            except OSError as error:
                put(error)

    # A daemon: a terminal or a pipe that is silent must not keep the command from ending.
    threading.Thread(target=feed, name="next-hops", daemon=True).start()
    while (item := await queue.get()) is not None:
        if isinstance(item, OSError):
            raise item
        yield item


def _copy(file: TextIO) -> TextIO:
    """Open the same file again, with a buffer of its own.

    At its end Python takes the lock of standard input's buffer, which the thread may hold for ever.
    """
    return open(os.dup(file.fileno()), encoding=file.encoding, errors=file.errors)
