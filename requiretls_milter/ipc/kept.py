"""The forecasts that a worker keeps: each until its own end, by the question that it answers."""

from __future__ import annotations

from dataclasses import dataclass

from requiretls_milter.bounded import BoundedMap, entry_octets
from requiretls_milter.clocks import SYSTEM_CLOCKS, Clocks, Life
from requiretls_milter.ipc.questions import Key, holds_for, key_for, keys_of
from requiretls_milter.ipc.wire import MAX_FORECAST_LIFE
from requiretls_milter.model import UNKNOWN_STATUS, Forecast, Question

FORECAST_OCTETS = 1_536
"""Octets of memory that a forecast may take on average, with its question, while it is kept."""


@dataclass(slots=True)
class _Kept:
    forecast: Forecast
    life: Life
    uses: int = 0


class KeptForecasts:
    """Keeps forecasts as long as they say; not safe for threads.

    Args:
        limit: how many.
        clocks: by which they end.
    """

    def __init__(self, limit: int, clocks: Clocks = SYSTEM_CLOCKS) -> None:
        self._wall = clocks.wall
        self._monotonic = clocks.monotonic
        self._kept: BoundedMap[Key, _Kept] = BoundedMap(weigh=entry_octets)
        self.limit_to(limit)

    def __len__(self) -> int:
        return len(self._kept)

    def limit_to(self, limit: int) -> None:
        """Keep so many from now on."""
        self._kept.limit = limit
        self._kept.max_weight = limit * FORECAST_OCTETS

    def clear(self) -> None:
        """Forget all of them."""
        self._kept.clear()

    def recall(self, question: Question) -> Forecast | None:
        """The forecast for a question; None if there is none whose life goes on. It is a use."""
        for key in keys_of(question):
            kept = self._kept.get(key)
            if kept is None or not (key[-1] or holds_for(kept.forecast, question.needs.size)):
                continue
            if not self._is_over(kept):
                self._kept.touch(key)
                kept.uses += 1
                return kept.forecast
        return None

    def end(self, question: Question) -> int:
        """Forget what is kept for a question if its life is over; returns how often it was used."""
        uses = 0
        for key in keys_of(question):
            kept = self._kept.get(key)
            if kept is not None and self._is_over(kept):
                self._kept.pop(key)
                uses += kept.uses
        return uses

    def keep(self, question: Question, forecast: Forecast) -> int:
        """Keep a forecast as long as it says, if it says anything.

        Returns how many others had to make room.
        """
        wall, monotonic = self._wall(), self._monotonic()
        seconds = min(forecast.valid_until - wall, MAX_FORECAST_LIFE)
        if forecast.status == UNKNOWN_STATUS or seconds <= 0:
            return 0
        life = Life.of(seconds, wall, monotonic)
        return self._kept.put(key_for(question, forecast), _Kept(forecast, life))

    def _is_over(self, kept: _Kept) -> bool:
        return kept.life.is_over(self._wall(), self._monotonic())
