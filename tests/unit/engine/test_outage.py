"""Is it they who are away, or we? No domain is judged by our own outage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from requiretls_milter import config
from requiretls_milter.engine.assessor import Assessor
from requiretls_milter.engine.cache import CachedSource
from requiretls_milter.engine.outage import LEAST, WITHIN, Outbound, Watch
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.metrics import Counters, Gauges, OutboundService
from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    Forecast,
    MxEvidence,
    Outcome,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Question,
    Requirement,
    TlsaEvidence,
    TlsaRecord,
)
from requiretls_milter.store.memory import MemoryStore
from tests.unit.engine.fakesource import Clocks, FakeSource

TIMED_OUT = ProbeEvidence("", ProbeStage.CONNECT, ProbeFailure.TIMEOUT, error="timed out")
NO_ROUTE = ProbeEvidence("", ProbeStage.CONNECT, ProbeFailure.REFUSED, error="No route to host")
REFUSED = ProbeEvidence("", ProbeStage.CONNECT, ProbeFailure.REFUSED, error="Connection refused")
HANGS = ProbeEvidence("", ProbeStage.BANNER, ProbeFailure.TIMEOUT, error="timed out")
FORBIDDEN = ProbeEvidence("", ProbeStage.CONNECT, ProbeFailure.FORBIDDEN)
TLSA = TlsaEvidence(
    True, DnsOutcome.FOUND, True, records=(TlsaRecord(3, 1, 1, b"x" * 32),), expires=300
)
"""So that the MTA would connect at all."""

NO_ANSWER = MxEvidence(DnsOutcome.ERROR, error="timed out")


class Kit:
    """Cache and assessor over a scripted world in which each domain has a network of its own."""

    def __init__(self) -> None:
        self.clocks = Clocks()
        self.source = FakeSource(self.clocks).good()
        self.source.script["tlsa"] = TLSA
        self.gauges = Gauges()
        self.outbound = Outbound(self.gauges, monotonic=self.clocks.monotonic)
        self.cache = CachedSource(
            self.source,
            store=MemoryStore(),
            retry_after=60,
            counters=Counters(),
            outbound=self.outbound,
            wall=self.clocks.wall,
            monotonic=self.clocks.monotonic,
            jitter=lambda: 0.0,
        )
        self.assessor = Assessor(
            config.parse(b'[mta]\ntls_security_level = "dane"\n', "test"),
            self.cache,
            TrustStore.load(""),
            Counters(),
            self.gauges,
            wall=self.clocks.wall,
        )
        for number in range(20):
            self.source.script[f"addresses mx.d{number}.example-{number}.net"] = AddressLookup(
                DnsOutcome.FOUND, True, (f"8.8.{number}.1",), expires=300
            )

    def answer(self, **script: object) -> None:
        self.source.script |= script

    async def ask(self, number: int) -> Forecast:
        return await self.assessor.assess(
            Question(
                f"d{number}.example-{number}.net",
                "smtp",
                Requirement.REQUIRETLS,
                Requirement.REQUIRETLS,
            )
        )

    def shown(self, service: OutboundService) -> float:
        return next(
            value
            for metric, labels, value in self.gauges.items()
            if (metric, labels) == ("outbound_reachable", (service,))
        )


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    one = Kit()
    yield one
    await one.assessor.close()
    await one.cache.close()


# ---------------------------------------------------------------- the watch


def test_it_is_we_where_many_fail_and_none_succeeds() -> None:
    watch = Watch()
    begun = [watch.failure(f"network {number}", 100.0) for number in range(LEAST + 2)]
    assert begun == [False] * (LEAST - 1) + [True, False, False]
    assert watch.out


def test_it_is_they_where_few_fail_however_often() -> None:
    watch = Watch()
    for moment in range(1000):
        assert not watch.failure(f"network {moment % (LEAST - 1)}", 100.0 + moment)
    assert not watch.out


def test_it_is_they_where_one_succeeds_in_between() -> None:
    watch = Watch()
    for number in range(100):
        assert not watch.failure(f"network {number}", 100.0)
        if number % (LEAST - 1) == 0:
            assert not watch.success()
    assert not watch.out


def test_failures_of_long_ago_do_not_count() -> None:
    watch = Watch()
    for number in range(LEAST - 1):
        watch.failure(f"network {number}", 100.0)
    assert not watch.failure("network x", 100.0 + WITHIN + 1)
    assert not watch.out


def test_one_success_is_the_end_of_an_outage() -> None:
    watch = Watch()
    for number in range(LEAST):
        watch.failure(f"network {number}", 100.0)
    assert watch.success()
    assert not watch.out
    assert not watch.success()


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=300))
def test_the_watch_remembers_no_more_than_it_takes(events: list[tuple[int, bool]]) -> None:
    watch = Watch()
    for moment, (who, well) in enumerate(events):
        if well:
            watch.success()
        else:
            watch.failure(str(who), float(moment))
        assert len(watch._failed) < LEAST


# ---------------------------------------------------------------- servers


@pytest.mark.parametrize("failure", [TIMED_OUT, NO_ROUTE])
async def test_with_port_25_blocked_no_domain_is_judged(kit: Kit, failure: ProbeEvidence) -> None:
    kit.answer(probe=failure)
    found = [await kit.ask(number) for number in range(LEAST + 3)]
    assert [item.status for item in found[: LEAST - 1]] == ["4.4.1"] * (LEAST - 1)
    for item in found[LEAST - 1 :]:
        assert item.outcome is Outcome.UNKNOWN
        assert "no mail server can be reached from here" in item.text
    assert (await kit.ask(0)).outcome is Outcome.UNKNOWN
    assert kit.shown(OutboundService.SMTP) == 0
    assert kit.shown(OutboundService.DNS) == 1


async def test_an_outage_is_said_once_loudly_and_its_end_too(kit: Kit) -> None:
    kit.answer(probe=TIMED_OUT)
    with capture_logs() as lines:
        for number in range(2 * LEAST):
            await kit.ask(number)
        kit.answer(probe=FakeSource(kit.clocks).good().script["probe"])
        for number in range(2 * LEAST, 2 * LEAST + 3):
            await kit.ask(number)
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("outbound_unreachable", "error"),
        ("outbound_reachable", "warning"),
    ]


async def test_servers_that_fail_in_an_outage_are_called_again_at_its_end(kit: Kit) -> None:
    kit.answer(probe=TIMED_OUT)
    for number in range(LEAST):
        await kit.ask(number)
    good = FakeSource(kit.clocks).good().script["probe"]
    kit.answer(probe=good)
    assert (await kit.ask(0)).outcome is Outcome.UNKNOWN, "the last attempt is not over"
    assert (await kit.ask(LEAST)).outcome is not Outcome.UNKNOWN
    assert kit.shown(OutboundService.SMTP) == 1
    # No retry_after has to pass, nor is a failure from then held against anybody.
    found = [await kit.ask(number) for number in range(LEAST)]
    assert {item.status for item in found} == {(await kit.ask(LEAST)).status}


async def test_in_an_outage_pauses_do_not_double(kit: Kit) -> None:
    kit.answer(probe=TIMED_OUT)
    for number in range(LEAST):
        await kit.ask(number)
    for _ in range(5):
        before = kit.source.calls["probe 8.8.0.1 "]
        kit.clocks.pass_(61)
        await kit.ask(0)
        assert kit.source.calls["probe 8.8.0.1 "] == before + 1


@pytest.mark.parametrize("failure", [REFUSED, HANGS, FORBIDDEN])
async def test_what_somebody_answered_is_no_outage_of_ours(
    kit: Kit, failure: ProbeEvidence
) -> None:
    kit.answer(probe=failure)
    found = [await kit.ask(number) for number in range(LEAST + 3)]
    assert not any("from here" in item.text for item in found)
    assert kit.shown(OutboundService.SMTP) == 1


async def test_servers_of_one_network_are_one_operator(kit: Kit) -> None:
    for number in range(LEAST + 3):
        found = replace(TIMED_OUT, address=f"8.8.8.{number}")
        kit.outbound.saw_probe(found)
        kit.outbound.saw_probe(replace(found, address=f"2606:4700::{number + 1}"))
    assert not kit.outbound.out(OutboundService.SMTP)


async def test_a_relay_of_our_own_says_nothing_of_the_internet(kit: Kit) -> None:
    inside = ProbeEvidence("10.0.0.1", ProbeStage.DONE)
    for number in range(LEAST):
        kit.outbound.saw_probe(replace(TIMED_OUT, address=f"8.8.{number}.1"))
        kit.outbound.saw_probe(inside)
    assert kit.outbound.out(OutboundService.SMTP)


async def test_what_is_known_of_a_server_stands_in_an_outage(kit: Kit) -> None:
    before = await kit.ask(0)
    kit.answer(probe=TIMED_OUT)
    for number in range(1, LEAST + 1):
        await kit.ask(number)
    assert kit.outbound.out(OutboundService.SMTP)
    after = await kit.ask(0)
    assert (after.status, after.outcome) == (before.status, before.outcome)


# ---------------------------------------------------------------- the resolver


async def test_with_the_resolver_gone_no_domain_is_judged(kit: Kit) -> None:
    kit.answer(mx=NO_ANSWER)
    found = [await kit.ask(number) for number in range(LEAST + 2)]
    assert {item.status for item in found[: LEAST - 1]} == {"4.4.3"}
    for item in found[LEAST - 1 :]:
        assert item.outcome is Outcome.UNKNOWN
        assert "our resolver does not answer" in item.text
    assert kit.shown(OutboundService.DNS) == 0
    kit.answer(mx=FakeSource(kit.clocks).good().script["mx"])
    assert (await kit.ask(LEAST + 3)).outcome is not Outcome.UNKNOWN
    assert kit.shown(OutboundService.DNS) == 1
    assert (await kit.ask(0)).outcome is not Outcome.UNKNOWN


async def test_an_answer_that_there_is_nothing_is_an_answer(kit: Kit) -> None:
    kit.answer(mx=NO_ANSWER)
    kit.source.script["mx nowhere.example"] = MxEvidence(DnsOutcome.NXDOMAIN, expires=0)
    for number in range(LEAST + 2):
        await kit.ask(number)
        await kit.cache.mx("nowhere.example")
    assert kit.shown(OutboundService.DNS) == 1


async def test_names_of_one_zone_fail_together(kit: Kit) -> None:
    for number in range(20):
        kit.outbound.saw_lookup(f"d{number}.broken.example", NO_ANSWER)
    assert not kit.outbound.out(OutboundService.DNS)
