"""The life of MTA-STS policies: fetched, checked, refreshed, and kept to the end."""

from __future__ import annotations

import asyncio
import itertools
import tracemalloc
from dataclasses import replace

import pytest
from structlog.types import EventDict

from requiretls_milter.engine.cache import policies as module
from requiretls_milter.engine.cache.fleet import Fleet
from requiretls_milter.engine.cache.policies import (
    FIRST_REFRESH_PAUSE,
    LAST_REFRESH_PAUSE,
    LISTED_OCTETS,
    MAX_REFRESHES,
    POLICY_IDLE,
    POLICY_REFRESH,
    REFRESH_INTERVAL,
    REFRESH_PART,
    SHORT_LIVED,
    Policies,
)
from requiretls_milter.engine.cache.source import JITTER
from requiretls_milter.engine.records import encode_policy
from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.evidence.mta_sts import StsRecord
from requiretls_milter.evidence.probe import FRESH
from requiretls_milter.evidence.turns import BusyError
from requiretls_milter.model import (
    MtaStsEvidence,
    MtaStsMode,
    MtaStsPolicy,
    ProbeEvidence,
    ProbeStage,
)
from requiretls_milter.store.base import StoreKind
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.counting import Counters
from tests.support.cachekit import DAY, POLICY, RECORD_TTL, RETRY_AFTER, CacheKit
from tests.support.memory import long_name, measured
from tests.support.waiting import until

SESSION = ProbeEvidence("", ProbeStage.DONE, starttls_offered=True, requiretls=True, expires=FRESH)
ATTEMPT = StoreKind.ATTEMPT
RETRY = RETRY_AFTER
NOTHING = MtaStsEvidence(expires=300)


@pytest.fixture
def kit() -> CacheKit:
    return CacheKit()


async def test_r53_a_policy_is_revalidated_by_its_id_when_the_record_ends(kit: CacheKit) -> None:
    kit.publish()
    first = await kit.cache.mta_sts("a")
    assert first.expires == kit.clocks.wall() + RECORD_TTL
    kit.clocks.pass_(RECORD_TTL)
    again = await kit.cache.mta_sts("a")
    assert again.policy == POLICY
    assert again.fetched_at == first.fetched_at
    assert kit.source.calls["record a"] == 1
    assert kit.source.calls["mta_sts a"] == 1
    assert kit.count("mta_sts_fetches_total", "policy") == 1


async def test_r53_a_record_that_lives_for_hours_is_not_asked_for_before(kit: CacheKit) -> None:
    kit.publish()
    for kind in ("mta_sts", "record"):
        kit.source.script[kind] = replace(kit.source.script[kind], expires=7_200)
    await kit.cache.mta_sts("a")
    kit.clocks.pass_(7_199)
    assert (await kit.cache.mta_sts("a")).policy == POLICY
    assert kit.source.calls["record a"] == 0
    kit.clocks.pass_(1)
    await kit.cache.mta_sts("a")
    assert (kit.source.calls["record a"], kit.source.calls["mta_sts a"]) == (1, 1)


async def test_a_domain_without_a_policy_is_asked_again_when_the_answer_ends(kit: CacheKit) -> None:
    kit.source.script["mta_sts"] = MtaStsEvidence(expires=3_600)
    await kit.cache.mta_sts("a")
    kit.clocks.pass_(3_599)
    await kit.cache.mta_sts("a")
    assert kit.fetches == 1
    kit.clocks.pass_(1)
    await kit.cache.mta_sts("a")
    assert kit.fetches == 2


async def test_r53_a_new_id_fetches_the_new_policy(kit: CacheKit) -> None:
    kit.publish()
    await kit.cache.mta_sts("a")
    kit.clocks.pass_(RECORD_TTL)
    new = replace(POLICY, mx=("other.a",), id="id2")
    kit.publish(new)
    assert (await kit.cache.mta_sts("a")).policy == new
    assert kit.source.calls["mta_sts a"] == 2


