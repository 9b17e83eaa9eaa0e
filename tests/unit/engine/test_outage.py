"""Is it they who are away, or we? No domain is judged by our own outage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from requiretls_milter import config
from requiretls_milter.engine.assessor import Assessor
from requiretls_milter.engine.cache.reachability import MIN_RECHECK_INTERVAL
from requiretls_milter.engine.cache.source import CachedSource
from requiretls_milter.engine.outage import (
    FAILURE_WINDOW,
    IPV6_SETTLING,
    MAX_RESPONDERS,
    MIN_FAILED,
    RECHECKS,
    RESPONDER_LIFE,
    OutageDetector,
    ReachabilityMonitor,
)
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
    ServerTarget,
    TlsaEvidence,
    TlsaRecord,
)
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.counting import Counters, Gauges
from requiretls_milter.telemetry.labels import OutboundService
from tests.support.build import system_trust
from tests.support.fakesource import Clocks, FakeSource

TIMED_OUT = ProbeEvidence("", ProbeStage.CONNECT, ProbeFailure.TIMEOUT, error="timed out")
NO_ROUTE = ProbeEvidence("", ProbeStage.CONNECT, ProbeFailure.UNREACHABLE, error="No route to host")
REFUSED = ProbeEvidence("", ProbeStage.CONNECT, ProbeFailure.REFUSED, error="Connection refused")
HANGS = ProbeEvidence("", ProbeStage.BANNER, ProbeFailure.TIMEOUT, error="timed out")
FORBIDDEN = ProbeEvidence("", ProbeStage.CONNECT, ProbeFailure.FORBIDDEN)
TLSA = TlsaEvidence(
    True, DnsOutcome.FOUND, True, records=(TlsaRecord(3, 1, 1, b"x" * 32),), expires=300
)
"""So that the MTA would connect at all."""

NO_IPV6 = replace(NO_ROUTE, error="Network is unreachable")
NO_ANSWER = MxEvidence(DnsOutcome.ERROR, error="timed out")
RETRY = 60.0
DAY = 86_400.0


class Kit:
    """Cache and assessor over a scripted world in which each domain has a network of its own."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.clocks = Clocks()
        self.store = store or MemoryStore()
        self.source = FakeSource(self.clocks).good()
        self.source.script["tlsa"] = TLSA
        self.gauges = Gauges()
        self.outage = OutageDetector(self.gauges, clocks=self.clocks)
        self.cache = CachedSource(
            self.source,
            self.store,
            config.Config(),
            Counters(),
            authorities="",
            outage=self.outage,
            clocks=self.clocks,
            jitter=lambda: 0.0,
        )
        self.assessor = Assessor(
            config.parse(b'[mta]\ntls_security_level = "dane"\n', "test"),
            self.cache,
            system_trust(),
            Counters(),
            self.gauges,
            clocks=self.clocks,
        )
        for number in range(20):
            self.source.script[f"addresses mx.d{number}.example-{number}.net"] = AddressLookup(
                DnsOutcome.FOUND, True, (f"8.8.{number}.1",), expires=300
            )

    def answer(self, **script: object) -> None:
        self.source.script |= script

    def see(self, found: ProbeEvidence) -> None:
        self.outage.saw_probe(found, ServerTarget(found.address, 25, ""))

    async def ask(self, number: int) -> Forecast:
        return await self.assessor.assess(
            Question(
                f"d{number}.example-{number}.net",
                "smtp",
                Requirement.REQUIRETLS,
                Requirement.REQUIRETLS,
            )
        )

    def restarted(self) -> Kit:
        """Another process in the same world, after this one's end."""
        again = Kit(self.store)
        again.source.script = self.source.script
        return again

    async def ask_all(self, numbers: Iterable[int]) -> list[Forecast]:
        return [await self.ask(number) for number in numbers]

    def servers(self, numbers: Iterable[int], does: ProbeEvidence) -> None:
        """What the servers of some domains do from now on; without this, what all others do."""
        for number in numbers:
            self.source.script[f"probe 8.8.{number}.1 "] = does

    def dual_stack(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            both = (f"8.8.{number}.1", ipv6(number))
            self.source.script[f"addresses mx.d{number}.example-{number}.net"] = AddressLookup(
                DnsOutcome.FOUND, True, both, expires=300
            )

    def ipv6_servers(self, numbers: Iterable[int], does: ProbeEvidence) -> None:
        for number in numbers:
            self.source.script[f"probe {ipv6(number)} "] = does

    def sessions(self, numbers: Iterable[int]) -> int:
        return sum(self.source.calls[f"probe 8.8.{number}.1 "] for number in numbers)

    def shown(self, service: OutboundService) -> float:
        return next(
            value
            for metric, labels, value in self.gauges.items()
            if (metric, labels) == ("outbound_reachable", (service,))
        )


def ipv6(number: int) -> str:
    return f"2606:4700:{number + 1:x}::1"


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    one = Kit()
    yield one
    await one.assessor.close()
    await one.cache.close()


# ---------------------------------------------------------------- the watch


def who(number: int) -> ServerTarget:
    return ServerTarget(f"8.8.{number}.1", 25, "")


class Watched(ReachabilityMonitor):
    """With a network of its own for each number."""

    def __init__(self, settled: tuple[float, ...] = (0.0,)) -> None:
        super().__init__(OutboundService.SMTP, settled)

    def fails(self, number: int, now: float, family: int = 0) -> bool:
        return self.add_failure(f"network {number}", who(number), now, family)

    def answers(self, number: int, now: float = 100.0, family: int = 0) -> bool:
        return self.add_success(f"network {number}", who(number), now, family)


def test_many_failures_are_an_outage_if_no_server_has_ever_answered() -> None:
    watch = Watched()
    begun = [watch.fails(number, 100.0) for number in range(MIN_FAILED + 2)]
    assert begun == [False] * (MIN_FAILED - 1) + [True, False, False]
    assert watch.is_out


def test_it_is_they_where_few_fail_however_often() -> None:
    watch = Watched()
    for moment in range(1000):
        assert not watch.fails(moment % (MIN_FAILED - 1), 100.0 + moment)
    assert not watch.is_out


def test_it_is_they_where_one_succeeds_in_between() -> None:
    watch = Watched()
    for number in range(100):
        assert not watch.fails(number, 100.0)
        if number % (MIN_FAILED - 1) == 0:
            assert not watch.answers(1000)
    assert not watch.is_out
    assert not watch.due_rechecks(100.0, RETRY)


def test_failures_of_long_ago_do_not_count() -> None:
    watch = Watched()
    for number in range(MIN_FAILED - 1):
        watch.fails(number, 100.0)
    assert not watch.fails(1000, 100.0 + FAILURE_WINDOW + 1)
    assert not watch.is_out


def test_one_success_is_the_end_of_an_outage() -> None:
    watch = Watched()
    for number in range(MIN_FAILED):
        watch.fails(number, 100.0)
    assert watch.answers(0)
    assert not watch.is_out
    assert not watch.answers(0)


def doubted() -> Watched:
    """Five networks answered, and then as many others failed."""
    watch = Watched()
    for number in range(MIN_FAILED):
        watch.answers(number)
    for number in range(10, 10 + MIN_FAILED):
        assert not watch.fails(number, 100.0)
    return watch


def test_whoever_answered_lately_is_asked_before_it_is_we() -> None:
    watch = doubted()
    assert not watch.is_out
    targets = watch.due_rechecks(100.0, RETRY)
    assert set(targets) < {who(number) for number in range(MIN_FAILED)}
    assert len(targets) == RECHECKS
    assert watch.rechecked(dict.fromkeys(targets, "timed out"))
    assert watch.is_out


def test_one_answer_will_do() -> None:
    watch = doubted()
    targets = watch.due_rechecks(100.0, RETRY)
    watch.answers(0)
    assert not watch.rechecked(dict.fromkeys(targets[1:], "timed out"))
    assert not watch.is_out
    assert not watch.due_rechecks(100.0 + RETRY, RETRY), "the failures are forgotten"


def test_a_target_that_did_not_time_out_ends_the_suspicion() -> None:
    watch = doubted()
    targets = watch.due_rechecks(100.0, RETRY)
    assert not watch.rechecked(dict.fromkeys(targets[1:], "timed out"))
    assert not watch.is_out


def test_rechecks_that_could_not_be_made_decide_nothing() -> None:
    watch = doubted()
    watch.due_rechecks(100.0, RETRY)
    assert not watch.rechecked({})
    assert not watch.is_out
    assert watch.due_rechecks(100.0 + RETRY, RETRY)


def test_no_server_is_rechecked_without_need_nor_often_nor_always_the_same() -> None:
    watch = doubted()
    first = watch.due_rechecks(100.0, RETRY)
    watch.rechecked(dict.fromkeys(first, "timed out"))
    assert not watch.due_rechecks(100.0 + RETRY - 1, RETRY)
    second = watch.due_rechecks(100.0 + RETRY, RETRY)
    assert set(first) | set(second) == {who(number) for number in range(MIN_FAILED)}


def test_an_answer_of_long_ago_is_none() -> None:
    watch = Watched()
    watch.answers(0, 100.0)
    now = 100.0 + RESPONDER_LIFE + 1
    assert [watch.fails(number, now) for number in range(10, 10 + MIN_FAILED)][-1]


def test_in_an_outage_from_before_the_start_servers_that_failed_are_rechecked() -> None:
    watch = Watched()
    for number in range(MIN_FAILED):
        watch.fails(number, 100.0)
    assert len(watch.due_rechecks(100.0, RETRY)) == RECHECKS


def test_failures_of_ipv6_wait_for_what_ipv4_servers_say() -> None:
    watch = Watched((0.0, IPV6_SETTLING))
    for number in range(20):
        assert not watch.fails(number, 100.0, family=1)
    watch.answers(0, 101.0)
    for number in range(20):
        assert not watch.fails(number, 100.0 + IPV6_SETTLING, family=1)
    assert not watch.is_out


def test_where_there_is_no_ipv4_failures_of_ipv6_are_an_outage_after_a_minute() -> None:
    watch = Watched((0.0, IPV6_SETTLING))
    for number in range(20):
        assert not watch.fails(number, 100.0 + number, family=1)
    assert watch.fails(0, 100.0 + IPV6_SETTLING, family=1)


def test_of_both_families_some_are_asked() -> None:
    watch = Watched((0.0, IPV6_SETTLING))
    watch.answers(0, family=0)
    for number in range(1, MAX_RESPONDERS):
        watch.answers(number, family=1)
    for number in range(10, 10 + MIN_FAILED):
        watch.fails(number, 100.0)
    assert who(0) in watch.due_rechecks(100.0, RETRY)


@given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from(["fails", "answers", "asked"]))))
def test_the_watch_remembers_no_more_than_it_takes(events: list[tuple[int, str]]) -> None:
    watch = Watched((0.0, IPV6_SETTLING))
    for moment, (number, event) in enumerate(events):
        family = number % 2
        if event == "fails":
            watch.fails(number, float(moment), family)
        elif event == "answers":
            watch.answers(number, float(moment), family)
        else:
            assert len(watch.due_rechecks(float(moment), 1.0)) <= RECHECKS
        failed, responders = watch.remembered
        assert failed <= MIN_FAILED
        assert responders <= MAX_RESPONDERS


