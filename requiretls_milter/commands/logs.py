"""Read logs, from wherever they are, for the commands that take them."""

from __future__ import annotations

import gzip
import subprocess
import sys
import zlib
from collections.abc import Iterator, Sequence
from typing import IO

from requiretls_milter.errors import RequiretlsMilterError

STDIN = "-"
"""The log that stands for standard input."""

JOURNAL = "journal:"
"""The log that stands for the journal of :data:`UNIT`."""

UNIT = "requiretls-milter"
"""The service's systemd unit."""


class LogError(RequiretlsMilterError):
    """A log cannot be read, or not to its end: what was made of it so far is no result."""


def log_lines(logs: Sequence[str], days: int) -> Iterator[str]:
    """Read the lines of all *logs* in order, whatever characters are in them.

    Args:
        logs: files, gzip-compressed if the name ends with ``.gz``, :data:`STDIN` or
            :data:`JOURNAL`.
        days: how far back to read the journal.

    Raises:
        LogError: one of them cannot be read.
    """
    for log in logs:
        try:
            yield from _lines(log, days)
        except (OSError, EOFError, zlib.error) as error:
            name = getattr(error, "filename", None) or log
            raise LogError(f"{name}: {getattr(error, 'strerror', None) or error}") from error


def _lines(log: str, days: int) -> Iterator[str]:
    if log == JOURNAL:
        yield from _journal(days)
        return
    with _open(log) as file:
        yield from file


def _open(log: str) -> IO[str]:
    if log == STDIN:
        return open(sys.stdin.fileno(), encoding="utf-8", errors="replace", closefd=False)
    if log.endswith(".gz"):
        return gzip.open(log, "rt", encoding="utf-8", errors="replace")
    return open(log, encoding="utf-8", errors="replace")


def _journal(days: int) -> Iterator[str]:
    """Read the service's lines of the journal; raises OSError if journalctl is missing or fails."""
    command = ["journalctl", "--unit", UNIT, "--since", f"-{days}d", "--output", "cat", "--quiet"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, encoding="utf-8", errors="replace"
    ) as journal:
        if journal.stdout is not None:
            yield from journal.stdout
        if journal.wait() != 0:
            raise OSError(0, f"exit status {journal.returncode}", "journalctl")