async def test_r53_a_policy_is_fetched_anew_each_day_whatever_its_id(kit: CacheKit) -> None:
    kit.publish()
    await kit.cache.mta_sts("a")
    kit.clocks.pass_(POLICY_REFRESH)
    await kit.cache.mta_sts("a")
    assert kit.source.calls["mta_sts a"] == 2


async def test_r52_a_policy_that_cannot_be_fetched_any_more_applies_until_max_age(
    kit: CacheKit,
) -> None:
    kit.publish()
    await kit.cache.mta_sts("a")
    kit.source.script["record"] = StsRecord("id2", expires=300)
    kit.source.script["mta_sts"] = MtaStsEvidence(error="HTTP status 500", expires=300)
    kit.clocks.pass_(RECORD_TTL)
    found = await kit.cache.mta_sts("a")
    assert found.policy == POLICY
    assert found.error == "HTTP status 500"
    assert found.expires == kit.clocks.wall() + 300  # no fetch for five minutes
    kit.clocks.pass_(POLICY.max_age)
    assert (await kit.cache.mta_sts("a")).policy is None


async def test_r52_a_policy_that_cannot_be_renewed_ends_with_its_max_age_to_the_second(
    kit: CacheKit,
) -> None:
    """However long the pause until the next attempt would be."""
    kit.random = 1.0
    kit.publish()
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
    kit: CacheKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.publish()
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


async def test_r52_r58_a_policy_whose_record_has_vanished_applies_with_a_warning(
    kit: CacheKit,
) -> None:
    kit.publish()
    await kit.cache.mta_sts("a")
    kit.source.script["record"] = StsRecord(expires=300)
    kit.source.script["mta_sts"] = NOTHING
    kit.clocks.pass_(RECORD_TTL)
    found = await kit.cache.mta_sts("a")
    assert found.policy == POLICY
    assert "no MTA-STS record any more" in found.error


async def test_r52_a_record_that_cannot_be_looked_up_does_not_end_a_policy(kit: CacheKit) -> None:
    kit.publish()
    await kit.cache.mta_sts("a")
    kit.source.script["record"] = StsRecord(error="SERVFAIL")
    kit.source.script["mta_sts"] = MtaStsEvidence(error="SERVFAIL")
    kit.clocks.pass_(RECORD_TTL)
    assert (await kit.cache.mta_sts("a")).policy == POLICY


async def test_r49_a_policy_with_max_age_zero_is_for_this_attempt_only(kit: CacheKit) -> None:
    kit.publish()
    await kit.cache.mta_sts("a")
    kit.clocks.pass_(POLICY_REFRESH)
    kit.publish(replace(POLICY, max_age=0))
    assert (await kit.cache.mta_sts("a")).policy is not None
    kit.source.script["mta_sts"] = NOTHING
    assert (await kit.cache.mta_sts("a")).policy is None


async def test_a_policy_of_mode_none_replaces_the_one_before(kit: CacheKit) -> None:
    kit.publish()
    await kit.cache.mta_sts("a")
    kit.clocks.pass_(RECORD_TTL)
    none = MtaStsPolicy(MtaStsMode.NONE, (), 86400, "id2")
    kit.publish(none)
    assert (await kit.cache.mta_sts("a")).policy == none


async def test_a_kept_policy_outlives_the_cache_in_the_store(kit: CacheKit) -> None:
    kit.publish()
    await kit.cache.mta_sts("a")
    other = CacheKit(kit.store, clocks=kit.clocks)
    other.source.script["mta_sts"] = NOTHING
    other.source.script["record"] = StsRecord(expires=300)
    kit.clocks.pass_(10)
    assert (await other.cache.mta_sts("a")).policy == POLICY