# ---------------------------------------------------------------- servers


@pytest.mark.parametrize("failure", [TIMED_OUT, NO_ROUTE])
async def test_with_port_25_blocked_no_domain_is_judged(kit: Kit, failure: ProbeEvidence) -> None:
    kit.answer(probe=failure)
    found = [await kit.ask(number) for number in range(MIN_FAILED + 3)]
    assert [item.status for item in found[: MIN_FAILED - 1]] == ["4.4.1"] * (MIN_FAILED - 1)
    for item in found[MIN_FAILED - 1 :]:
        assert item.outcome is Outcome.UNKNOWN
        assert "no mail server can be reached from here" in item.text
    assert (await kit.ask(0)).outcome is Outcome.UNKNOWN
    assert kit.shown(OutboundService.SMTP) == 0
    assert kit.shown(OutboundService.DNS) == 1


async def test_an_outage_is_said_once_loudly_and_its_end_too(kit: Kit) -> None:
    kit.answer(probe=TIMED_OUT)
    with capture_logs() as lines:
        for number in range(2 * MIN_FAILED):
            await kit.ask(number)
        kit.answer(probe=FakeSource(kit.clocks).good().script["probe"])
        for number in range(2 * MIN_FAILED, 2 * MIN_FAILED + 3):
            await kit.ask(number)
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("outbound_unreachable", "error"),
        ("outbound_reachable", "warning"),
    ]


