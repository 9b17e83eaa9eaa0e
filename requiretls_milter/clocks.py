"""The two clocks, and lives that end on both.

The *wall* clock (seconds since the epoch) is the one that others share: a TTL, a certificate
and a record in a store end by it. It can be set back, by an administrator or by NTP. The
*monotonic* clock never goes back, but it stands still while the host is suspended, and means
nothing to another process. What is kept has an end on each, and neither may prolong it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


class Clocks(Protocol):
    """Both clocks, in seconds."""

    def wall(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment, never going back."""
        ...


class SystemClocks:
    """The clocks of this host."""

    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


SYSTEM_CLOCKS = SystemClocks()


@dataclass(frozen=True, slots=True)
class Life:
    """How long a value may be used: an end on each clock, and neither may prolong it."""

    wall_end: float
    monotonic_end: float

    @classmethod
    def of(cls, seconds: float, wall: float, monotonic: float) -> Life:
        """A life of some seconds that begins at the given times."""
        return cls(wall + seconds, monotonic + seconds)

    def is_over(self, wall: float, monotonic: float) -> bool:
        """Whether it has come to its end, given both times."""
        return wall >= self.wall_end or monotonic >= self.monotonic_end

    def left(self, wall: float, monotonic: float) -> float:
        """The seconds that are left, by the clock that ends it first; 0 or less if it is over."""
        by_wall, by_monotonic = self.wall_end - wall, self.monotonic_end - monotonic
        return by_wall if by_wall < by_monotonic else by_monotonic
