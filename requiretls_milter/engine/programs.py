"""Programs that the engine runs: how they get their input, and how they are ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal


def kill_session(pid: int) -> None:
    """Kill a process that has a session of its own, and all that it has started in it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


async def give(stream: asyncio.StreamWriter | None, octets: bytes) -> None:
    """Give a process its standard input; whether it reads that is its own affair."""
    if stream is None:
        return
    try:
        with contextlib.suppress(ConnectionError):
            stream.write(octets)
            await stream.drain()
    finally:
        stream.close()