async def test_servers_that_fail_in_an_outage_are_called_again_at_its_end(kit: Kit) -> None:
    kit.answer(probe=TIMED_OUT)
    for number in range(MIN_FAILED):
        await kit.ask(number)
    good = FakeSource(kit.clocks).good().script["probe"]
    kit.answer(probe=good)
    assert (await kit.ask(0)).outcome is Outcome.UNKNOWN, "the last attempt is not over"
    assert (await kit.ask(MIN_FAILED)).outcome is not Outcome.UNKNOWN
    assert kit.shown(OutboundService.SMTP) == 1
    # No retry_after has to pass, nor is a failure from then held against anybody.
    found = [await kit.ask(number) for number in range(MIN_FAILED)]
    assert {item.status for item in found} == {(await kit.ask(MIN_FAILED)).status}


async def test_in_an_outage_pauses_do_not_double(kit: Kit) -> None:
    kit.answer(probe=TIMED_OUT)
    for number in range(MIN_FAILED):
        await kit.ask(number)
    for _ in range(5):
        before = kit.source.calls["probe 8.8.0.1 "]
        kit.clocks.pass_(61)
        await kit.ask(0)
        assert kit.source.calls["probe 8.8.0.1 "] == before + 1


@pytest.mark.parametrize("failure", [REFUSED, HANGS, FORBIDDEN])
async def test_a_failure_that_a_server_caused_is_no_outage_of_ours(
    kit: Kit, failure: ProbeEvidence
) -> None:
    kit.answer(probe=failure)
    found = [await kit.ask(number) for number in range(MIN_FAILED + 3)]
    assert not any("from here" in item.text for item in found)
    assert kit.shown(OutboundService.SMTP) == 1


