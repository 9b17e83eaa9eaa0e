"""When a child that died is replaced, and when there are too many deaths. Pure.

Time is an argument, in seconds of the monotonic clock.
"""

from __future__ import annotations

from collections import deque

MAX_DEATHS = 5
DEATHS_WITHIN = 10.0
"""As many deaths within as many seconds are a crash loop: the service gives up."""

FIRST_BACKOFF = 0.1
MAX_BACKOFF = 1.0
"""Seconds until a dead child is replaced; doubles with each death of the last seconds."""


class Restarts:
    """Deaths of the last seconds, and children that are due to be started."""

    def __init__(self) -> None:
        self._deaths: deque[float] = deque()
        self._due: dict[str, float] = {}

    @property
    def deaths(self) -> int:
        """Deaths that count: within :data:`DEATHS_WITHIN` seconds before the last one."""
        return len(self._deaths)

    @property
    def crash_loop(self) -> bool:
        """Whether restarting makes no sense any more."""
        return len(self._deaths) >= MAX_DEATHS

    def died(self, name: str, now: float) -> None:
        """Count a death, and plan the replacement."""
        self._deaths.append(now)
        while self._deaths[0] < now - DEATHS_WITHIN:
            self._deaths.popleft()
        self._due[name] = now + min(FIRST_BACKOFF * 2 ** (len(self._deaths) - 1), MAX_BACKOFF)

    def postpone(self, name: str, now: float) -> None:
        """Plan another attempt for a child that could not be started."""
        self._due[name] = now + MAX_BACKOFF

    def take_due(self, now: float) -> list[str]:
        """The children to start now; they are no longer planned."""
        due = [name for name, moment in self._due.items() if now >= moment]
        for name in due:
            del self._due[name]
        return due

    @property
    def moments(self) -> list[float]:
        """When the next children are due."""
        return list(self._due.values())
