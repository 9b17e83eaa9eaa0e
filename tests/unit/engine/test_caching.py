"""What the cache takes from the store and gives to it: sessions, policies, and refreshing these."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import Any

import pytest
from structlog.typing import EventDict

from requiretls_milter.engine import cache as module
from requiretls_milter.engine.cache import (
    FIRST_REFRESH_PAUSE,
    JITTER,
    LAST_REFRESH_PAUSE,
    POLICY_GRACE,
    POLICY_IDLE,
    POLICY_REFRESH,
    REFRESH_INTERVAL,
    REFRESH_PART,
    SHORT_LIVED,
    CachedSource,
)
from requiretls_milter.engine.outage import LEAST
from requiretls_milter.engine.records import Scopes, encode_attempt
from requiretls_milter.evidence.mta_sts import StsRecord
from requiretls_milter.evidence.probe import FRESH
from requiretls_milter.model import (
    MtaStsEvidence,
    MtaStsMode,
    MtaStsPolicy,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reply,
)
from requiretls_milter.store.base import StoreKind
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import OutboundService
from tests.support.fakesource import Clocks, FakeSource
from tests.support.stores import POLICY, PROBE, counted

SESSION = ProbeEvidence("", ProbeStage.DONE, starttls_offered=True, requiretls=True, expires=FRESH)
RULES = MtaStsPolicy(MtaStsMode.ENFORCE, ("mx.a.example",), 7 * 86400, "id1")
DAY = 86_400.0
ATTEMPT = StoreKind.ATTEMPT
NONE = Scopes()


class Engine:
    """One engine's cache over a scripted source; several may have one store and one time."""

    def __init__(
        self,
        store: MemoryStore,
        clocks: Clocks | None = None,
        scopes: Scopes = NONE,
        node: str = "",
    ) -> None:
        self.store = store
        self.clocks = clocks or Clocks()
        self.source = FakeSource(self.clocks).good()
        self.source.script["probe"] = SESSION
        self.counters = Counters()
        self.cache = CachedSource(
            self.source,
            store=store,
            retry_after=60,
            counters=self.counters,
            scopes=scopes,
            node=node,
            wall=self.clocks.wall,
            monotonic=self.clocks.monotonic,
            jitter=lambda: 0.0,
        )

    def restarted(self, scopes: Scopes = NONE) -> Engine:
        """Another process, after this one's end."""
        clocks = Clocks()
        clocks.wall_time, clocks.monotonic_time = self.clocks.wall_time, 7.0
        return Engine(self.store, clocks, scopes)

    async def probe(self, **options: Any) -> ProbeEvidence:
        return await self.cache.probe("192.0.2.1", 25, "mx.a.example", **options)

    @property
    def sessions(self) -> int:
        return sum(n for call, n in self.source.calls.items() if call.startswith("probe "))

    @property
    def fetches(self) -> int:
        return sum(n for call, n in self.source.calls.items() if call.startswith("mta_sts "))

    def publish(self, policy: MtaStsPolicy = RULES) -> None:
        self.source.script["mta_sts"] = MtaStsEvidence(policy, expires=policy.max_age)
        self.source.script["record"] = StsRecord(policy.id, expires=300)

    def fail(self, error: str = "HTTP status 500") -> None:
        self.source.script["mta_sts"] = MtaStsEvidence(error=error, expires=300)
        self.source.script["record"] = StsRecord("another", expires=300)

    def refreshes(self, result: str) -> float:
        return counted(self.counters, "mta_sts_refreshes_total", result)


@pytest.fixture
def engine() -> Engine:
    return Engine(MemoryStore())


# ---------------------------------------------------------------- sessions


async def test_after_a_restart_no_server_is_called_again_while_what_it_did_is_fresh(
    engine: Engine,
) -> None:
    before = await engine.probe()
    engine.clocks.pass_(FRESH - 100)
    after = engine.restarted()
    assert await after.probe() == before
    assert after.sessions == 0
    assert counted(after.counters, "cache_requests_total", "host", "stored") == 1
    assert counted(after.counters, "probes_total", "done") == 0
    after.clocks.pass_(100)
    await after.probe()
    assert after.sessions == 1


FAILED = ProbeEvidence("", ProbeStage.CONNECT, failure=ProbeFailure.REFUSED, expires=60)