async def test_servers_of_one_network_are_one_operator(kit: Kit) -> None:
    for number in range(MIN_FAILED + 3):
        found = replace(TIMED_OUT, address=f"8.8.8.{number}")
        kit.see(found)
        kit.see(replace(found, address=f"2606:4700::{number + 1}"))
    assert not kit.outage.is_out(OutboundService.SMTP)


async def test_a_relay_of_our_own_says_nothing_of_the_internet(kit: Kit) -> None:
    inside = ProbeEvidence("10.0.0.1", ProbeStage.DONE)
    for number in range(MIN_FAILED):
        kit.see(replace(TIMED_OUT, address=f"8.8.{number}.1"))
        kit.see(inside)
    assert kit.outage.is_out(OutboundService.SMTP)


async def test_what_is_known_of_a_server_stands_in_an_outage(kit: Kit) -> None:
    before = await kit.ask(0)
    kit.answer(probe=TIMED_OUT)
    await kit.ask_all(range(1, MIN_FAILED + 1))
    await kit.cache.recheck_reachability()
    assert kit.outage.is_out(OutboundService.SMTP)
    after = await kit.ask(0)
    assert (after.status, after.outcome) == (before.status, before.outcome)


# ---------------------------------------------------------------- nobody who is well is called

GOOD = range(10)
DEAD = range(10, 10 + MIN_FAILED)


async def test_dead_servers_beside_good_ones_that_are_kept_are_no_outage(kit: Kit) -> None:
    """Failures are tried again after a minute, successes after an hour."""
    kit.servers(DEAD, TIMED_OUT)
    with capture_logs() as lines:
        await kit.ask_all(GOOD)
        for _ in range(40):
            found = await kit.ask_all(DEAD)
            await kit.cache.recheck_reachability()
            assert {item.status for item in found} == {"4.4.1"}
            assert not any("from here" in item.text for item in await kit.ask_all(GOOD))
            assert kit.shown(OutboundService.SMTP) == 1
            kit.clocks.pass_(61)
    assert lines == []


async def test_rechecks_put_little_load_on_the_servers(kit: Kit) -> None:
    kit.servers(DEAD, TIMED_OUT)
    await kit.ask_all(GOOD)
    before = kit.sessions(GOOD)
    ends = kit.clocks.monotonic() + 3000  # less than the good ones are kept
    while kit.clocks.monotonic() < ends:
        for number in DEAD:
            await kit.cache.probe(
                ServerTarget(f"8.8.{number}.1", 25, ""), since=kit.clocks.monotonic()
            )
        await kit.cache.recheck_reachability()
        kit.clocks.pass_(5)
    calls = [kit.sessions([number]) - 1 for number in GOOD]
    assert 0 < kit.sessions(GOOD) - before <= RECHECKS * 3000 / MIN_RECHECK_INTERVAL
    assert max(calls) <= 1.5 * sum(calls) / MAX_RESPONDERS