@pytest.mark.parametrize(
    ("found", "result"),
    [
        (MtaStsEvidence(POLICY, expires=300), "policy"),
        (MtaStsEvidence(expires=300), "none"),
        (MtaStsEvidence(error="x"), "failed"),
    ],
)
async def test_looks_at_policies_are_counted(
    kit: CacheKit, found: MtaStsEvidence, result: str
) -> None:
    kit.source.script["mta_sts"] = found
    await kit.cache.mta_sts("a")
    assert kit.count("mta_sts_fetches_total", result) == 1


# ---------------------------------------------------------------- over a restart


async def test_r52_a_policy_outlives_restarts_while_dns_and_https_are_gone(
    kit: CacheKit, logged: list[EventDict]
) -> None:
    kit.publish()
    await kit.cache.mta_sts("a.example")
    for _ in range(6):
        kit.clocks.pass_(DAY)
        kit = kit.restarted()
        kit.source.script["record"] = StsRecord(error="SERVFAIL", expires=60)
        kit.source.script["mta_sts"] = MtaStsEvidence(error="SERVFAIL", expires=60)
        found = await kit.cache.mta_sts("a.example")
        assert found.policy == POLICY
        assert found.error == "SERVFAIL"
        assert kit.refreshes("failed") == 1
    assert {entry["event"] for entry in logged} == {"policy_not_renewed"}
    assert {entry["log_level"] for entry in logged} == {"warning"}
    kit.clocks.pass_(DAY)
    assert (await kit.restarted().cache.mta_sts("a.example")).policy is None


async def test_r52_a_policy_of_mode_none_that_is_not_renewed_raises_no_alarm(
    kit: CacheKit, logged: list[EventDict]
) -> None:
    kit.publish(replace(POLICY, mode=MtaStsMode.NONE, mx=()))
    await kit.cache.mta_sts("a.example")
    kit.withhold()
    kit.clocks.pass_(RECORD_TTL)
    await kit.cache.mta_sts("a.example")
    assert [entry["log_level"] for entry in logged] == ["info"]


async def test_r58_a_policy_that_vanishes_is_kept_told_and_counted(
    kit: CacheKit, logged: list[EventDict]
) -> None:
    kit.publish()
    await kit.cache.mta_sts("a.example")
    kit.source.script["record"] = StsRecord(expires=300)
    kit.source.script["mta_sts"] = MtaStsEvidence(expires=300)
    kit.clocks.pass_(RECORD_TTL)
    assert (await kit.cache.mta_sts("a.example")).vanished
    assert kit.refreshes("vanished") == 1
    assert "no MTA-STS record any more" in logged[0]["error"]


# ---------------------------------------------------------------- the background pass


async def test_r53_a_policy_is_fetched_anew_each_day_without_any_mail(kit: CacheKit) -> None:
    kit.publish(replace(POLICY, max_age=2 * 86400))
    await kit.cache.mta_sts("a.example")
    for _ in range(20):
        kit.clocks.pass_(DAY)
        kit = kit.restarted()
        kit.publish(replace(POLICY, max_age=2 * 86400))
        await kit.cache.refresh_policies()
        await kit.cache.refresh_policies()
        assert kit.fetches == 1
        assert kit.refreshes("renewed") == 1
    assert (
        await kit.store.get(StoreKind.MTA_STS_POLICY, "a.example", kit.clocks.wall())
    ) is not None


async def test_r53_not_all_policies_are_fetched_anew_at_the_same_hour(kit: CacheKit) -> None:
    kit.publish()
    domains = [f"d{number}.example" for number in range(200)]
    for domain in domains:
        await kit.cache.mta_sts(domain)
    kit.clocks.pass_(POLICY_REFRESH * (1 - JITTER))
    done: list[int] = []
    while len(done) < 10:
        await kit.cache.refresh_policies()
        done.append(kit.fetches - 200)
        kit.clocks.pass_(POLICY_REFRESH * JITTER / 9)
    assert done[0] < 5
    assert done[-1] == 200
    assert all(5 < later - earlier < 50 for earlier, later in itertools.pairwise(done))


