"""Places and pace: how many at once, how many within a minute, and the others wait."""

from __future__ import annotations

import asyncio

import pytest

from requiretls_milter.evidence.slots import Pace, Slots
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Bound
from tests.support.stores import saturated


async def test_who_waits_for_a_place_is_told_of() -> None:
    counters = Counters()
    places = Slots(2, Bound.PROBES, counters)
    async with places, places:
        assert not saturated(counters)
        third = asyncio.create_task(places.acquire())
        await asyncio.sleep(0)
        assert saturated(counters) == {"probes": 1}
        assert not third.done()
    assert await third


class Hours:
    """A clock that goes on when somebody sleeps, or *stands* while they do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, stands: bool = False) -> None:
        self.now = 1000.0
        self.slept = 0
        self.sleep = asyncio.sleep
        self._stands = stands
        monkeypatch.setattr("requiretls_milter.evidence.slots.asyncio.sleep", self._go_on)

    async def _go_on(self, seconds: float) -> None:
        self.slept += 1
        if self._stands:
            await asyncio.Event().wait()
        self.now += seconds
        await self.sleep(0)


async def test_in_no_minute_do_more_begin_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Hours(monkeypatch)
    counters = Counters()
    pace = Pace(5, Bound.PROBES_PER_MINUTE, counters, monotonic=lambda: clock.now)
    starts: list[float] = []
    for _ in range(23):
        await pace.start()
        starts.append(clock.now)
        clock.now += 7  # each takes a while
    assert all(starts[n + 5] - starts[n] >= 60 for n in range(len(starts) - 5))
    assert starts[-1] - starts[0] < 5 * 60  # and no slower than that
    assert saturated(counters)["probes_per_minute"] > 0


async def test_a_caller_that_gives_up_takes_no_turn_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Hours(monkeypatch, stands=True)
    pace = Pace(1, Bound.PROBES_PER_MINUTE, Counters(), monotonic=lambda: clock.now)
    await pace.start()
    waiting = [asyncio.create_task(pace.start()) for _ in range(3)]
    await clock.sleep(0)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    clock.now += 60
    before = clock.slept
    await asyncio.wait_for(pace.start(), 1)
    assert clock.slept == before