async def test_r61_a_restart_is_no_reason_to_call_a_server_again_that_has_just_failed(
    engine: Engine,
) -> None:
    """Else a service that comes up again and again knocks as often at every server in trouble."""
    engine.source.script["probe"] = FAILED
    before = await engine.probe()
    for _ in range(5):
        engine.clocks.pass_(10)
        engine = engine.restarted()
        engine.source.script["probe"] = FAILED
        after = await engine.probe()
        assert (after.stage, after.failure) == (before.stage, before.failure)
        assert after.expires == before.expires  # not one second more for it
        assert engine.sessions == 0
    assert counted(engine.counters, "cache_requests_total", "host", "held") == 1
    engine.clocks.pass_(11)
    again = await engine.probe()
    assert engine.sessions == 1
    assert again.expires == engine.clocks.wall() + 120  # twice as long as before the restarts


async def test_r61_a_pause_goes_on_doubling_over_a_restart(engine: Engine) -> None:
    engine.source.script["probe"] = FAILED
    await engine.probe()
    engine.clocks.pass_(300)
    engine = engine.restarted()
    engine.source.script["probe"] = FAILED
    found = await engine.probe()
    assert engine.sessions == 1
    assert found.expires == engine.clocks.wall() + 120


async def test_after_a_success_nothing_of_the_failure_is_left(engine: Engine) -> None:
    engine.source.script["probe"] = FAILED
    await engine.probe()
    engine.clocks.pass_(61)
    engine.source.script["probe"] = SESSION
    good = await engine.probe()
    assert await engine.store.listing(ATTEMPT, engine.clocks.wall()) == []
    engine = engine.restarted()
    assert await engine.probe() == good
    assert engine.sessions == 0


async def test_whoever_asks_for_a_fresh_look_is_not_held_back_by_a_failure_of_before(
    engine: Engine,
) -> None:
    engine.source.script["probe"] = FAILED
    await engine.probe()
    engine = engine.restarted()
    assert (await engine.probe(since=0.0)).stage is ProbeStage.DONE
    assert engine.sessions == 1


async def test_in_a_fleet_a_failure_is_its_own_affair(engine: Engine) -> None:
    """The network of one milter may be to blame."""
    engine.source.script["probe"] = FAILED
    await engine.probe()
    other = Engine(engine.store, node="other.example.net")
    assert (await other.probe()).stage is ProbeStage.DONE


async def test_while_it_is_we_who_reach_nobody_no_failure_outlives_us(engine: Engine) -> None:
    engine.source.script["probe"] = replace(FAILED, failure=ProbeFailure.TIMEOUT)
    for number in range(LEAST):
        await engine.cache.probe(f"198.{number}.100.1", 25, "mx.a.example")
    assert engine.cache.outbound.out(OutboundService.SMTP)
    await engine.probe()
    engine = engine.restarted()
    assert (await engine.probe()).stage is ProbeStage.DONE


async def test_a_failure_of_an_earlier_version_is_dropped_without_complaint(
    engine: Engine, logged: list[EventDict]
) -> None:
    """An upgrade is no damage, and it does not tell a refusal from a network without a way."""
    now = engine.clocks.wall()
    failed = replace(FAILED, address="192.0.2.1", probed_at=now, expires=now + 60)
    value = encode_attempt(failed, 60.0).replace(b'"v":2', b'"v":1')
    await engine.store.put(ATTEMPT, "192.0.2.1 25 mx.a.example@", value, now + 1000, now)
    assert (await engine.probe()).stage is ProbeStage.DONE
    assert counted(engine.counters, "store_errors_total", "decode") == 0
    assert logged == []


async def test_a_failure_from_a_store_that_cannot_be_true_is_none(engine: Engine) -> None:
    now = engine.clocks.wall()
    failed = replace(FAILED, address="192.0.2.1", probed_at=now, expires=now + 10**9)
    value = encode_attempt(failed, 10**9)
    await engine.store.put(ATTEMPT, "192.0.2.1 25 mx.a.example@", value, now + 1000, now)
    assert (await engine.probe()).stage is ProbeStage.DONE
    assert counted(engine.counters, "store_errors_total", "decode") == 1