@pytest.mark.parametrize("max_age", [SHORT_LIVED, 3600, DAY / 2, DAY, 1.5 * DAY, 30 * DAY])
async def test_r53_every_policy_is_fetched_anew_well_before_its_end(
    kit: CacheKit, max_age: float
) -> None:
    """And not much more often than that takes: there is time left to try again."""
    kit.publish(replace(POLICY, max_age=int(max_age)))
    domains = [f"d{number}.example" for number in range(30)]
    for domain in domains:
        await kit.cache.mta_sts(domain)
    begun = kit.clocks.wall()
    left = []
    while kit.clocks.wall() < begun + 3 * max(min(max_age, DAY), 2 * REFRESH_INTERVAL):
        kit.clocks.pass_(REFRESH_INTERVAL)
        listed = await kit.store.listing(StoreKind.MTA_STS_POLICY, kit.clocks.wall())
        assert len(listed) == len(domains)
        left += [one.keep_until - kit.clocks.wall() for one in listed]
        await kit.cache.refresh_policies()
    period = min(DAY, REFRESH_PART * max_age)
    assert min(left) >= max_age - period - REFRESH_INTERVAL
    most = (kit.clocks.wall() - begun) / (period * (1 - JITTER)) + 1
    assert kit.fetches <= most * len(domains)


async def test_a_policy_of_some_minutes_is_fetched_when_mail_needs_it(kit: CacheKit) -> None:
    kit.publish(replace(POLICY, max_age=int(SHORT_LIVED) - 1))
    await kit.cache.mta_sts("a.example")
    kit.clocks.pass_(SHORT_LIVED - 100)
    await kit.cache.refresh_policies()
    assert kit.fetches == 1
    await kit.cache.mta_sts("a.example")  # the same id, and it is half over
    assert kit.fetches == 2