async def test_whoever_is_asked_is_called_past_all_that_is_kept(kit: Kit) -> None:
    await kit.ask_all(GOOD)
    kit.answer(probe=TIMED_OUT)
    await kit.ask_all(DEAD)
    before = kit.sessions(GOOD)
    await kit.cache.recheck_reachability()
    assert kit.sessions(GOOD) == before + RECHECKS
    await kit.ask_all(GOOD)
    assert kit.sessions(GOOD) == before + RECHECKS, "and what is kept stands"


async def test_an_outage_is_declared_when_no_server_answers_that_did_before(kit: Kit) -> None:
    await kit.ask_all(GOOD)
    kit.answer(probe=NO_ROUTE)
    with capture_logs() as lines:
        assert {item.status for item in await kit.ask_all(DEAD)} == {"4.4.1"}
        assert kit.shown(OutboundService.SMTP) == 1
        await kit.cache.recheck_reachability()
    assert [(line["event"], line["error"]) for line in lines] == [
        ("outbound_unreachable", "No route to host")
    ]
    assert kit.shown(OutboundService.SMTP) == 0
    assert {item.outcome for item in await kit.ask_all(DEAD)} == {Outcome.UNKNOWN}


async def test_an_outage_ends_by_itself_while_all_successes_are_kept(kit: Kit) -> None:
    good = kit.source.script["probe"]
    await kit.ask_all(GOOD)
    kit.answer(probe=TIMED_OUT)
    await kit.ask_all(DEAD)
    await kit.cache.recheck_reachability()
    for _ in range(10):
        kit.clocks.pass_(MIN_RECHECK_INTERVAL)
        await kit.cache.recheck_reachability()
        assert kit.shown(OutboundService.SMTP) == 0
    kit.answer(probe=good)
    kit.clocks.pass_(MIN_RECHECK_INTERVAL - 1)
    await kit.cache.recheck_reachability()
    assert kit.shown(OutboundService.SMTP) == 0, "not yet"
    kit.clocks.pass_(1)
    await kit.cache.recheck_reachability()
    assert kit.shown(OutboundService.SMTP) == 1
    assert Outcome.UNKNOWN not in {item.outcome for item in await kit.ask_all(DEAD)}


async def test_an_outage_that_was_there_before_us_ends_by_itself(kit: Kit) -> None:
    good = kit.source.script["probe"]
    kit.answer(probe=TIMED_OUT)
    await kit.ask_all(DEAD)
    kit.answer(probe=good)
    await kit.cache.recheck_reachability()
    assert kit.shown(OutboundService.SMTP) == 1


async def test_without_any_suspicion_no_server_is_rechecked(kit: Kit) -> None:
    await kit.ask_all(GOOD)
    before = kit.source.calls.total()
    await kit.cache.recheck_reachability()
    assert kit.source.calls.total() == before


async def test_servers_that_another_process_reached_are_rechecked_after_a_restart(kit: Kit) -> None:
    kit.servers(DEAD, TIMED_OUT)
    await kit.ask_all(GOOD)
    again = kit.restarted()
    await again.ask_all(GOOD)
    assert again.sessions(GOOD) == 0
    await again.ask_all(DEAD)
    await again.cache.recheck_reachability()
    assert again.sessions(GOOD) == RECHECKS
    assert again.shown(OutboundService.SMTP) == 1


async def test_a_mistake_while_asking_declares_nothing_and_is_told(kit: Kit) -> None:
    await kit.ask_all(GOOD)
    kit.answer(probe=TIMED_OUT)
    await kit.ask_all(DEAD)
    kit.source.error = ZeroDivisionError()
    with capture_logs() as lines:
        await kit.cache.recheck_reachability()
    assert [line["event"] for line in lines] == ["evidence_failed"] * RECHECKS
    assert kit.shown(OutboundService.SMTP) == 1
    kit.source.error = None
    kit.clocks.pass_(MIN_RECHECK_INTERVAL)
    await kit.cache.recheck_reachability()
    assert kit.shown(OutboundService.SMTP) == 0


