"""Turns at something that only so many may do at once, or within a minute; the others wait."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

MINUTE = 60.0
"""Seconds."""

Full = Callable[[str], None]
"""Is told the name of a limit (a key of ``[limits]``) whenever it is met."""


def nobody(_limit: str) -> None:
    """Whom it is told where nobody wants to know."""


class Slots(asyncio.Semaphore):
    """*limit* places; *full* is told *name* whenever somebody finds none and has to wait."""

    def __init__(self, limit: int, name: str, full: Full = nobody) -> None:
        super().__init__(limit)
        self._name = name
        self._full = full

    async def acquire(self) -> bool:  # type: ignore[override]  # typeshed: Literal[True]
        """Take a place, waiting for one where none is free."""
        if self.locked():
            self._full(self._name)
        return await super().acquire()


class Pace:
    """*limit* starts within any minute; who comes too early waits, in order of arrival.

    *full* is told *name* whenever somebody has to. *monotonic*: a clock, in seconds.
    """

    def __init__(
        self,
        limit: int,
        name: str,
        full: Full = nobody,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._name = name
        self._full = full
        self._monotonic = monotonic
        self._started: deque[float] = deque(maxlen=limit)
        self._first = asyncio.Lock()

    async def start(self) -> None:
        """Return when one more may start; whoever is cancelled meanwhile has taken nothing."""
        if self._first.locked() or self._early() > 0:
            self._full(self._name)
        async with self._first:
            if (early := self._early()) > 0:
                await asyncio.sleep(early)
            self._started.append(self._monotonic())

    def _early(self) -> float:
        if len(self._started) < self._limit:
            return 0.0
        return self._started[0] + MINUTE - self._monotonic()