async def test_r61_no_restart_makes_evidence_live_longer(engine: Engine) -> None:
    before = await engine.probe()
    for _ in range(5):
        engine.clocks.pass_(FRESH / 6)
        engine = engine.restarted()
        assert (await engine.probe()).expires <= before.expires
    engine.clocks.pass_(FRESH / 6)
    engine = engine.restarted()
    await engine.probe()
    assert engine.sessions == 1


async def test_r61_a_clock_set_back_over_a_restart_has_the_server_called_again(
    engine: Engine,
) -> None:
    await engine.probe()
    engine.clocks.wall_time -= 3 * DAY
    engine = engine.restarted()
    await engine.probe()
    assert engine.sessions == 1


@pytest.mark.parametrize(
    "found",
    [
        ProbeEvidence("", ProbeStage.CONNECT, ProbeFailure.TIMEOUT, expires=60),
        replace(SESSION, starttls_reply=Reply(454, "4.7.0"), expires=60),
        ProbeEvidence("", error="probe.enabled is false", expires=FRESH),
    ],
)
async def test_r61_what_is_no_verdict_is_not_kept_as_one(
    engine: Engine, found: ProbeEvidence
) -> None:
    engine.source.script["probe"] = found
    await engine.probe()
    assert await engine.store.listing(PROBE, engine.clocks.wall()) == []


async def test_a_fresh_look_takes_nothing_from_the_store_and_gives_it_what_it_finds(
    engine: Engine,
) -> None:
    await engine.probe()
    engine.clocks.pass_(1)
    after = engine.restarted()
    after.source.script["probe"] = replace(SESSION, requiretls=False)
    assert (await after.probe(since=after.clocks.monotonic())).requiretls is False
    assert (await after.restarted().probe()).requiretls is False


async def test_a_fresh_look_is_not_given_what_another_takes_from_the_store(
    engine: Engine,
) -> None:
    await engine.probe()
    engine.clocks.pass_(100)
    after = engine.restarted()
    taken, looked = await asyncio.gather(after.probe(), after.probe(since=after.clocks.monotonic()))
    assert (taken.probed_at, looked.probed_at) == (
        engine.clocks.wall_time - 100,
        engine.clocks.wall_time,
    )
    third = after.restarted()
    since = third.clocks.monotonic()
    await third.probe()  # taken from the store, and held
    await third.probe(since=since)
    assert third.sessions == 0  # another process had looked at this very moment
    third.clocks.pass_(1)
    await third.probe(since=third.clocks.monotonic())
    assert third.sessions == 1


async def test_a_record_that_is_none_is_looked_for_afresh_and_replaced(
    engine: Engine, logged: list[EventDict]
) -> None:
    key = "192.0.2.1 25 mx.a.example"
    now = engine.clocks.wall()
    await engine.store.put(PROBE, key, b"{}", now + 100, now)
    await engine.store.put(POLICY, "a.example", b'{"policy": 7}', now + 100, now)
    engine.publish()
    await engine.probe()
    assert (await engine.cache.mta_sts("a.example")).policy == RULES
    assert counted(engine.counters, "store_errors_total", "decode") == 2
    assert [entry["event"] for entry in logged] == ["store_record_bad"] * 2
    after = engine.restarted()
    await after.probe()
    assert after.sessions == 0


async def test_what_another_configuration_found_is_not_taken(engine: Engine) -> None:
    engine.publish()
    await engine.probe()
    await engine.cache.mta_sts("a.example")
    other = engine.restarted(Scopes("#policy", "#probe"))
    other.publish()
    await other.probe()
    await other.cache.mta_sts("a.example")
    assert (other.sessions, other.fetches) == (1, 1)
    other.clocks.pass_(POLICY_REFRESH)
    await other.cache.refresh_policies()
    assert other.fetches == 2  # its own one, not the other's


# ---------------------------------------------------------------- policies