async def test_policies_that_end_first_are_fetched_anew_first(
    kit: CacheKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REFRESHES", 1)
    for days in (9, 3, 6):
        kit.publish(replace(POLICY, max_age=days * 86400))
        await kit.cache.mta_sts(f"days-{days}.example")
    kit.clocks.pass_(DAY)
    for days in (3, 6, 9):
        await kit.cache.refresh_policies()
        assert kit.source.calls[f"mta_sts days-{days}.example"] == 2


async def test_a_policy_that_no_mail_has_asked_for_in_a_month_is_left_to_its_max_age(
    kit: CacheKit,
) -> None:
    kit.publish()
    await kit.cache.mta_sts("a.example")
    days = 0
    while True:
        kit.clocks.pass_(DAY)
        days += 1
        kit = kit.restarted()  # which does not make it asked for
        kit.publish()
        await kit.cache.refresh_policies()
        if kit.fetches == 0:
            break
    assert days == POLICY_IDLE / DAY + 1
    await kit.cache.mta_sts("a.example")  # mail asks again
    kit.clocks.pass_(DAY)
    kit = kit.restarted()
    kit.publish()
    await kit.cache.refresh_policies()
    assert kit.fetches == 1


async def test_a_refresh_that_fails_is_tried_less_and_less_often(
    kit: CacheKit, logged: list[EventDict]
) -> None:
    kit.publish()
    await kit.cache.mta_sts("a.example")
    kit.clocks.pass_(DAY)
    kit.withhold()
    tries = []
    for minute in range(0, 48 * 60, 10):
        before = kit.fetches
        await kit.cache.refresh_policies()
        if kit.fetches > before:
            tries.append(minute * 60)
        kit.clocks.pass_(600)
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert pauses[0] == FIRST_REFRESH_PAUSE
    assert pauses == sorted(pauses)
    assert pauses[-1] == LAST_REFRESH_PAUSE
    assert kit.refreshes("failed") == len(tries) == len(logged) < 15
    kit.publish()
    kit.clocks.pass_(LAST_REFRESH_PAUSE)
    await kit.cache.refresh_policies()
    assert kit.refreshes("renewed") == 1


async def test_few_policies_are_fetched_anew_at_once_and_many_one_after_another(
    kit: CacheKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.publish()
    for number in range(30):
        await kit.cache.mta_sts(f"d{number}.example")
    kit.clocks.pass_(DAY)
    kit.source.gate = asyncio.Event()
    monkeypatch.setattr(module, "MAX_REFRESHES", 20)
    task = asyncio.create_task(kit.cache.refresh_policies())
    await until(lambda: kit.fetches >= 30 + module.REFRESHES)
    await kit.idle()
    assert kit.fetches == 30 + module.REFRESHES
    kit.source.gate.set()
    await task
    assert kit.fetches == 30 + 20


async def test_a_mistake_in_one_refresh_does_not_end_the_others(
    kit: CacheKit, logged: list[EventDict]
) -> None:
    kit.publish()
    for number in range(5):
        await kit.cache.mta_sts(f"d{number}.example")
    kit.clocks.pass_(DAY)
    kit.source.error = ZeroDivisionError()
    await kit.cache.refresh_policies()
    assert len([entry for entry in logged if entry["event"] == "evidence_failed"]) == 5
    kit.source.error = None
    await kit.cache.refresh_policies()
    assert kit.refreshes("renewed") == 5


async def test_a_refresh_outlives_a_cache_that_is_closed_under_it(kit: CacheKit) -> None:
    kit.publish()
    await kit.cache.mta_sts("a.example")
    kit.clocks.pass_(DAY)
    kit.source.gate = asyncio.Event()
    task = asyncio.create_task(kit.cache.refresh_policies())
    await until(lambda: kit.cache.in_flight == 1)
    await kit.cache.close()
    await asyncio.wait_for(task, 1)  # the engine goes on with another cache


async def test_what_is_remembered_of_policies_takes_no_more_memory_than_is_promised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When mail asked for each, whatever names strangers send it to, and which failed."""
    promised = 1 << 20
    for name in ("MAX_WANTED_OCTETS", "MAX_PAUSES_OCTETS"):
        monkeypatch.setattr(f"requiretls_milter.engine.cache.policies.{name}", promised // 2)
    kit = CacheKit(store=MemoryStore())
    counters, clocks = Counters(), kit.clocks
    records = RecordStore(kit.store, counters)
    policies = Policies(
        kit.source,
        records,
        Fleet(kit.store, counters, lambda: 0.0),
        counters,
        clocks,
        scope="#0123456789abcdef",
        max_domains=20_000,
    )

    async def store_policies() -> None:
        for number in range(1_500):
            value = encode_policy(POLICY, clocks.wall(), clocks.wall())
            key, until = long_name(number) + "#0123456789abcdef", clocks.wall() + POLICY.max_age
            await records.write(StoreKind.MTA_STS_POLICY, key, value, until, clocks.wall())

    async def fails(domain: str) -> MtaStsEvidence:
        return MtaStsEvidence(error="timed out")

    async def is_busy(domain: str) -> MtaStsEvidence:
        raise BusyError("too much is under way")

    with measured() as taken:
        await store_policies()
        clocks.pass_(2 * POLICY_REFRESH)
        stored = taken()
        tracemalloc.reset_peak()
        await policies.refresh_due(is_busy)
        _, peak = tracemalloc.get_traced_memory()
        # The tasks of a pass are a thousand at most, whatever is listed.
        assert peak - stored < 1_500 * LISTED_OCTETS + MAX_REFRESHES * 6_000
        stored = taken()
        for number in range(3_000):
            clocks.pass_(0.001)
            policies.note_wanted(long_name(number))
        for _ in range(2):  # a thousand in each pass
            await policies.refresh_due(fails)
        kept = taken() - stored
    assert 0.5 * promised < kept <= promised
