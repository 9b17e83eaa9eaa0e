"""Concurrency and rate limits; callers over the limit wait, and that they do is counted."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Bound

MINUTE = 60.0
"""Seconds."""


class Slots(asyncio.Semaphore):
    """*limit* places. A caller that finds none waits, and is counted under *bound*."""

    def __init__(self, limit: int, bound: Bound, counters: Counters) -> None:
        super().__init__(limit)
        self._bound = bound
        self._counters = counters

    async def acquire(self) -> bool:  # type: ignore[override]  # typeshed: Literal[True]
        """Take a place; wait for one if none is free."""
        if self.locked():
            self._counters.inc("saturated_total", (self._bound,))
        return await super().acquire()


class Pace:
    """*limit* starts within any minute; a caller that comes too early waits, in order of arrival.

    Callers that wait are counted under *bound*. *monotonic*: a clock, in seconds.
    """

    def __init__(
        self,
        limit: int,
        bound: Bound,
        counters: Counters,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._bound = bound
        self._counters = counters
        self._monotonic = monotonic
        self._started: deque[float] = deque(maxlen=limit)
        self._first = asyncio.Lock()

    async def start(self) -> None:
        """Return when one more may start; a caller that is cancelled has taken no turn."""
        if self._first.locked() or self._early() > 0:
            self._counters.inc("saturated_total", (self._bound,))
        async with self._first:
            if (early := self._early()) > 0:
                await asyncio.sleep(early)
            self._started.append(self._monotonic())

    def _early(self) -> float:
        if len(self._started) < self._limit:
            return 0.0
        return self._started[0] + MINUTE - self._monotonic()
