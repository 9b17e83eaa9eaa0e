"""Concurrency and rate limits; callers over the limit wait.

Each limit is a bound of ``[limits]`` (:class:`~requiretls_milter.telemetry.labels.Bound`),
and each wait counts in ``saturated_total`` under its name: an operator sees which limit
is met, and how often.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Bound

MINUTE = 60.0
"""Seconds."""


def count_saturated(counters: Counters, bound: Bound) -> None:
    """Count that *bound* was met once."""
    counters.inc("saturated_total", (bound,))


class Slots(asyncio.Semaphore):
    """*limit* places; a caller that finds none free waits, which is counted."""

    def __init__(self, limit: int, bound: Bound, counters: Counters) -> None:
        super().__init__(limit)
        self._bound = bound
        self._counters = counters

    async def acquire(self) -> bool:  # type: ignore[override]  # typeshed: Literal[True]
        """Take a place; wait if none is free."""
        if self.locked():
            count_saturated(self._counters, self._bound)
        return await super().acquire()


class Pace:
    """*limit* starts within any minute; a caller that is too early waits, which is counted.

    Callers start in the order in which they came.

    Args:
        limit: starts within a minute.
        bound: the name under which waits are counted.
        counters: where they are counted.
        monotonic: a clock, in seconds.
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
        self._first_in_line = asyncio.Lock()

    async def start(self) -> None:
        """Return when one more may start; a caller that is cancelled meanwhile takes no turn."""
        if self._first_in_line.locked() or self._early() > 0:
            count_saturated(self._counters, self._bound)
        async with self._first_in_line:
            if (early := self._early()) > 0:
                await asyncio.sleep(early)
            self._started.append(self._monotonic())

    def _early(self) -> float:
        """Seconds until one more may start."""
        if len(self._started) < self._limit:
            return 0.0
        return self._started[0] + MINUTE - self._monotonic()
