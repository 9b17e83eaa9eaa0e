"""The engine's loop, which tells how long its turns take.

Workers, lookups and sessions share one loop: whatever holds it for long holds all of them up. A
*turn* is what the loop does between two looks at its sockets.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Iterator

from requiretls_milter.clocks import SYSTEM_CLOCKS, Clocks

WINDOW = 60.0
"""Seconds of which the longest turn is told, at least; at most twice as many. Prometheus looks more
often than that."""


async def in_turns(work: Iterator[None]) -> None:
    """Go on with work that pauses after each piece, each piece in a turn of its own."""
    for _ in work:
        await asyncio.sleep(0)


class TimedSelector(selectors.EpollSelector):
    """Remembers the longest turn of the loop that uses it.

    Args:
        clocks: only the monotonic clock counts.
    """

    def __init__(self, clocks: Clocks = SYSTEM_CLOCKS) -> None:
        super().__init__()
        self._now = clocks.monotonic
        self._woke = self._window_began = self._now()
        self._longest = self._longest_before = 0.0

    @property
    def longest_turn(self) -> float:
        """Seconds that the longest turn took of the last minute or two."""
        self._forget()
        return max(self._longest, self._longest_before)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """End a turn, wait, and begin another."""
        seconds = self._now() - self._woke
        if seconds > self._longest:
            self._forget()
            self._longest = max(self._longest, seconds)
        try:
            return super().select(timeout)
        finally:
            self._woke = self._now()

    def _forget(self) -> None:
        since = self._now() - self._window_began
        if since >= WINDOW:
            self._longest_before = self._longest if since < 2 * WINDOW else 0.0
            self._longest = 0.0
            self._window_began = self._now()
