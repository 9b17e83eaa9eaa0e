"""One layer: what lives how long, and how much of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from requiretls_milter.engine.cache import JITTER, MAX_LIFE
from requiretls_milter.model import (
    DnsOutcome,
    MtaStsEvidence,
    MtaStsMode,
    MtaStsPolicy,
    MxEvidence,
    TlsaRecord,
)
from requiretls_milter.telemetry.labels import Layer
from tests.support.cachekit import ADDRESSES, CacheKit, limited


@pytest.fixture
def kit() -> CacheKit:
    return CacheKit()


async def test_what_was_found_is_kept_for_its_ttl_and_no_longer(kit: CacheKit) -> None:
    first = await kit.cache.mx("a.example")
    kit.clocks.pass_(299)
    assert await kit.cache.mx("a.example") == first
    assert kit.source.calls["mx a.example"] == 1
    kit.clocks.pass_(1)
    await kit.cache.mx("a.example")
    assert kit.source.calls["mx a.example"] == 2
    assert kit.count("cache_requests_total", "domain", "hit") == 1
    assert kit.count("cache_requests_total", "domain", "miss") == 2


async def test_r61_expiry_has_jitter_which_only_shortens(kit: CacheKit) -> None:
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


async def test_what_has_no_life_is_not_kept(kit: CacheKit) -> None:
    kit.source.script["mx"] = MxEvidence(DnsOutcome.FOUND, expires=0)
    await kit.cache.mx("a.example")
    await kit.cache.mx("a.example")
    assert kit.source.calls["mx a.example"] == 2
    assert kit.cache.entries()[Layer.DOMAIN] == 0


async def test_nothing_is_kept_for_longer_than_a_day(kit: CacheKit) -> None:
    kit.source.script["mx"] = MxEvidence(DnsOutcome.FOUND, expires=10 * MAX_LIFE)
    found = await kit.cache.mx("a.example")
    assert found.expires == kit.clocks.wall() + MAX_LIFE


async def test_r61_a_clock_that_goes_backwards_does_not_extend_life(kit: CacheKit) -> None:
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


async def test_a_clock_that_jumps_ahead_ends_life(kit: CacheKit) -> None:
    await kit.cache.mx("a.example")
    kit.clocks.wall_time += 10_000
    await kit.cache.mx("a.example")
    assert kit.source.calls["mx a.example"] == 2


async def test_each_layer_is_bounded_and_the_least_used_goes_first() -> None:
    kit = CacheKit(config=limited(host_cache=2, domain_cache=3))
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
    kit = CacheKit(config=limited(host_cache=100, domain_cache=100))
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


async def test_one_entry_too_many_in_a_cache_is_counted() -> None:
    kit = CacheKit(config=limited(host_cache=2, domain_cache=2))
    for number in range(3):
        await kit.cache.mx(f"d{number}.example")
        await kit.cache.addresses(f"h{number}.example")
    assert kit.count("saturated_total", "domain_cache") == 1
    assert kit.count("saturated_total", "host_cache") == 1