async def test_r52_a_policy_outlives_restarts_while_dns_and_https_are_gone(
    engine: Engine, logged: list[EventDict]
) -> None:
    engine.publish()
    await engine.cache.mta_sts("a.example")
    for _ in range(6):
        engine.clocks.pass_(DAY)
        engine = engine.restarted()
        engine.source.script["record"] = StsRecord(error="SERVFAIL", expires=60)
        engine.source.script["mta_sts"] = MtaStsEvidence(error="SERVFAIL", expires=60)
        found = await engine.cache.mta_sts("a.example")
        assert found.policy == RULES
        assert found.error == "SERVFAIL"
        assert engine.refreshes("failed") == 1
    assert {entry["event"] for entry in logged} == {"policy_not_renewed"}
    assert {entry["log_level"] for entry in logged} == {"warning"}
    engine.clocks.pass_(DAY)
    assert (await engine.restarted().cache.mta_sts("a.example")).policy is None


async def test_r52_a_policy_of_mode_none_that_is_not_renewed_alarms_nobody(
    engine: Engine, logged: list[EventDict]
) -> None:
    engine.publish(replace(RULES, mode=MtaStsMode.NONE, mx=()))
    await engine.cache.mta_sts("a.example")
    engine.fail()
    engine.clocks.pass_(POLICY_GRACE)
    await engine.cache.mta_sts("a.example")
    assert [entry["log_level"] for entry in logged] == ["info"]


async def test_r58_a_policy_that_vanishes_is_kept_told_and_counted(
    engine: Engine, logged: list[EventDict]
) -> None:
    engine.publish()
    await engine.cache.mta_sts("a.example")
    engine.source.script["record"] = StsRecord(expires=300)
    engine.source.script["mta_sts"] = MtaStsEvidence(expires=300)
    engine.clocks.pass_(POLICY_GRACE)
    assert (await engine.cache.mta_sts("a.example")).vanished
    assert engine.refreshes("vanished") == 1
    assert "no MTA-STS record any more" in logged[0]["error"]


# ---------------------------------------------------------------- refreshing


async def test_r53_a_policy_is_fetched_anew_each_day_without_any_mail(engine: Engine) -> None:
    engine.publish(replace(RULES, max_age=2 * 86400))
    await engine.cache.mta_sts("a.example")
    for _ in range(20):
        engine.clocks.pass_(DAY)
        engine = engine.restarted()
        engine.publish(replace(RULES, max_age=2 * 86400))
        await engine.cache.refresh_policies()
        await engine.cache.refresh_policies()
        assert engine.fetches == 1
        assert engine.refreshes("renewed") == 1
    assert (await engine.store.get(POLICY, "a.example", engine.clocks.wall())) is not None


async def test_r53_not_all_policies_are_fetched_anew_at_the_same_hour(engine: Engine) -> None:
    engine.publish()
    domains = [f"d{number}.example" for number in range(200)]
    for domain in domains:
        await engine.cache.mta_sts(domain)
    engine.clocks.pass_(POLICY_REFRESH * (1 - JITTER))
    done: list[int] = []
    while len(done) < 10:
        await engine.cache.refresh_policies()
        done.append(engine.fetches - 200)
        engine.clocks.pass_(POLICY_REFRESH * JITTER / 9)
    assert done[0] < 5
    assert done[-1] == 200
    assert all(5 < later - earlier < 50 for earlier, later in itertools.pairwise(done))


@pytest.mark.parametrize("max_age", [SHORT_LIVED, 3600, DAY / 2, DAY, 1.5 * DAY, 30 * DAY])
async def test_r53_every_policy_is_fetched_anew_well_before_its_end(
    engine: Engine, max_age: float
) -> None:
    """And not much more often than that takes: there is time left to try again."""
    engine.publish(replace(RULES, max_age=int(max_age)))
    domains = [f"d{number}.example" for number in range(30)]
    for domain in domains:
        await engine.cache.mta_sts(domain)
    begun = engine.clocks.wall()
    left = []
    while engine.clocks.wall() < begun + 3 * max(min(max_age, DAY), 2 * REFRESH_INTERVAL):
        engine.clocks.pass_(REFRESH_INTERVAL)
        listed = await engine.store.listing(POLICY, engine.clocks.wall())
        assert len(listed) == len(domains)
        left += [one.keep_until - engine.clocks.wall() for one in listed]
        await engine.cache.refresh_policies()
    period = min(DAY, REFRESH_PART * max_age)
    assert min(left) >= max_age - period - REFRESH_INTERVAL
    most = (engine.clocks.wall() - begun) / (period * (1 - JITTER)) + 1
    assert engine.fetches <= most * len(domains)


