"""The five questions: what is kept apart, what is shared, and what is found anew."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from requiretls_milter.config import Config
from requiretls_milter.engine.cache.policies import (
    POLICY_REFRESH,
)
from requiretls_milter.evidence.probe import FRESH
from requiretls_milter.model import (
    MtaStsEvidence,
    MtaStsMode,
    MtaStsPolicy,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reply,
    ServerTarget,
)
from requiretls_milter.store.base import StoreKind
from requiretls_milter.telemetry.labels import Layer
from tests.support.cachekit import ADDRESSES, DAY, RETRY_AFTER, CacheKit
from tests.support.stores import PROBE

SESSION = ProbeEvidence("", ProbeStage.DONE, starttls_offered=True, requiretls=True, expires=FRESH)
ATTEMPT = StoreKind.ATTEMPT
RETRY = RETRY_AFTER
NOTHING = MtaStsEvidence(expires=300)


@pytest.fixture
def kit() -> CacheKit:
    return CacheKit()


async def test_r59_domains_that_share_a_host_share_its_evidence_and_no_policy(
    kit: CacheKit,
) -> None:
    policy = MtaStsPolicy(MtaStsMode.ENFORCE, ("mx.example",), 86400, "1")
    kit.source.script["mta_sts a.example"] = MtaStsEvidence(policy, expires=86400)
    for domain in ("a.example", "b.example"):
        found = await kit.cache.mta_sts(domain)
        assert (found.policy is not None) == (domain == "a.example")
        await kit.cache.addresses("mx.example")
        await kit.cache.tlsa("mx.example", 25, ADDRESSES)
        await kit.cache.probe(ServerTarget("192.0.2.1", 25, "mx.example"))
    assert kit.source.calls["addresses mx.example"] == 1
    assert kit.source.calls["tlsa mx.example:25"] == 1
    assert kit.source.calls["probe 192.0.2.1 mx.example"] == 1
    assert kit.source.calls["mta_sts b.example"] == 1
    assert kit.cache.entries() == {Layer.HOST: 3, Layer.DOMAIN: 2}


async def test_evidence_is_kept_apart_by_all_that_it_depends_on(kit: CacheKit) -> None:
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
        await kit.cache.probe(ServerTarget("192.0.2.1", 25, name))
    assert kit.source.calls["probe 192.0.2.1 other.example"] == 1


# ---------------------------------------------------------------- finding it anew


async def test_a_fresh_look_takes_nothing_from_before_and_is_kept_for_all(kit: CacheKit) -> None:
    await kit.cache.mx("a")
    kit.clocks.pass_(1)
    since = kit.clocks.monotonic()
    await kit.cache.mx("a", since=since)
    await kit.cache.mx("a", since=since)
    assert kit.source.calls["mx a"] == 2
    await kit.cache.mx("a")
    assert kit.source.calls["mx a"] == 2


async def test_a_fresh_look_does_not_wait_for_the_pause_after_a_failure(kit: CacheKit) -> None:
    kit.source.script["probe"] = ProbeEvidence("", ProbeStage.CONNECT, ProbeFailure.REFUSED)
    await kit.cache.probe(ServerTarget("192.0.2.1", 25, "a"))
    kit.clocks.pass_(1)
    await kit.cache.probe(ServerTarget("192.0.2.1", 25, "a"), since=kit.clocks.monotonic())
    assert kit.source.calls["probe 192.0.2.1 a"] == 2


async def test_a_fresh_look_covers_every_kind(kit: CacheKit) -> None:
    cache, since = kit.cache, kit.clocks.monotonic()
    assert await cache.mta_sts("a", since=since) == await cache.mta_sts("a")
    assert await cache.addresses("a", since=since) == await cache.addresses("a")
    fresh = await cache.tlsa("a", 25, ADDRESSES, since=since)
    assert fresh == await cache.tlsa("a", 25, ADDRESSES)


# ---------------------------------------------------------------- sessions in the store


async def test_after_a_restart_no_server_is_called_again_while_what_it_did_is_fresh(
    kit: CacheKit,
) -> None:
    before = await kit.probe()
    kit.clocks.pass_(FRESH - 100)
    after = kit.restarted()
    assert await after.probe() == before
    assert after.sessions == 0
    assert after.count("cache_requests_total", "host", "stored") == 1
    assert after.count("probes_total", "completed") == 0
    after.clocks.pass_(100)
    await after.probe()
    assert after.sessions == 1


async def test_r61_no_restart_makes_evidence_live_longer(kit: CacheKit) -> None:
    before = await kit.probe()
    for _ in range(5):
        kit.clocks.pass_(FRESH / 6)
        kit = kit.restarted()
        assert (await kit.probe()).expires <= before.expires
    kit.clocks.pass_(FRESH / 6)
    kit = kit.restarted()
    await kit.probe()
    assert kit.sessions == 1


async def test_r61_a_clock_set_back_over_a_restart_has_the_server_called_again(
    kit: CacheKit,
) -> None:
    await kit.probe()
    kit.clocks.wall_time -= 3 * DAY
    kit = kit.restarted()
    await kit.probe()
    assert kit.sessions == 1


@pytest.mark.parametrize(
    "found",
    [
        ProbeEvidence("", ProbeStage.CONNECT, ProbeFailure.TIMEOUT, expires=60),
        replace(SESSION, starttls_reply=Reply(454, "4.7.0"), expires=60),
        ProbeEvidence("", error="probe.enabled is false", expires=FRESH),
    ],
)
async def test_r61_what_is_no_verdict_is_not_kept_as_one(
    kit: CacheKit, found: ProbeEvidence
) -> None:
    kit.source.script["probe"] = found
    await kit.probe()
    assert await kit.store.listing(PROBE, kit.clocks.wall()) == []


async def test_a_fresh_look_takes_nothing_from_the_store_and_gives_it_what_it_finds(
    kit: CacheKit,
) -> None:
    await kit.probe()
    kit.clocks.pass_(1)
    after = kit.restarted()
    after.source.script["probe"] = replace(SESSION, requiretls=False)
    assert (await after.probe(since=after.clocks.monotonic())).requiretls is False
    assert (await after.restarted().probe()).requiretls is False


async def test_a_fresh_look_is_not_given_what_another_takes_from_the_store(
    kit: CacheKit,
) -> None:
    await kit.probe()
    kit.clocks.pass_(100)
    after = kit.restarted()
    taken, looked = await asyncio.gather(after.probe(), after.probe(since=after.clocks.monotonic()))
    assert (taken.probed_at, looked.probed_at) == (
        kit.clocks.wall_time - 100,
        kit.clocks.wall_time,
    )
    third = after.restarted()
    since = third.clocks.monotonic()
    await third.probe()  # taken from the store, and held
    await third.probe(since=since)
    assert third.sessions == 0  # another process had looked at this very moment
    third.clocks.pass_(1)
    await third.probe(since=third.clocks.monotonic())
    assert third.sessions == 1


async def test_what_another_configuration_found_is_not_taken(kit: CacheKit) -> None:
    kit.publish()
    await kit.probe()
    await kit.cache.mta_sts("a.example")
    other = kit.restarted(
        Config.model_validate({"probe": {"helo": "other.example"}}), authorities="others"
    )
    other.publish()
    await other.probe()
    await other.cache.mta_sts("a.example")
    assert (other.sessions, other.fetches) == (1, 1)
    other.clocks.pass_(POLICY_REFRESH)
    await other.cache.refresh_policies()
    assert other.fetches == 2  # its own one, not the other's
