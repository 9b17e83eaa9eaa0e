"""Programs that run beside a test: started, waited for, and ended."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support.waiting import PATIENCE, eventually

LAST_WORDS = 2000
"""Characters of what a program printed last that a failure tells."""


class Ended(AssertionError):
    """A program ended instead of becoming what was waited for."""


class Process(subprocess.Popen[bytes]):
    """A program that runs beside a test; what it prints is appended to a file."""

    def __init__(self, command: Sequence[str | Path], log: Path, **options: Any) -> None:
        """Start *command*; *options* are those of `subprocess.Popen`."""
        self.log = log
        with log.open("ab") as output:
            options = {"stdout": output, "stderr": output, **options}
            super().__init__(command, stdin=subprocess.DEVNULL, **options)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.poll() is None

    def wait_until(
        self, ready: Callable[[], Any], what: str = "ready", wait: float = PATIENCE
    ) -> None:
        """Wait until it is *ready*.

        Raises:
            Ended: It ended first; the message holds its last words.
            NotInTime: It was not ready within *wait* seconds; so does this one.
        """

        def look() -> bool:
            if ready():
                return True
            if not self.running:
                raise Ended(f"ended instead of being {what}: {self.last_words()}")
            return False

        eventually(look, lambda: f"{what}: {self.last_words()}", wait=wait)

    def last_words(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-LAST_WORDS:].strip()


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not.

    When a process is killed, its first thread may have ended while others still have to, and its
    files and sockets are open until the last one has.
    """
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
        threads = sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(") ")[2][:1] != "Z" or threads > 1


def children(pid: int) -> dict[int, str]:
    """The living children of a process, and the names that ps(1) has for them."""
    found = {}
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it, or one of its threads, has ended
            for child in listed.read_text().split():
                with contextlib.suppress(OSError):
                    text = Path(f"/proc/{child}/stat").read_text()
                    name, _, rest = text.partition(" (")[2].rpartition(") ")
                    if rest[:1] != "Z":
                        found[int(child)] = name
    return found


def free_port() -> int:
    """A TCP port of loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