async def test_a_policy_of_some_minutes_is_fetched_when_mail_needs_it(engine: Engine) -> None:
    engine.publish(replace(RULES, max_age=int(SHORT_LIVED) - 1))
    await engine.cache.mta_sts("a.example")
    engine.clocks.pass_(SHORT_LIVED - 100)
    await engine.cache.refresh_policies()
    assert engine.fetches == 1
    await engine.cache.mta_sts("a.example")  # the same id, and it is half over
    assert engine.fetches == 2


async def test_policies_that_end_first_are_fetched_anew_first(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REFRESHES", 1)
    for days in (9, 3, 6):
        engine.publish(replace(RULES, max_age=days * 86400))
        await engine.cache.mta_sts(f"days-{days}.example")
    engine.clocks.pass_(DAY)
    for days in (3, 6, 9):
        await engine.cache.refresh_policies()
        assert engine.source.calls[f"mta_sts days-{days}.example"] == 2


async def test_a_policy_that_no_mail_has_asked_for_in_a_month_is_left_to_its_max_age(
    engine: Engine,
) -> None:
    engine.publish()
    await engine.cache.mta_sts("a.example")
    days = 0
    while True:
        engine.clocks.pass_(DAY)
        days += 1
        engine = engine.restarted()  # which does not make it asked for
        engine.publish()
        await engine.cache.refresh_policies()
        if engine.fetches == 0:
            break
    assert days == POLICY_IDLE / DAY + 1
    await engine.cache.mta_sts("a.example")  # mail asks again
    engine.clocks.pass_(DAY)
    engine = engine.restarted()
    engine.publish()
    await engine.cache.refresh_policies()
    assert engine.fetches == 1


async def test_a_refresh_that_fails_is_tried_less_and_less_often(
    engine: Engine, logged: list[EventDict]
) -> None:
    engine.publish()
    await engine.cache.mta_sts("a.example")
    engine.clocks.pass_(DAY)
    engine.fail()
    tries = []
    for minute in range(0, 48 * 60, 10):
        before = engine.fetches
        await engine.cache.refresh_policies()
        if engine.fetches > before:
            tries.append(minute * 60)
        engine.clocks.pass_(600)
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert pauses[0] == FIRST_REFRESH_PAUSE
    assert pauses == sorted(pauses)
    assert pauses[-1] == LAST_REFRESH_PAUSE
    assert engine.refreshes("failed") == len(tries) == len(logged) < 15
    engine.publish()
    engine.clocks.pass_(LAST_REFRESH_PAUSE)
    await engine.cache.refresh_policies()
    assert engine.refreshes("renewed") == 1


async def test_few_policies_are_fetched_anew_at_once_and_many_one_after_another(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.publish()
    for number in range(30):
        await engine.cache.mta_sts(f"d{number}.example")
    engine.clocks.pass_(DAY)
    engine.source.gate = asyncio.Event()
    monkeypatch.setattr(module, "MAX_REFRESHES", 20)
    task = asyncio.create_task(engine.cache.refresh_policies())
    await asyncio.sleep(0.05)
    assert engine.fetches == 30 + module.REFRESHES
    engine.source.gate.set()
    await task
    assert engine.fetches == 30 + 20


async def test_a_mistake_in_one_refresh_does_not_end_the_others(
    engine: Engine, logged: list[EventDict]
) -> None:
    engine.publish()
    for number in range(5):
        await engine.cache.mta_sts(f"d{number}.example")
    engine.clocks.pass_(DAY)
    engine.source.error = ZeroDivisionError()
    await engine.cache.refresh_policies()
    assert len([entry for entry in logged if entry["event"] == "evidence_failed"]) == 5
    engine.source.error = None
    await engine.cache.refresh_policies()
    assert engine.refreshes("renewed") == 5


async def test_a_refresh_outlives_a_cache_that_is_closed_under_it(engine: Engine) -> None:
    engine.publish()
    await engine.cache.mta_sts("a.example")
    engine.clocks.pass_(DAY)
    engine.source.gate = asyncio.Event()
    task = asyncio.create_task(engine.cache.refresh_policies())
    await asyncio.sleep(0.01)
    await engine.cache.close()
    await asyncio.wait_for(task, 1)  # the engine goes on with another cache
