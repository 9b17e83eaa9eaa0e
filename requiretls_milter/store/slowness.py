"""A store that answers, but each time so late that mail would wait for it.

A deadline tells a store that hangs. A store that answers just within its deadline is as bad: a
forecast of a next hop that is not known yet takes a dozen answers, one after the other.
"""

from __future__ import annotations

MEAN = 0.1
"""Seconds that readers may wait on average: a dozen of them are about a second."""

WEIGHT = 0.125
"""What one wait counts for in that average: a single hiccup of half a second is forgiven."""


class Slowness:
    """Says when readers have waited for too long, too often.

    Of the waits that go on at one time only one counts: a moment in which the whole engine stands
    still is one such moment, however many readers it meets.
    """

    def __init__(self) -> None:
        self._mean = 0.0
        self._counted_until = float("-inf")

    @property
    def mean(self) -> float:
        """Seconds that readers waited on average."""
        return self._mean

    @property
    def is_too_much(self) -> bool:
        """Whether that is more than mail should wait."""
        return self._mean > MEAN

    def note(self, began: float, ended: float) -> None:
        """Note the wait of one reader; the times are monotonic."""
        if began >= self._counted_until:
            self._counted_until = ended
            self._mean += WEIGHT * (ended - began - self._mean)

    def forget(self) -> None:
        """Begin anew: the store has just been found well."""
        self._mean = 0.0
