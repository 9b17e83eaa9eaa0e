"""Single flight: what is found once for all who ask, and what becomes of their errors."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from requiretls_milter.engine.cache.source import CachedSource
from requiretls_milter.evidence.gathering import ANY_AGE
from requiretls_milter.evidence.probe import FRESH
from requiretls_milter.evidence.turns import BusyError, Claim
from requiretls_milter.model import (
    DnsOutcome,
    MtaStsEvidence,
    ProbeEvidence,
    ProbeStage,
    ServerTarget,
)
from requiretls_milter.store.base import StoreKind
from tests.support.cachekit import RETRY_AFTER, CacheKit, limited
from tests.support.fakesource import FakeSource
from tests.support.limiters import limiters
from tests.support.waiting import until

SESSION = ProbeEvidence("", ProbeStage.DONE, starttls_offered=True, requiretls=True, expires=FRESH)
ATTEMPT = StoreKind.ATTEMPT
RETRY = RETRY_AFTER
NOTHING = MtaStsEvidence(expires=300)


@pytest.fixture
def kit() -> CacheKit:
    return CacheKit()


async def test_r60_what_many_want_at_once_is_looked_for_once(kit: CacheKit) -> None:
    kit.source.gate = asyncio.Event()
    tasks = [
        asyncio.create_task(kit.cache.probe(ServerTarget("192.0.2.1", 25, "a"))) for _ in range(100)
    ]
    await asyncio.sleep(0)
    assert kit.cache.in_flight == 1
    kit.source.gate.set()
    results = await asyncio.gather(*tasks)
    assert len(set(results)) == 1
    assert kit.source.calls["probe 192.0.2.1 a"] == 1
    assert kit.count("cache_requests_total", "host", "in_progress") == 99
    assert kit.count("probes_total", "completed") == 1
    assert kit.cache.in_flight == 0


async def test_r60_a_cancelled_caller_does_not_take_the_flight_from_the_others(
    kit: CacheKit,
) -> None:
    kit.source.gate = asyncio.Event()
    first, second = (asyncio.create_task(kit.cache.mx("a")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    kit.source.gate.set()
    assert (await second).outcome is DnsOutcome.FOUND
    assert kit.source.calls["mx a"] == 1


async def test_a_flight_whose_callers_are_all_gone_still_fills_the_cache(kit: CacheKit) -> None:
    kit.source.gate = asyncio.Event()
    task = asyncio.create_task(kit.cache.mx("a"))
    await asyncio.sleep(0)
    task.cancel()
    kit.source.gate.set()
    await until(lambda: not kit.cache.in_flight)
    await kit.cache.mx("a")
    assert kit.source.calls["mx a"] == 1
    assert kit.count("cache_requests_total", "domain", "hit") == 1


async def test_a_flight_whose_callers_are_all_gone_does_not_lengthen_a_queue(
    kit: CacheKit,
) -> None:
    """It is given up if it waits for its turn; who asks again later starts another one."""
    limiter = limiters(probes=1).probes
    end = asyncio.Event()

    class InTurn(FakeSource):
        async def probe(self, server: ServerTarget, *, since: float = ANY_AGE) -> ProbeEvidence:
            await limiter.run(Claim(server.address), end.wait)
            return replace(SESSION, address=server.address)

    source = InTurn(kit.clocks)
    cache = CachedSource(source, kit.store, kit.config, kit.counters, authorities="")
    first, second, third = (
        asyncio.create_task(cache.probe(ServerTarget(f"192.0.2.{n}", 25, "a"))) for n in (1, 2, 2)
    )
    await asyncio.sleep(0.01)
    assert cache.in_flight == 2
    first.cancel()
    second.cancel()
    await asyncio.sleep(0.01)
    assert cache.in_flight == 2, "one has had its turn, one is still wanted"
    third.cancel()
    await asyncio.sleep(0.01)
    assert cache.in_flight == 1
    again = asyncio.create_task(cache.probe(ServerTarget("192.0.2.2", 25, "a")))
    end.set()
    assert (await again).stage is ProbeStage.DONE


async def test_an_internal_error_reaches_the_waiting_callers_and_is_not_kept(kit: CacheKit) -> None:
    kit.source.error = RuntimeError("a mistake")
    results = await asyncio.gather(kit.cache.mx("a"), kit.cache.mx("a"), return_exceptions=True)
    assert [str(result) for result in results] == ["a mistake", "a mistake"]
    kit.source.error = None
    assert (await kit.cache.mx("a")).outcome is DnsOutcome.FOUND


async def test_an_internal_error_without_a_waiting_caller_is_logged(
    kit: CacheKit, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    kit.source.gate = asyncio.Event()
    kit.source.error = RuntimeError("a mistake")
    task = asyncio.create_task(kit.cache.mx("a"))
    await asyncio.sleep(0)
    task.cancel()
    kit.source.gate.set()
    with caplog.at_level(logging.ERROR, "asyncio"):
        await until(lambda: not kit.cache.in_flight)
    assert caplog.records == []  # nothing is left for asyncio to complain of
    captured = capsys.readouterr()
    assert "evidence_failed" in captured.out + captured.err


async def test_a_flight_that_never_lands_is_ended() -> None:
    kit = CacheKit(config=limited(flight_timeout=0.05))
    kit.source.gate = asyncio.Event()
    with pytest.raises(TimeoutError):
        await kit.cache.mx("a")
    assert kit.cache.in_flight == 0
    assert kit.count("saturated_total", "flight_timeout") == 1


async def test_there_is_an_end_to_how_much_is_under_way() -> None:
    kit = CacheKit(config=limited(flights=3))
    kit.source.gate = asyncio.Event()
    tasks = [asyncio.create_task(kit.cache.mx(f"{number}")) for number in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(BusyError):
        await kit.cache.mx("one-more")
    joined = asyncio.create_task(kit.cache.mx("1"))  # no flight of its own
    kit.source.gate.set()
    await asyncio.gather(*tasks, joined)


async def test_one_flight_too_many_is_counted() -> None:
    kit = CacheKit(config=limited(flights=0))
    with pytest.raises(BusyError):
        await kit.cache.mx("a.example")
    assert kit.count("saturated_total", "flights") == 1


async def test_closing_ends_what_is_under_way(kit: CacheKit) -> None:
    kit.source.gate = asyncio.Event()
    task = asyncio.create_task(kit.cache.mx("a"))
    await asyncio.sleep(0)
    await kit.cache.close()
    assert kit.cache.in_flight == 0
    with pytest.raises(asyncio.CancelledError):
        await task
