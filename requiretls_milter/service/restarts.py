"""When a child that died is replaced, and when there are too many deaths. Pure.

A child that dies again and again by itself never serves: the service gives up, so that the MTA's
connections are refused and do not hang. A worker that a peer at its socket has killed is another
matter: libmilter crashes of some malformed packets. If that ended the service, a few packets
would stop all mail for good. So such deaths are followed by the longest back-off at the most.

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
        self._provoked: deque[float] = deque()
        self._due: dict[str, float] = {}

    @property
    def deaths(self) -> int:
        """Deaths by themselves within :data:`DEATHS_WITHIN` seconds before the last death."""
        return len(self._deaths)

    @property
    def crash_loop(self) -> bool:
        """Whether restarting makes no sense any more."""
        return len(self._deaths) >= MAX_DEATHS

    def provoked(self, now: float) -> bool:
        """Whether a peer may have killed a worker within the last seconds."""
        return bool(self._provoked) and self._provoked[-1] >= now - DEATHS_WITHIN

    def died(self, name: str, now: float, *, provoked: bool = False) -> None:
        """Count a death, and plan the replacement.

        Args:
            name: of the child.
            now: when.
            provoked: whether a peer may have caused it; then it makes no crash loop.
        """
        deaths = self._provoked if provoked else self._deaths
        deaths.append(now)
        for counted in (self._deaths, self._provoked):
            while counted and counted[0] < now - DEATHS_WITHIN:
                counted.popleft()
        recent = min(len(self._deaths) + len(self._provoked), MAX_DEATHS)
        self._due[name] = now + min(FIRST_BACKOFF * 2 ** (recent - 1), MAX_BACKOFF)

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
