"""Each bound that is met is seen: somebody waited, was turned away, or made room."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from requiretls_milter.engine import assessor, cache, client, server
from requiretls_milter.engine.cache import BusyError
from requiretls_milter.evidence import dns, mta_sts, probe
from requiretls_milter.evidence.slots import Slots
from requiretls_milter.metrics import Bound
from tests.unit.engine.test_cache import Kit

PAGE = Path(__file__).parents[3] / "docs" / "reliability.md"

LIMITS = {
    Bound.GATHERINGS: assessor.MAX_GATHERINGS,
    Bound.FLIGHTS: cache.MAX_FLIGHTS,
    Bound.PROBES: probe.MAX_SESSIONS,
    Bound.LOOKUPS: dns.MAX_LOOKUPS,
    Bound.FETCHES: mta_sts.MAX_FETCHES,
    Bound.HOST_CACHE: cache.MAX_HOST_ENTRIES,
    Bound.DOMAIN_CACHE: cache.MAX_DOMAIN_ENTRIES,
    Bound.FORECAST_CACHE: client.MAX_HOT,
    Bound.QUESTIONS: client.MAX_IN_FLIGHT,
    Bound.ENGINE_CONNECTIONS: server.MAX_CONNECTIONS,
    Bound.ENGINE_REQUESTS: server.MAX_CONNECTION_REQUESTS,
    Bound.METRICS_CONNECTIONS: server.MAX_HTTP_CONNECTIONS,
}


@pytest.mark.parametrize("bound", Bound)
def test_each_bound_is_documented_with_its_value(bound: Bound) -> None:
    row = re.search(rf"^\| `{bound}` \| ([0-9,]+) \|", PAGE.read_text(encoding="utf-8"), re.M)
    assert row is not None, bound
    assert int(row[1].replace(",", "")) == LIMITS[bound]


async def test_who_waits_for_a_place_is_told_of() -> None:
    waited = []
    slots = Slots(2, lambda: waited.append(1))
    async with slots, slots:
        assert not waited
        third = asyncio.create_task(slots.acquire())
        await asyncio.sleep(0)
        assert waited == [1]
        assert not third.done()
    assert await third


async def test_one_entry_too_many_in_a_cache_is_counted() -> None:
    kit = Kit(max_host_entries=2, max_domain_entries=2)
    for number in range(3):
        await kit.cache.mx(f"d{number}.example")
        await kit.cache.addresses(f"h{number}.example")
    assert kit.count("saturated_total", "domain_cache") == 1
    assert kit.count("saturated_total", "host_cache") == 1


async def test_one_flight_too_many_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_FLIGHTS", 0)
    kit = Kit()
    with pytest.raises(BusyError):
        await kit.cache.mx("a.example")
    assert kit.count("saturated_total", "flights") == 1
