"""Slow domains take nothing from the others: mail servers, name servers and policy hosts that hang.

With real sockets, and the engine's inside in this process. ``SLOW_DOMAINS`` says how many slow
domains there are (12 unless it is set), four healthy ones for each of them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from requiretls_milter import config as configuration
from requiretls_milter.model import Outcome
from tests.support.stores import saturated
from tests.support.tarpits import (
    HEALTHY,
    HOSTS,
    MIXED,
    MTA_STS,
    SILENT_DNS,
    TARPIT,
    Engine,
    SlowInternet,
    in_flight,
)
from tests.support.waiting import until

SLOW = int(os.environ.get("SLOW_DOMAINS", "12"))

AT_ONCE = 8
"""Healthy domains that are asked about at the same time."""

LIMITS = "probes = 16\nlookups = 16\nfetches = 4"
"""Less than the slow domains of one kind could hold."""


@pytest.fixture
async def internet(tmp_path: Path) -> AsyncIterator[SlowInternet]:
    async with SlowInternet(tmp_path) as internet:
        yield internet


def engine(internet: SlowInternet, limits: str = LIMITS) -> Engine:
    config = configuration.parse(internet.config(limits).encode(), "test")
    return Engine(config, internet.policy_port)


async def _healthy_outcomes(one: Engine, count: int) -> list[Outcome]:
    places = asyncio.Semaphore(AT_ONCE)

    async def ask(number: int) -> Outcome:
        async with places:
            return (await one.forecast(HEALTHY, number)).outcome

    return list(await asyncio.gather(*map(ask, range(count))))


@pytest.mark.parametrize("kind", [TARPIT, SILENT_DNS, MTA_STS])
async def test_healthy_domains_are_known_while_slow_ones_hold_all_that_they_may(
    internet: SlowInternet, kind: str
) -> None:
    async with engine(internet) as one, in_flight(one, (kind,), SLOW):
        await until(lambda: saturated(one.counters).get("slow_after", 0) >= 4, wait=60)
        outcomes = await _healthy_outcomes(one, 4 * SLOW)
        shares = {TARPIT: one.shares.probes, SILENT_DNS: one.shares.lookups}
        assert shares.get(kind, one.shares.fetches).running > 1, "the slow ones have gone"
    assert set(outcomes) == {Outcome.DELIVER}


async def test_the_slow_ones_hold_no_more_than_half_while_others_want_a_place(
    internet: SlowInternet,
) -> None:
    async with engine(internet) as one, in_flight(one, (TARPIT,), SLOW):
        await until(lambda: saturated(one.counters).get("slow_after", 0) >= 16, wait=60)
        most = 0
        for number in range(20):
            await one.forecast(HEALTHY, number)
            most = max(most, one.shares.probes.running)
        assert most <= 16
        assert internet.healthy.connections >= 20


async def test_a_good_server_is_enough_although_those_behind_it_are_slow(
    internet: SlowInternet,
) -> None:
    async with engine(internet, "evidence_wait = 0.5") as one:
        forecast = await one.forecast(MIXED, 1)
        assert forecast.status == "2.0.0"
        assert forecast.compliant
        assert forecast.valid_until == 0.0, "it is asked anew when all is known"
        assert internet.tarpit.at_once, "the others have been given up"
        assert saturated(one.counters)["evidence_wait"] == 1


async def test_a_policy_that_cannot_be_had_in_time_does_not_matter_beside_dane(
    internet: SlowInternet,
) -> None:
    async with engine(internet, "evidence_wait = 0.5") as one:
        forecast = await one.forecast(MTA_STS, 1)
        assert (forecast.status, forecast.compliant) == ("2.0.0", True)
        assert internet.held == 1


async def test_what_only_slow_servers_could_say_is_unknown(internet: SlowInternet) -> None:
    async with engine(internet, "evidence_wait = 0.2\nassessment_timeout = 1") as one:
        for kind in (TARPIT, SILENT_DNS):
            forecast = await one.forecast(kind, 1)
            assert forecast.outcome is Outcome.UNKNOWN
        assert internet.tarpit.connections <= HOSTS
