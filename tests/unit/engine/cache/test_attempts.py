"""Failed attempts: what stands until when, what is tried again when, and over a restart."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from structlog.types import EventDict

from requiretls_milter.engine.cache.source import JITTER, CachedSource
from requiretls_milter.engine.outage import MIN_FAILED
from requiretls_milter.engine.records import encode_attempt
from requiretls_milter.evidence.probe import FRESH
from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    MtaStsEvidence,
    MxEvidence,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reply,
    ServerTarget,
    TlsaEvidence,
)
from requiretls_milter.store.base import StoreKind
from requiretls_milter.telemetry.labels import OutboundService
from tests.support.cachekit import ADDRESSES, RETRY_AFTER, CacheKit

SESSION = ProbeEvidence("", ProbeStage.DONE, starttls_offered=True, requiretls=True, expires=FRESH)
ATTEMPT = StoreKind.ATTEMPT
RETRY = RETRY_AFTER
NOTHING = MtaStsEvidence(expires=300)


@pytest.fixture
def kit() -> CacheKit:
    return CacheKit()


FAILURES: list[tuple[str, Any, Callable[[CachedSource], Awaitable[Any]]]] = [
    ("mx", MxEvidence(DnsOutcome.ERROR, error="SERVFAIL"), lambda c: c.mx("a")),
    ("addresses", AddressLookup(DnsOutcome.ERROR), lambda c: c.addresses("a")),
    (
        "addresses",
        AddressLookup(DnsOutcome.FOUND, alias_error=True),
        lambda c: c.addresses("a"),
    ),
    ("tlsa", TlsaEvidence(True, DnsOutcome.ERROR), lambda c: c.tlsa("a", 25, ADDRESSES)),
    ("mta_sts", MtaStsEvidence(error="timed out"), lambda c: c.mta_sts("a")),
    *(
        (
            "probe",
            ProbeEvidence("", stage, ProbeFailure.TIMEOUT),
            lambda c: c.probe(ServerTarget("192.0.2.1", 25, "a")),
        )
        for stage in ProbeStage
        if stage not in (ProbeStage.NOT_PROBED, ProbeStage.DONE)
    ),
    (
        "probe",
        ProbeEvidence("", ProbeStage.DONE, starttls_reply=Reply(454)),
        lambda c: c.probe(ServerTarget("192.0.2.1", 25, "a")),
    ),
    (
        "probe",
        ProbeEvidence("", ProbeStage.DONE, only_opportunistic="handshake failure"),
        lambda c: c.probe(ServerTarget("192.0.2.1", 25, "a")),
    ),
]


@pytest.mark.parametrize(("kind", "failure", "ask"), FAILURES)
async def test_r61_a_failed_attempt_stands_for_retry_after_and_is_not_repeated(
    kit: CacheKit, kind: str, failure: Any, ask: Callable[[CachedSource], Awaitable[Any]]
) -> None:
    kit.source.script[kind] = failure
    first = await ask(kit.cache)
    assert first.expires == kit.clocks.wall() + RETRY
    for _ in range(20):
        kit.clocks.pass_(RETRY / 20 - 0.01)
        assert await ask(kit.cache) == first
    assert sum(kit.source.calls.values()) == 1
    kit.clocks.pass_(1)
    await ask(kit.cache)
    assert sum(kit.source.calls.values()) == 2
    layer = "domain" if kind in ("mx", "mta_sts") else "host"
    assert kit.count("cache_requests_total", layer, "recently_failed") == 20


async def test_r61_the_pause_doubles_to_fifteen_minutes(kit: CacheKit) -> None:
    kit.source.script["mx"] = MxEvidence(DnsOutcome.ERROR)
    pauses = []
    for _ in range(7):
        found = await kit.cache.mx("a")
        pauses.append(found.expires - kit.clocks.wall())
        kit.clocks.pass_(pauses[-1])
    assert pauses == [60, 120, 240, 480, 900, 900, 900]


async def test_the_pause_begins_anew_after_a_success_and_after_a_long_time(kit: CacheKit) -> None:
    failure, success = MxEvidence(DnsOutcome.ERROR), kit.source.script["mx"]
    for between in (success, None):
        kit.source.script["mx"] = failure
        for expected in (60, 120):
            found = await kit.cache.mx("a")
            assert found.expires - kit.clocks.wall() == expected
            kit.clocks.pass_(expected)
        if between is not None:
            kit.source.script["mx"] = between
            assert (await kit.cache.mx("a")).outcome is DnsOutcome.FOUND
            kit.clocks.pass_(301)
        else:
            kit.clocks.pass_(10_000)
            assert (await kit.cache.mx("a")).expires - kit.clocks.wall() == 60


async def test_a_pause_has_jitter_which_only_prolongs(kit: CacheKit) -> None:
    kit.random = 1.0
    kit.source.script["mx"] = MxEvidence(DnsOutcome.ERROR)
    found = await kit.cache.mx("a")
    assert found.expires == pytest.approx(kit.clocks.wall() + RETRY * (1 + JITTER))


async def test_a_source_that_asks_for_a_longer_pause_gets_it(kit: CacheKit) -> None:
    kit.source.script["mta_sts"] = MtaStsEvidence(error="HTTP status 500", expires=300)
    found = await kit.cache.mta_sts("a")
    assert found.expires == kit.clocks.wall() + 300


@pytest.mark.parametrize(
    "answer",
    [
        ProbeEvidence("", ProbeStage.DONE, starttls_offered=False, expires=3600),
        ProbeEvidence("", ProbeStage.DONE, starttls_reply=Reply(554), expires=3600),
        ProbeEvidence("", failure=ProbeFailure.FORBIDDEN, expires=3600),
        ProbeEvidence("", error="probe.enabled is false", expires=3600),
    ],
)
async def test_what_a_server_answers_for_good_is_no_failed_attempt(
    kit: CacheKit, answer: ProbeEvidence
) -> None:
    kit.source.script["probe"] = answer
    found = await kit.cache.probe(ServerTarget("192.0.2.1", 25, "a"))
    assert found.expires == kit.clocks.wall() + 3600


async def test_r21_an_error_after_good_evidence_is_the_evidence_and_not_hidden(
    kit: CacheKit,
) -> None:
    await kit.cache.tlsa("a", 25, ADDRESSES)
    kit.clocks.pass_(301)
    kit.source.script["tlsa"] = TlsaEvidence(True, DnsOutcome.ERROR, error="SERVFAIL")
    assert (await kit.cache.tlsa("a", 25, ADDRESSES)).outcome is DnsOutcome.ERROR


# ---------------------------------------------------------------- over a restart

FAILED = ProbeEvidence("", ProbeStage.CONNECT, failure=ProbeFailure.REFUSED, expires=60)


async def test_r61_a_restart_is_no_reason_to_call_a_server_again_that_has_just_failed(
    kit: CacheKit,
) -> None:
    """Else a service that comes up again and again knocks as often at every server in trouble."""
    kit.source.script["probe"] = FAILED
    before = await kit.probe()
    for _ in range(5):
        kit.clocks.pass_(10)
        kit = kit.restarted()
        kit.source.script["probe"] = FAILED
        after = await kit.probe()
        assert (after.stage, after.failure) == (before.stage, before.failure)
        assert after.expires == before.expires  # not one second more for it
        assert kit.sessions == 0
    assert kit.count("cache_requests_total", "host", "recently_failed") == 1
    kit.clocks.pass_(11)
    again = await kit.probe()
    assert kit.sessions == 1
    assert again.expires == kit.clocks.wall() + 120  # twice as long as before the restarts


async def test_r61_a_pause_goes_on_doubling_over_a_restart(kit: CacheKit) -> None:
    kit.source.script["probe"] = FAILED
    await kit.probe()
    kit.clocks.pass_(300)
    kit = kit.restarted()
    kit.source.script["probe"] = FAILED
    found = await kit.probe()
    assert kit.sessions == 1
    assert found.expires == kit.clocks.wall() + 120


async def test_after_a_success_nothing_of_the_failure_is_left(kit: CacheKit) -> None:
    kit.source.script["probe"] = FAILED
    await kit.probe()
    kit.clocks.pass_(61)
    kit.source.script["probe"] = SESSION
    good = await kit.probe()
    assert await kit.store.listing(ATTEMPT, kit.clocks.wall()) == []
    kit = kit.restarted()
    assert await kit.probe() == good
    assert kit.sessions == 0


async def test_whoever_asks_for_a_fresh_look_is_not_held_back_by_a_failure_of_before(
    kit: CacheKit,
) -> None:
    kit.source.script["probe"] = FAILED
    await kit.probe()
    kit = kit.restarted()
    assert (await kit.probe(since=0.0)).stage is ProbeStage.DONE
    assert kit.sessions == 1


async def test_in_a_fleet_a_failure_is_its_own_affair(kit: CacheKit) -> None:
    """The network of one milter may be to blame."""
    kit.source.script["probe"] = FAILED
    await kit.probe()
    other = CacheKit(kit.store, node="other.example.net")
    assert (await other.probe()).stage is ProbeStage.DONE


async def test_in_an_outage_of_our_own_no_failure_outlives_the_process(kit: CacheKit) -> None:
    kit.source.script["probe"] = replace(FAILED, failure=ProbeFailure.TIMEOUT)
    for number in range(MIN_FAILED):
        await kit.cache.probe(ServerTarget(f"198.{number}.100.1", 25, "mx.a.example"))
    assert kit.cache.outage.is_out(OutboundService.SMTP)
    await kit.probe()
    kit = kit.restarted()
    assert (await kit.probe()).stage is ProbeStage.DONE


async def test_a_failure_of_an_earlier_version_is_dropped_without_complaint(
    kit: CacheKit, logged: list[EventDict]
) -> None:
    """An upgrade is no damage, and it does not tell a refusal from a network without a way."""
    now = kit.clocks.wall()
    failed = replace(FAILED, address="192.0.2.1", probed_at=now, expires=now + 60)
    value = encode_attempt(failed, 60.0).replace(b'"v":2', b'"v":1')
    await kit.store.put(ATTEMPT, "192.0.2.1 25 mx.a.example@", value, now + 1000, now)
    assert (await kit.probe()).stage is ProbeStage.DONE
    assert kit.count("store_errors_total", "decode") == 0
    assert logged == []


async def test_a_failure_from_a_store_that_cannot_be_true_is_none(kit: CacheKit) -> None:
    now = kit.clocks.wall()
    failed = replace(FAILED, address="192.0.2.1", probed_at=now, expires=now + 10**9)
    value = encode_attempt(failed, 10**9)
    await kit.store.put(ATTEMPT, "192.0.2.1 25 mx.a.example@", value, now + 1000, now)
    assert (await kit.probe()).stage is ProbeStage.DONE
    assert kit.count("store_errors_total", "decode") == 1


# ---------------------------------------------------------------- budgets

WHY = "over budget: limits.x"
UNASKED: list[tuple[str, Any, Callable[[CachedSource], Awaitable[Any]]]] = [
    ("mx", MxEvidence(DnsOutcome.ERROR, error=WHY, unasked=True), lambda c: c.mx("a")),
    (
        "addresses",
        AddressLookup(DnsOutcome.ERROR, error=WHY, unasked=True),
        lambda c: c.addresses("a"),
    ),
    (
        "tlsa",
        TlsaEvidence(True, DnsOutcome.ERROR, error=WHY, unasked=True),
        lambda c: c.tlsa("a", 25, ADDRESSES),
    ),
    ("mta_sts", MtaStsEvidence(error=WHY, unasked=True), lambda c: c.mta_sts("a")),
    ("probe", ProbeEvidence("", error=WHY), lambda c: c.probe(ServerTarget("192.0.2.1", 25, "a"))),
]


@pytest.mark.parametrize(("kind", "unasked", "ask"), UNASKED)
async def test_a_question_that_was_not_put_begins_no_pause(
    kit: CacheKit, kind: str, unasked: Any, ask: Callable[[CachedSource], Awaitable[Any]]
) -> None:
    good = kit.source.script[kind]
    kit.source.script[kind] = unasked
    for _ in range(3):
        assert WHY in (await ask(kit.cache)).error
    kit.source.script[kind] = good
    assert not (await ask(kit.cache)).error


@pytest.mark.parametrize(("kind", "unasked", "ask"), UNASKED)
async def test_the_next_pause_after_a_failure_doubles_whatever_was_not_asked_in_between(
    kit: CacheKit, kind: str, unasked: Any, ask: Callable[[CachedSource], Awaitable[Any]]
) -> None:
    failure = next(one for name, one, _ in FAILURES if name == kind)
    kit.source.script[kind] = failure
    await ask(kit.cache)
    kit.clocks.pass_(RETRY + 1)
    kit.source.script[kind] = unasked
    await ask(kit.cache)
    kit.source.script[kind] = failure
    assert (await ask(kit.cache)).expires == kit.clocks.wall() + 2 * RETRY


async def test_a_policy_that_may_not_be_fetched_anew_now_still_applies(kit: CacheKit) -> None:
    kit.publish()
    await kit.cache.mta_sts("a.example")
    kit.clocks.pass_(2 * 86_400)
    kit.source.script["mta_sts"] = MtaStsEvidence(error=WHY, unasked=True)
    found = await kit.cache.mta_sts("a.example")
    assert found.policy is not None
    assert not found.unasked
    assert kit.count("mta_sts_fetches_total", "failed") == 0
