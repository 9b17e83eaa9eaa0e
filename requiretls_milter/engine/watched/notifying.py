"""The command that is told of changes (``watch.notify``): one run after the other, each bounded.

It is a process of its own beside the engine. Nothing waits for it: what comes while
:data:`MAX_WAITING` changes wait is dropped, counted and logged.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from requiretls_milter.engine.programs import give, kill_session
from requiretls_milter.ipc.wire import Failing
from requiretls_milter.syntax.text import error_text, printable
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import NotifyResult

RUN_TIMEOUT = 30.0
"""Seconds for one run; then it and all that it has started in its session is killed."""

MAX_WAITING = 100
"""Changes that wait for the command."""

MAX_OUTPUT = 4096
"""Octets of its standard error that are read for the log; the rest is thrown away."""

LAST_WORDS = 0.5
"""Seconds for what is left of its standard error after its end: what it has started may keep that
open."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_WITH_USUAL_SIGNALS = """
import os, signal, sys
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs a command: the engine ignores these signals, and what it starts would go on to do so."""

_log = log.get_logger("engine.notify")


class Notifier:
    """Tells a command of changes.

    Args:
        command: gives program and arguments at the moment; () for none.
        counters: where it is counted what became of each change.
        timeout: seconds for one run.
        wall: wall time, seconds since the epoch.
    """

    def __init__(
        self,
        command: Callable[[], Sequence[str]],
        counters: Counters,
        *,
        timeout: float = RUN_TIMEOUT,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._command = command
        self._counters = counters
        self._timeout = timeout
        self._wall = wall
        self._waiting: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING)
        self.failing: Failing | None = None
        """Whether the last change could not be told."""

    def tell(self, change: Mapping[str, Any]) -> None:
        """Have the command told of a change, an object of JSON; returns at once."""
        if not self._command():
            return
        try:
            self._waiting.put_nowait(json.dumps(change) + "\n")
        except asyncio.QueueFull:
            self._count(NotifyResult.DROPPED, f"{MAX_WAITING} changes wait already")

    async def run(self) -> None:
        """Run the command for one change after the other; a task, until it is cancelled."""
        while True:
            text = await self._waiting.get()
            command = self._command()
            if command:
                result, error = await self._told(command, text.encode())
                self._count(result, error)

    def _count(self, result: NotifyResult, error: str) -> None:
        self._counters.inc("watch_notifications_total", (result,))
        if result is NotifyResult.TOLD:
            self.failing = None
            return
        self.failing = Failing.again(self.failing, error, self._wall())
        _log.warning("notify_failed", result=result, error=error)

    async def _told(self, command: Sequence[str], text: bytes) -> tuple[NotifyResult, str]:
        """Run it once; returns what came of it, and why that is not well."""
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _WITH_USUAL_SIGNALS, *command),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                cwd="/",
                env={"PATH": _PATH, "LANG": "C.UTF-8"},
            )
        except OSError as error:
            return NotifyResult.FAILED, error_text(error)
        said = bytearray()
        reading = asyncio.create_task(_read(process, said))
        try:
            async with asyncio.timeout(self._timeout):
                await give(process.stdin, text)
                status = await process.wait()
        except TimeoutError:
            return NotifyResult.TIMEOUT, f"killed after {self._timeout:g} s"
        finally:
            # What it left behind in its session ends too, and so does all of it at our own end.
            kill_session(process.pid)
            await asyncio.wait({reading}, timeout=LAST_WORDS)
            reading.cancel()
            await process.wait()
        if status == 0:
            return NotifyResult.TOLD, ""
        lines = bytes(said).decode("utf-8", "replace").strip().splitlines()
        last = printable(lines[-1]) if lines else "nothing on standard error"
        return NotifyResult.FAILED, f"status {status}: {last}"


async def _read(process: asyncio.subprocess.Process, said: bytearray) -> None:
    """Read its standard error to the end, so that it never waits for us; keep the beginning."""
    if process.stderr is None:
        return
    while data := await process.stderr.read(MAX_OUTPUT):
        said += data[: MAX_OUTPUT - len(said)]
