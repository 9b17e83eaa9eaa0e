"""Servers of asyncio for tests that are not: open on a loop in a thread of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

PATIENCE = 10.0
"""Seconds in which they open, and close."""


@contextmanager
def held_open(servers: AbstractAsyncContextManager[object]) -> Iterator[None]:
    """Keep servers open."""
    up, done = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with servers:
            up.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert up.wait(PATIENCE)
        yield
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(PATIENCE)
        loop.close()
