"""Two layers of evidence: what lives how long, what is tried again when, what is asked once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from requiretls_milter.config import Limits
from requiretls_milter.engine.cache import (
    JITTER,
    MAX_LIFE,
    POLICY_GRACE,
    POLICY_REFRESH,
    BusyError,
    CachedSource,
)
from requiretls_milter.evidence.mta_sts import StsRecord
from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    MtaStsEvidence,
    MtaStsMode,
    MtaStsPolicy,
    MxEvidence,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reply,
    TlsaEvidence,
    TlsaRecord,
)
from requiretls_milter.store.base import StoreError, StoreKind
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Layer
from tests.support.fakesource import Clocks, FakeSource

RETRY = 60.0
ADDRESSES = AddressLookup(DnsOutcome.FOUND, True, ("192.0.2.1",), "mx.a.example")


class Kit:
    """A cache over a scripted source, with clocks that stand still."""

    def __init__(self, **options: Any) -> None:
        self.clocks = Clocks()
        self.source = FakeSource(self.clocks).good()
        self.counters = Counters()
        self.store = MemoryStore()
        self.random = 0.0
        self.cache = CachedSource(
            self.source,
            store=self.store,
            retry_after=RETRY,
            counters=self.counters,
            wall=self.clocks.wall,
            monotonic=self.clocks.monotonic,
            jitter=lambda: self.random,
            **options,
        )

    def count(self, metric: str, *labels: str) -> float:
        found = {(m, ls): value for m, ls, value in self.counters.totals().counters}
        return found.get((metric, labels), 0.0)


@pytest.fixture
def kit() -> Kit:
    return Kit()


async def test_what_was_found_is_kept_for_its_ttl_and_no_longer(kit: Kit) -> None:
    first = await kit.cache.mx("a.example")
    kit.clocks.pass_(299)
    assert await kit.cache.mx("a.example") == first
    assert kit.source.calls["mx a.example"] == 1
    kit.clocks.pass_(1)
    await kit.cache.mx("a.example")
    assert kit.source.calls["mx a.example"] == 2
    assert kit.count("cache_requests_total", "domain", "hit") == 1
    assert kit.count("cache_requests_total", "domain", "miss") == 2


async def test_r61_expiry_has_jitter_which_only_shortens(kit: Kit) -> None:
    kit.random = 1.0
    found = await kit.cache.mx("a.example")
    life = 300 * (1 - JITTER)
    assert found.expires == pytest.approx(kit.clocks.wall() + life)
    kit.clocks.pass_(life - 1)
    await kit.cache.mx("a.example")
    assert kit.source.calls["mx a.example"] == 1
    kit.clocks.pass_(1.1)
    await kit.cache.mx("a.example")
    assert kit.source.calls["mx a.example"] == 2


async def test_what_has_no_life_is_not_kept(kit: Kit) -> None:
    kit.source.script["mx"] = MxEvidence(DnsOutcome.FOUND, expires=0)
    await kit.cache.mx("a.example")
    await kit.cache.mx("a.example")
    assert kit.source.calls["mx a.example"] == 2
    assert kit.cache.entries()[Layer.DOMAIN] == 0


async def test_nothing_is_kept_for_longer_than_a_day(kit: Kit) -> None:
    kit.source.script["mx"] = MxEvidence(DnsOutcome.FOUND, expires=10 * MAX_LIFE)
    found = await kit.cache.mx("a.example")
    assert found.expires == kit.clocks.wall() + MAX_LIFE


async def test_r61_a_clock_that_goes_backwards_does_not_extend_life(kit: Kit) -> None:
    found = await kit.cache.mx("a.example")
    kit.clocks.wall_time -= 10_000
    kit.clocks.monotonic_time += 200
    again = await kit.cache.mx("a.example")
    assert kit.source.calls["mx a.example"] == 1
    # Whoever builds on it must not keep it for longer either.
    assert again.expires == kit.clocks.wall() + 100
    assert again == replace(found, expires=again.expires)
    kit.clocks.monotonic_time += 100
    await kit.cache.mx("a.example")
    assert kit.source.calls["mx a.example"] == 2


async def test_a_clock_that_jumps_ahead_ends_life(kit: Kit) -> None:
    await kit.cache.mx("a.example")
    kit.clocks.wall_time += 10_000
    await kit.cache.mx("a.example")
    assert kit.source.calls["mx a.example"] == 2


# ---------------------------------------------------------------- layers


async def test_r59_domains_that_share_a_host_share_its_evidence_and_no_policy(kit: Kit) -> None:
    policy = MtaStsPolicy(MtaStsMode.ENFORCE, ("mx.example",), 86400, "1")
    kit.source.script["mta_sts a.example"] = MtaStsEvidence(policy, expires=86400)
    for domain in ("a.example", "b.example"):
        found = await kit.cache.mta_sts(domain)
        assert (found.policy is not None) == (domain == "a.example")
        await kit.cache.addresses("mx.example")
        await kit.cache.tlsa("mx.example", 25, ADDRESSES)
        await kit.cache.probe("192.0.2.1", 25, "mx.example")
    assert kit.source.calls["addresses mx.example"] == 1
    assert kit.source.calls["tlsa mx.example:25"] == 1
    assert kit.source.calls["probe 192.0.2.1 mx.example"] == 1
    assert kit.source.calls["mta_sts b.example"] == 1
    assert kit.cache.entries() == {Layer.HOST: 3, Layer.DOMAIN: 2}


async def test_evidence_is_kept_apart_by_all_that_it_depends_on(kit: Kit) -> None:
    insecure = replace(ADDRESSES, secure=False)
    await kit.cache.tlsa("mx.example", 25, ADDRESSES)
    await kit.cache.tlsa("mx.example", 25, insecure)
    await kit.cache.tlsa("mx.example", 587, ADDRESSES)
    await kit.cache.tlsa("mx.example", 25, replace(ADDRESSES, canonical="other.example"))
    await kit.cache.tlsa("mx.example", 25, replace(insecure, alias_secure=True))
    await kit.cache.tlsa("mx.example", 25, replace(insecure, alias_error=True))
    assert kit.source.calls["tlsa mx.example:25"] == 5
    assert kit.source.calls["tlsa mx.example:587"] == 1
    await kit.cache.tlsa("mx.example", 25, replace(ADDRESSES, expires=1.0))
    assert sum(kit.source.calls.values()) == 6
    for name in ("mx.example", "other.example"):
        await kit.cache.probe("192.0.2.1", 25, name)
    assert kit.source.calls["probe 192.0.2.1 other.example"] == 1


async def test_each_layer_is_bounded_and_the_least_used_goes_first() -> None:
    kit = Kit(limits=Limits().model_copy(update={"host_cache": 2, "domain_cache": 3}))
    for name in ("a", "b", "c", "a", "d"):
        await kit.cache.mx(name)
        await kit.cache.addresses(name)
    assert kit.cache.entries() == {Layer.HOST: 2, Layer.DOMAIN: 3}
    before = sum(kit.source.calls.values())
    await kit.cache.mx("a")
    assert sum(kit.source.calls.values()) == before
    await kit.cache.mx("b")
    assert sum(kit.source.calls.values()) == before + 1


async def test_servers_and_zones_that_say_much_cannot_fill_the_memory() -> None:
    """A chain may have 100 KiB; all entries of a layer together have 8 KiB each at most."""
    kit = Kit(limits=Limits().model_copy(update={"host_cache": 100, "domain_cache": 100}))
    script = kit.source.script
    script["probe"] = replace(script["probe"], chain=(bytes(60_000), bytes(40_000)))
    script["tlsa"] = replace(script["tlsa"], records=(TlsaRecord(3, 0, 0, bytes(60_000)),))
    patterns = tuple(f"{number}.example" for number in range(1000))
    script["mta_sts"] = MtaStsEvidence(
        MtaStsPolicy(MtaStsMode.ENFORCE, patterns, 86_400, "1"), expires=86_400
    )
    for number in range(90):
        name = f"{number}.example"
        await kit.cache.probe("192.0.2.1", 25, name)
        await kit.cache.tlsa(name, 25, ADDRESSES)
        await kit.cache.mta_sts(name)
    assert kit.cache.entries() == {Layer.HOST: 10, Layer.DOMAIN: 5}
    assert kit.count("saturated_total", "host_cache") == 170
    script["probe"] = replace(script["probe"], chain=(bytes(4_000),))
    for number in range(95):
        await kit.cache.probe("192.0.2.2", 25, f"{number}.example")
    assert kit.cache.entries()[Layer.HOST] >= 95


# ---------------------------------------------------------------- temporary failures

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
            lambda c: c.probe("192.0.2.1", 25, "a"),
        )
        for stage in ProbeStage
        if stage not in (ProbeStage.NOT_PROBED, ProbeStage.DONE)
    ),
    (
        "probe",
        ProbeEvidence("", ProbeStage.DONE, starttls_reply=Reply(454)),
        lambda c: c.probe("192.0.2.1", 25, "a"),
    ),
    (
        "probe",
        ProbeEvidence("", ProbeStage.DONE, only_opportunistic="handshake failure"),
        lambda c: c.probe("192.0.2.1", 25, "a"),
    ),
]


@pytest.mark.parametrize(("kind", "failure", "ask"), FAILURES)
async def test_r61_a_failed_attempt_stands_for_retry_after_and_is_not_repeated(
    kit: Kit, kind: str, failure: Any, ask: Callable[[CachedSource], Awaitable[Any]]
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
    assert kit.count("cache_requests_total", layer, "held") == 20


async def test_r61_the_pause_doubles_to_fifteen_minutes(kit: Kit) -> None:
    kit.source.script["mx"] = MxEvidence(DnsOutcome.ERROR)
    pauses = []
    for _ in range(7):
        found = await kit.cache.mx("a")
        pauses.append(found.expires - kit.clocks.wall())
        kit.clocks.pass_(pauses[-1])
    assert pauses == [60, 120, 240, 480, 900, 900, 900]


async def test_the_pause_begins_anew_after_a_success_and_after_a_long_time(kit: Kit) -> None:
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


async def test_a_pause_has_jitter_which_only_prolongs(kit: Kit) -> None:
    kit.random = 1.0
    kit.source.script["mx"] = MxEvidence(DnsOutcome.ERROR)
    found = await kit.cache.mx("a")
    assert found.expires == pytest.approx(kit.clocks.wall() + RETRY * (1 + JITTER))


async def test_a_source_that_asks_for_a_longer_pause_gets_it(kit: Kit) -> None:
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
    kit: Kit, answer: ProbeEvidence
) -> None:
    kit.source.script["probe"] = answer
    found = await kit.cache.probe("192.0.2.1", 25, "a")
    assert found.expires == kit.clocks.wall() + 3600


async def test_r21_an_error_after_good_evidence_is_the_evidence_and_not_hidden(kit: Kit) -> None:
    await kit.cache.tlsa("a", 25, ADDRESSES)
    kit.clocks.pass_(301)
    kit.source.script["tlsa"] = TlsaEvidence(True, DnsOutcome.ERROR, error="SERVFAIL")
    assert (await kit.cache.tlsa("a", 25, ADDRESSES)).outcome is DnsOutcome.ERROR


# ---------------------------------------------------------------- single flight


async def test_r60_what_many_want_at_once_is_looked_for_once(kit: Kit) -> None:
    kit.source.gate = asyncio.Event()
    tasks = [asyncio.create_task(kit.cache.probe("192.0.2.1", 25, "a")) for _ in range(100)]
    await asyncio.sleep(0)
    assert kit.cache.in_flight == 1
    kit.source.gate.set()
    results = await asyncio.gather(*tasks)
    assert len(set(results)) == 1
    assert kit.source.calls["probe 192.0.2.1 a"] == 1
    assert kit.count("cache_requests_total", "host", "joined") == 99
    assert kit.count("probes_total", "done") == 1
    assert kit.cache.in_flight == 0


async def test_r60_who_is_cancelled_does_not_take_the_flight_from_the_others(kit: Kit) -> None:
    kit.source.gate = asyncio.Event()
    first, second = (asyncio.create_task(kit.cache.mx("a")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    kit.source.gate.set()
    assert (await second).outcome is DnsOutcome.FOUND
    assert kit.source.calls["mx a"] == 1


async def test_a_flight_whose_callers_are_all_gone_still_fills_the_cache(kit: Kit) -> None:
    kit.source.gate = asyncio.Event()
    task = asyncio.create_task(kit.cache.mx("a"))
    await asyncio.sleep(0)
    task.cancel()
    kit.source.gate.set()
    await asyncio.sleep(0.01)
    await kit.cache.mx("a")
    assert kit.source.calls["mx a"] == 1
    assert kit.count("cache_requests_total", "domain", "hit") == 1


async def test_a_mistake_of_ours_reaches_those_who_wait_and_is_not_kept(kit: Kit) -> None:
    kit.source.error = RuntimeError("a mistake")
    results = await asyncio.gather(kit.cache.mx("a"), kit.cache.mx("a"), return_exceptions=True)
    assert [str(result) for result in results] == ["a mistake", "a mistake"]
    kit.source.error = None
    assert (await kit.cache.mx("a")).outcome is DnsOutcome.FOUND


async def test_a_mistake_that_nobody_waits_for_is_told_all_the_same(
    kit: Kit, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    kit.source.gate = asyncio.Event()
    kit.source.error = RuntimeError("a mistake")
    task = asyncio.create_task(kit.cache.mx("a"))
    await asyncio.sleep(0)
    task.cancel()
    kit.source.gate.set()
    with caplog.at_level(logging.ERROR, "asyncio"):
        await asyncio.sleep(0.01)
    assert caplog.records == []  # nothing is left for asyncio to complain of
    captured = capsys.readouterr()
    assert "evidence_failed" in captured.out + captured.err


async def test_a_flight_that_never_lands_is_ended() -> None:
    kit = Kit(limits=Limits(flight_timeout=0.05))
    kit.source.gate = asyncio.Event()
    with pytest.raises(TimeoutError):
        await kit.cache.mx("a")
    assert kit.cache.in_flight == 0
    assert kit.count("saturated_total", "flight_timeout") == 1


async def test_there_is_an_end_to_how_much_is_under_way() -> None:
    kit = Kit(limits=Limits(flights=3))
    kit.source.gate = asyncio.Event()
    tasks = [asyncio.create_task(kit.cache.mx(f"{number}")) for number in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(BusyError):
        await kit.cache.mx("one-more")
    joined = asyncio.create_task(kit.cache.mx("1"))  # no flight of its own
    kit.source.gate.set()
    await asyncio.gather(*tasks, joined)


async def test_closing_ends_what_is_under_way(kit: Kit) -> None:
    kit.source.gate = asyncio.Event()
    task = asyncio.create_task(kit.cache.mx("a"))
    await asyncio.sleep(0)
    await kit.cache.close()
    assert kit.cache.in_flight == 0
    with pytest.raises(asyncio.CancelledError):
        await task


# ---------------------------------------------------------------- looking again


async def test_a_fresh_look_takes_nothing_from_before_and_is_kept_for_all(kit: Kit) -> None:
    await kit.cache.mx("a")
    kit.clocks.pass_(1)
    since = kit.clocks.monotonic()
    await kit.cache.mx("a", since=since)
    await kit.cache.mx("a", since=since)
    assert kit.source.calls["mx a"] == 2
    await kit.cache.mx("a")
    assert kit.source.calls["mx a"] == 2


async def test_a_fresh_look_does_not_wait_for_the_pause_after_a_failure(kit: Kit) -> None:
    kit.source.script["probe"] = ProbeEvidence("", ProbeStage.CONNECT, ProbeFailure.REFUSED)
    await kit.cache.probe("192.0.2.1", 25, "a")
    kit.clocks.pass_(1)
    await kit.cache.probe("192.0.2.1", 25, "a", since=kit.clocks.monotonic())
    assert kit.source.calls["probe 192.0.2.1 a"] == 2


async def test_a_fresh_look_covers_every_kind(kit: Kit) -> None:
    cache, since = kit.cache, kit.clocks.monotonic()
    assert await cache.mta_sts("a", since=since) == await cache.mta_sts("a")
    assert await cache.addresses("a", since=since) == await cache.addresses("a")
    fresh = await cache.tlsa("a", 25, ADDRESSES, since=since)
    assert fresh == await cache.tlsa("a", 25, ADDRESSES)


# ---------------------------------------------------------------- MTA-STS

POLICY = MtaStsPolicy(MtaStsMode.ENFORCE, ("mx.a",), 7 * 86400, "id1")
NOTHING = MtaStsEvidence(expires=300)


def publish(kit: Kit, policy: MtaStsPolicy = POLICY) -> None:
    kit.source.script["mta_sts"] = MtaStsEvidence(policy, expires=policy.max_age)
    kit.source.script["record"] = StsRecord(policy.id, expires=300)


async def test_r53_a_policy_is_revalidated_by_its_id_after_a_short_grace(kit: Kit) -> None:
    publish(kit)
    first = await kit.cache.mta_sts("a")
    assert first.expires == kit.clocks.wall() + POLICY_GRACE
    kit.clocks.pass_(POLICY_GRACE)
    again = await kit.cache.mta_sts("a")
    assert again.policy == POLICY
    assert again.fetched_at == first.fetched_at
    assert kit.source.calls["record a"] == 1
    assert kit.source.calls["mta_sts a"] == 1
    assert kit.count("mta_sts_fetches_total", "policy") == 1


async def test_r53_a_new_id_fetches_the_new_policy(kit: Kit) -> None:
    publish(kit)
    await kit.cache.mta_sts("a")
    kit.clocks.pass_(POLICY_GRACE)
    new = replace(POLICY, mx=("other.a",), id="id2")
    publish(kit, new)
    assert (await kit.cache.mta_sts("a")).policy == new
    assert kit.source.calls["mta_sts a"] == 2


async def test_r53_a_policy_is_fetched_anew_each_day_whatever_its_id(kit: Kit) -> None:
    publish(kit)
    await kit.cache.mta_sts("a")
    kit.clocks.pass_(POLICY_REFRESH)
    await kit.cache.mta_sts("a")
    assert kit.source.calls["mta_sts a"] == 2


async def test_r52_a_policy_that_cannot_be_fetched_any_more_applies_until_max_age(
    kit: Kit,
) -> None:
    publish(kit)
    await kit.cache.mta_sts("a")
    kit.source.script["record"] = StsRecord("id2", expires=300)
    kit.source.script["mta_sts"] = MtaStsEvidence(error="HTTP status 500", expires=300)
    kit.clocks.pass_(POLICY_GRACE)
    found = await kit.cache.mta_sts("a")
    assert found.policy == POLICY
    assert found.error == "HTTP status 500"
    assert found.expires == kit.clocks.wall() + 300  # no fetch for five minutes
    kit.clocks.pass_(POLICY.max_age)
    assert (await kit.cache.mta_sts("a")).policy is None


async def test_r52_a_policy_that_cannot_be_renewed_ends_with_its_max_age_to_the_second(
    kit: Kit,
) -> None:
    """However long the pause until the next attempt would be."""
    kit.random = 1.0
    publish(kit)
    first = await kit.cache.mta_sts("a")
    ends = first.fetched_at + POLICY.max_age
    kit.source.script["record"] = StsRecord(error="SERVFAIL")
    kit.source.script["mta_sts"] = MtaStsEvidence(error="SERVFAIL")
    for left in (100, 70, 1):  # the pause goes on doubling
        kit.clocks.pass_(ends - left - kit.clocks.wall())
        found = await kit.cache.mta_sts("a")
        assert found.policy == POLICY
        assert found.expires <= ends
    kit.clocks.pass_(1)
    assert (await kit.cache.mta_sts("a")).policy is None


async def test_r52_a_policy_that_ends_while_it_is_fetched_anew_is_not_served(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(kit)
    first = await kit.cache.mta_sts("a")
    kit.source.script["record"] = StsRecord(error="SERVFAIL")
    fetch = kit.source.mta_sts

    async def slow(domain: str) -> MtaStsEvidence:
        kit.clocks.pass_(30)
        return await fetch(domain)

    monkeypatch.setattr(kit.source, "mta_sts", slow)
    kit.source.script["mta_sts"] = MtaStsEvidence(error="timed out", expires=300)
    kit.clocks.pass_(first.fetched_at + POLICY.max_age - 1 - kit.clocks.wall())
    found = await kit.cache.mta_sts("a")
    assert (found.policy, found.error) == (None, "timed out")
    before = kit.source.calls["mta_sts a"]
    kit.clocks.pass_(200)
    assert (await kit.cache.mta_sts("a")).policy is None
    assert kit.source.calls["mta_sts a"] == before  # no fetch for five minutes


async def test_r52_r58_a_policy_whose_record_has_vanished_applies_with_a_warning(kit: Kit) -> None:
    publish(kit)
    await kit.cache.mta_sts("a")
    kit.source.script["record"] = StsRecord(expires=300)
    kit.source.script["mta_sts"] = NOTHING
    kit.clocks.pass_(POLICY_GRACE)
    found = await kit.cache.mta_sts("a")
    assert found.policy == POLICY
    assert "no MTA-STS record any more" in found.error


async def test_r52_a_record_that_cannot_be_looked_up_does_not_end_a_policy(kit: Kit) -> None:
    publish(kit)
    await kit.cache.mta_sts("a")
    kit.source.script["record"] = StsRecord(error="SERVFAIL")
    kit.source.script["mta_sts"] = MtaStsEvidence(error="SERVFAIL")
    kit.clocks.pass_(POLICY_GRACE)
    assert (await kit.cache.mta_sts("a")).policy == POLICY


async def test_r49_a_policy_with_max_age_zero_is_for_this_attempt_only(kit: Kit) -> None:
    publish(kit)
    await kit.cache.mta_sts("a")
    kit.clocks.pass_(POLICY_REFRESH)
    publish(kit, replace(POLICY, max_age=0))
    assert (await kit.cache.mta_sts("a")).policy is not None
    kit.source.script["mta_sts"] = NOTHING
    assert (await kit.cache.mta_sts("a")).policy is None


async def test_a_policy_of_mode_none_replaces_the_one_before(kit: Kit) -> None:
    publish(kit)
    await kit.cache.mta_sts("a")
    kit.clocks.pass_(POLICY_GRACE)
    none = MtaStsPolicy(MtaStsMode.NONE, (), 86400, "id2")
    publish(kit, none)
    assert (await kit.cache.mta_sts("a")).policy == none


async def test_a_kept_policy_outlives_the_cache_in_the_store(kit: Kit) -> None:
    publish(kit)
    await kit.cache.mta_sts("a")
    other = Kit()
    other.clocks, other.source.script["mta_sts"] = kit.clocks, NOTHING
    cache = CachedSource(
        other.source,
        store=kit.store,
        retry_after=RETRY,
        counters=Counters(),
        wall=kit.clocks.wall,
        monotonic=kit.clocks.monotonic,
    )
    other.source.script["record"] = StsRecord(expires=300)
    kit.clocks.pass_(10)
    assert (await cache.mta_sts("a")).policy == POLICY


async def test_a_store_that_fails_is_a_store_that_knows_nothing(kit: Kit) -> None:
    class Broken(MemoryStore):
        async def get(self, kind: StoreKind, key: str, now: float) -> bytes | None:
            raise StoreError("unreadable")

        async def put(self, *_: Any) -> None:
            raise StoreError("full")

    class Garbled(MemoryStore):
        async def get(self, kind: StoreKind, key: str, now: float) -> bytes | None:
            return b'{"policy": 7}'

    publish(kit)
    for store in (Broken(), Garbled()):
        kit.cache._store = store
        assert (await kit.cache.mta_sts("a", since=kit.clocks.monotonic())).policy == POLICY
        kit.clocks.pass_(POLICY_GRACE)


@pytest.mark.parametrize(
    ("found", "result"),
    [
        (MtaStsEvidence(POLICY, expires=300), "policy"),
        (MtaStsEvidence(expires=300), "none"),
        (MtaStsEvidence(error="x"), "failed"),
    ],
)
async def test_looks_at_policies_are_counted(kit: Kit, found: MtaStsEvidence, result: str) -> None:
    kit.source.script["mta_sts"] = found
    await kit.cache.mta_sts("a")
    assert kit.count("mta_sts_fetches_total", result) == 1


@pytest.mark.parametrize(
    ("found", "result"),
    [
        (ProbeEvidence("", ProbeStage.CONNECT, ProbeFailure.REFUSED), "connect_failed"),
        (ProbeEvidence("", ProbeStage.BANNER, ProbeFailure.TIMEOUT), "banner_failed"),
        (ProbeEvidence("", ProbeStage.EHLO, ProbeFailure.CLOSED), "ehlo_failed"),
        (ProbeEvidence("", ProbeStage.STARTTLS, ProbeFailure.CLOSED), "starttls_failed"),
        (ProbeEvidence("", ProbeStage.HANDSHAKE, ProbeFailure.PROTOCOL), "handshake_failed"),
        (ProbeEvidence("", ProbeStage.EHLO_TLS, ProbeFailure.REPLY), "ehlo_tls_failed"),
        (ProbeEvidence("", ProbeStage.DONE), "done"),
        (ProbeEvidence("", failure=ProbeFailure.FORBIDDEN), "forbidden"),
    ],
)
async def test_probes_are_counted_by_where_they_ended(
    kit: Kit, found: ProbeEvidence, result: str
) -> None:
    kit.source.script["probe"] = found
    await kit.cache.probe("192.0.2.1", 25, "a")
    assert kit.count("probes_total", result) == 1


async def test_a_probe_that_was_not_made_is_not_counted(kit: Kit) -> None:
    kit.source.script["probe"] = ProbeEvidence("", error="probe.enabled is false")
    await kit.cache.probe("192.0.2.1", 25, "a")
    assert all(metric != "probes_total" for metric, _, _ in kit.counters.totals().counters)
