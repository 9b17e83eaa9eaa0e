"""The threads of a worker, and how many of them stand still.

libmilter gives a thread to each event from its first octet on. If the MTA has sent only the
beginning, the thread waits for the rest; no callback runs, so that only the kernel can tell. A
thread that works, or waits for the interpreter's lock, is switched many times a second.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path

_SWITCHES = re.compile(r"ctxt_switches:\s*(\d+)")
"""Of proc_pid_status(5): how often the thread was switched, by its will and against it."""

_TASKS = Path("/proc/self/task")


class Threads:
    """Counts the threads of this process.

    Attributes:
        count: by the last look.
        still: those of them that did nothing since the look before.
    """

    def __init__(self) -> None:
        self.count = 0
        self.still = 0
        self._switches: Mapping[str, int] = {}

    def look(self) -> None:
        """Count them now; without a descriptor to do it with, the last look holds."""
        switches: dict[str, int] = {}
        try:
            for task in _TASKS.iterdir():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                    found = _SWITCHES.findall((task / "status").read_text())
                    switches[task.name] = sum(map(int, found))
        except OSError:
            return
        self.count = len(switches)
        self.still = len(switches.items() & self._switches.items())
        self._switches = switches
