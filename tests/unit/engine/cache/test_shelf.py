"""One layer: what lives how long, and how much of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace

import pytest

from requiretls_milter.bounded import octets
from requiretls_milter.clocks import SYSTEM_CLOCKS, Life
from requiretls_milter.engine.cache.packing import Evidence
from requiretls_milter.engine.cache.shelf import ENTRY_OCTETS, Entry, Shelf
from requiretls_milter.engine.cache.source import JITTER, MAX_LIFE
from requiretls_milter.evidence.dns import MAX_RECORDS
from requiretls_milter.evidence.probe import FRESH
from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    MtaStsEvidence,
    MtaStsMode,
    MtaStsPolicy,
    MxEvidence,
    MxRecord,
    ProbeEvidence,
    Reply,
    ServerTarget,
    TlsaEvidence,
    TlsaRecord,
)
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Bound, Layer
from tests.support.cachekit import ADDRESSES, CacheKit, limited
from tests.support.memory import long_name, measured


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


async def test_a_session_that_confirms_a_forecast_is_used_by_that() -> None:
    kit = CacheKit(config=limited(host_cache=2))
    server = ServerTarget("192.0.2.1", 25, "mx.example")
    await kit.cache.probe(server)
    await kit.cache.addresses("a.example")
    kit.clocks.pass_(2 * FRESH)
    assert kit.cache.kept_session(server) is not None
    await kit.cache.addresses("b.example")
    assert kit.cache.kept_session(server) is not None
    assert kit.cache.entries()[Layer.HOST] == 2


async def test_servers_and_zones_that_say_much_cannot_fill_the_memory() -> None:
    """A chain may have 100 KiB; all entries of a layer together have 6 KiB each at most."""
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
        await kit.cache.probe(ServerTarget("192.0.2.1", 25, name))
        await kit.cache.tlsa(name, 25, ADDRESSES)
        await kit.cache.mta_sts(name)
    assert kit.cache.entries() == {Layer.HOST: 7, Layer.DOMAIN: 45}
    assert kit.count("saturated_total", "host_cache") == 173
    script["probe"] = replace(script["probe"], chain=(bytes(4_000),))
    for number in range(95):
        await kit.cache.probe(ServerTarget("192.0.2.2", 25, f"{number}.example"))
    assert kit.cache.entries()[Layer.HOST] >= 95


LARGEST: dict[str, Callable[[int], tuple[Hashable, Evidence]]] = {
    "mx": lambda n: (
        ("mx", long_name(n)),
        MxEvidence(
            DnsOutcome.FOUND,
            records=tuple(MxRecord(60_000 - m, long_name(n, m)) for m in range(MAX_RECORDS)),
            canonical=long_name(n, 1),
            expires=float(n),
        ),
    ),
    "addresses": lambda n: (
        ("addresses", long_name(n)),
        AddressLookup(
            DnsOutcome.FOUND,
            addresses=tuple(f"2001:db8:1111:1111:1111:1111:{n:x}:{m:x}" for m in range(101)),
            canonical=long_name(n, 1),
            error="e" * 200 + str(n),
        ),
    ),
    "tlsa": lambda n: (
        ("tlsa", long_name(n), 25, DnsOutcome.FOUND, True, long_name(n, 1), True, False),
        TlsaEvidence(
            True,
            base_domain=long_name(n, 2),
            records=tuple(TlsaRecord(3, 1, 1, bytes(600)) for _ in range(MAX_RECORDS)),
        ),
    ),
    "many small records of TLSA": lambda n: (
        ("tlsa", long_name(n), 25, DnsOutcome.FOUND, True, long_name(n, 1), True, False),
        TlsaEvidence(True, records=tuple(TlsaRecord(3, 1, m, b"%d" % m) for m in range(100))),
    ),
    "probe": lambda n: (
        ("probe", f"2001:db8::{n:x}", 25, long_name(n)),
        ProbeEvidence(
            f"2001:db8::{n:x}",
            reply=Reply(550, "5.7.10", "r" * 200 + str(n)),
            chain=tuple(bytes(10_000) for _ in range(10)),
            ehlo_name=long_name(n, 1),
            error="e" * 200 + str(n),
            only_opportunistic="o" * 200 + str(n),
        ),
    ),
    "a probe that failed": lambda n: (
        ("probe", f"2001:db8::{n:x}", 25, long_name(n)),
        ProbeEvidence(f"2001:db8::{n:x}", error="e" * 200 + str(n)),
    ),
    "mta_sts": lambda n: (
        ("mta_sts", long_name(n)),
        MtaStsEvidence(
            MtaStsPolicy(
                MtaStsMode.ENFORCE, tuple(f"{n}-{m}.x" for m in range(4000)), 86_400, "1" * 32
            )
        ),
    ),
    "a policy that failed": lambda n: (("mta_sts", long_name(n)), MtaStsEvidence(error="e" * 200)),
}


@pytest.mark.parametrize("largest", LARGEST.values(), ids=LARGEST)
@pytest.mark.parametrize("limit", [50, 500])
def test_what_is_kept_takes_no_more_memory_than_is_promised(
    largest: Callable[[int], tuple[Hashable, Evidence]], limit: int
) -> None:
    """Keys, names, addresses and the objects that hold them are counted as well."""
    shelf = Shelf(Layer.HOST, limit, Bound.HOST_CACHE, Counters(), SYSTEM_CLOCKS)
    promised = limit * ENTRY_OCTETS
    key, evidence = largest(0)
    fits = promised // (octets(key) + octets(evidence))
    with measured() as taken:
        for number in range(1_000_000, 1_000_000 + min(fits * 6, limit) + 10):
            key, evidence = largest(number)
            shelf.put(key, Entry(evidence, float(number), Life.of(1.0, float(number), 2.0)))
        del key, evidence
        kept = taken()
    assert kept <= promised
    assert len(shelf) == limit or kept >= promised * 0.6, "as much as is promised is kept"


async def test_one_entry_too_many_in_a_cache_is_counted() -> None:
    kit = CacheKit(config=limited(host_cache=2, domain_cache=2))
    for number in range(3):
        await kit.cache.mx(f"d{number}.example")
        await kit.cache.addresses(f"h{number}.example")
    assert kit.count("saturated_total", "domain_cache") == 1
    assert kit.count("saturated_total", "host_cache") == 1