# ---------------------------------------------------------------- IPv6 alone


async def test_a_host_without_ipv6_is_not_cut_off(kit: Kit) -> None:
    everybody = range(20)
    kit.dual_stack(everybody)
    kit.ipv6_servers(everybody, NO_IPV6)
    for number in everybody:  # told at once, while IPv4 servers take their time
        kit.see(replace(NO_IPV6, address=ipv6(number)))
    with capture_logs() as lines:
        for _ in range(40):
            found = await kit.ask_all(everybody)
            await kit.cache.recheck_reachability()
            assert not any("from here" in item.text for item in found)
            assert kit.shown(OutboundService.SMTP) == 1
            kit.clocks.pass_(61)
    assert lines == []
    assert kit.sessions(everybody) == 20, "nor does anybody have to be asked"


async def test_an_outage_of_ipv6_alone_is_none_and_soon_not_even_asked_about(kit: Kit) -> None:
    everybody = range(20)
    kit.dual_stack(everybody)
    await kit.ask_all(everybody)
    kit.ipv6_servers(everybody, NO_IPV6)
    asked = []
    for _ in range(40):
        for number in everybody:
            await kit.cache.probe(ServerTarget(ipv6(number), 25, ""), since=kit.clocks.monotonic())
        before = kit.sessions(everybody)
        await kit.cache.recheck_reachability()
        asked.append(kit.sessions(everybody) - before)
        assert kit.shown(OutboundService.SMTP) == 1
        kit.clocks.pass_(61)
    assert 0 < sum(asked) <= RECHECKS * MAX_RESPONDERS
    assert not any(asked[len(asked) // 2 :]), "nobody is left who ever answered over IPv6"


# ---------------------------------------------------------------- the resolver


async def test_with_the_resolver_gone_no_domain_is_judged(kit: Kit) -> None:
    kit.answer(mx=NO_ANSWER)
    found = [await kit.ask(number) for number in range(MIN_FAILED + 2)]
    assert {item.status for item in found[: MIN_FAILED - 1]} == {"4.4.3"}
    for item in found[MIN_FAILED - 1 :]:
        assert item.outcome is Outcome.UNKNOWN
        assert "our resolver does not answer" in item.text
    assert kit.shown(OutboundService.DNS) == 0
    kit.answer(mx=FakeSource(kit.clocks).good().script["mx"])
    assert (await kit.ask(MIN_FAILED + 3)).outcome is not Outcome.UNKNOWN
    assert kit.shown(OutboundService.DNS) == 1
    assert (await kit.ask(0)).outcome is not Outcome.UNKNOWN


async def test_an_answer_that_there_is_nothing_is_an_answer(kit: Kit) -> None:
    kit.answer(mx=NO_ANSWER)
    kit.source.script["mx nowhere.example"] = MxEvidence(DnsOutcome.NXDOMAIN, expires=0)
    for number in range(MIN_FAILED + 2):
        await kit.ask(number)
        await kit.cache.mx("nowhere.example")
    assert kit.shown(OutboundService.DNS) == 1


async def test_names_of_one_zone_fail_together(kit: Kit) -> None:
    for number in range(20):
        kit.outage.saw_lookup(f"d{number}.broken.example", NO_ANSWER)
    assert not kit.outage.is_out(OutboundService.DNS)


async def test_dead_zones_beside_good_ones_that_are_kept_are_no_outage(kit: Kit) -> None:
    kit.source.script["mx"] = MxEvidence(DnsOutcome.FOUND, True, expires=DAY)
    for number in DEAD:
        kit.source.script[f"mx d{number}.example-{number}.net"] = NO_ANSWER
    for number in GOOD:
        await kit.cache.mx(f"d{number}.example-{number}.net")
    for _ in range(40):
        assert {item.status for item in await kit.ask_all(DEAD)} == {"4.4.3"}
        await kit.cache.recheck_reachability()
        assert kit.shown(OutboundService.DNS) == 1
        kit.clocks.pass_(61)


async def test_the_resolver_is_gone_when_no_name_is_answered_that_was_before(kit: Kit) -> None:
    good = MxEvidence(DnsOutcome.FOUND, True, expires=DAY)
    kit.answer(mx=good)
    names = [f"d{number}.example-{number}.net" for number in GOOD]
    for name in names:
        await kit.cache.mx(name)
    kit.answer(mx=NO_ANSWER)
    await kit.ask_all(DEAD)
    assert kit.shown(OutboundService.DNS) == 1
    await kit.cache.recheck_reachability()
    assert kit.shown(OutboundService.DNS) == 0
    assert {item.outcome for item in await kit.ask_all(DEAD)} == {Outcome.UNKNOWN}
    kit.answer(mx=good)
    kit.clocks.pass_(MIN_RECHECK_INTERVAL)
    await kit.cache.recheck_reachability()
    assert kit.shown(OutboundService.DNS) == 1
    assert sum(kit.source.calls[f"mx {name}"] for name in names) > len(names)


async def test_a_name_is_asked_for_what_it_was_asked_before(kit: Kit) -> None:
    await kit.cache.addresses("mx.example.net")
    kit.answer(mx=NO_ANSWER)
    await kit.ask_all(DEAD)
    await kit.cache.recheck_reachability()
    assert kit.source.calls["addresses mx.example.net"] == 2
    assert kit.source.calls["mx mx.example.net"] == 0
    assert kit.shown(OutboundService.DNS) == 1


@pytest.mark.parametrize("name", ["192.0.2.1", "2001:db8::1", "no domain", ""])
async def test_what_no_resolver_is_asked_is_no_answer_of_it(kit: Kit, name: str) -> None:
    for number in range(MIN_FAILED):
        kit.outage.saw_lookup(f"d{number}.example-{number}.net", NO_ANSWER)
        kit.outage.saw_lookup(name, AddressLookup(DnsOutcome.NXDOMAIN))
    assert kit.outage.is_out(OutboundService.DNS)


# ---------------------------------------------------------------- budgets

OVER_BUDGET = ProbeEvidence("", error="over budget", expires=0)


async def test_a_server_that_may_not_be_asked_now_neither_proves_nor_ends_an_outage(
    kit: Kit,
) -> None:
    await kit.ask_all(GOOD)
    kit.answer(probe=TIMED_OUT)
    await kit.ask_all(DEAD)
    kit.answer(probe=OVER_BUDGET)
    await kit.cache.recheck_reachability()
    assert kit.shown(OutboundService.SMTP) == 1, "none could be asked"
    kit.clocks.pass_(MIN_RECHECK_INTERVAL)
    kit.answer(probe=TIMED_OUT)
    kit.servers(range(2, 8), OVER_BUDGET)
    await kit.cache.recheck_reachability()
    kit.clocks.pass_(MIN_RECHECK_INTERVAL)
    await kit.cache.recheck_reachability()
    kit.clocks.pass_(MIN_RECHECK_INTERVAL)
    await kit.cache.recheck_reachability()
    assert kit.shown(OutboundService.SMTP) == 0, "all that could be asked are unreachable"
    kit.answer(probe=OVER_BUDGET)
    kit.clocks.pass_(MIN_RECHECK_INTERVAL)
    await kit.cache.recheck_reachability()
    assert kit.shown(OutboundService.SMTP) == 0


async def test_names_that_may_not_be_asked_say_nothing_of_the_resolver(kit: Kit) -> None:
    kit.answer(mx=MxEvidence(DnsOutcome.ERROR, error="over budget", unasked=True))
    found = await kit.ask_all(range(2 * MIN_FAILED))
    assert {item.outcome for item in found} == {Outcome.UNKNOWN}
    assert kit.shown(OutboundService.DNS) == 1


async def test_what_another_name_of_an_address_met_before_ends_no_outage(kit: Kit) -> None:
    kit.answer(probe=TIMED_OUT)
    await kit.ask_all(DEAD)
    assert kit.shown(OutboundService.SMTP) == 0
    earlier = ProbeEvidence("", ProbeStage.DONE, starttls_offered=False, expires=3600)
    kit.source.probed_ago = 30.0
    kit.servers([1], earlier)
    await kit.ask(1)
    assert kit.shown(OutboundService.SMTP) == 0
    kit.source.probed_ago = 0.0
    kit.servers([2], earlier)
    await kit.ask(2)
    assert kit.shown(OutboundService.SMTP) == 1
