"""The store in memory: what it keeps, for how long, and no more than allowed."""

from __future__ import annotations

import pytest

from requiretls_milter.bounded import entry_octets
from requiretls_milter.store.base import MAX_KEY, SWEEP_INTERVAL, Record, StoreKind
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.counting import Counters
from tests.support.memory import measured
from tests.support.stores import OFFERED, PROBE, counted

KIND = StoreKind.MTA_STS_POLICY


async def test_a_record_is_kept_until_its_time_is_over() -> None:
    store = MemoryStore()
    await store.put(KIND, "a", b"1", keep_until=100, now=0)
    assert await store.get(KIND, "a", now=99.9) == b"1"
    assert await store.get(KIND, "a", now=100) is None
    assert len(store) == 0
    assert store.octets == 0


async def test_a_record_replaces_an_earlier_one_and_can_be_forgotten() -> None:
    store = MemoryStore()
    await store.put(KIND, "a", b"1", 100, 0)
    await store.put(KIND, "a", b"2", 200.0, 0.0)
    assert await store.get(KIND, "a", 150) == b"2"
    assert store.octets == entry_octets("a", Record(b"2", 0.0, 200.0))
    await store.delete(KIND, "a")
    await store.delete(KIND, "a")
    assert await store.get(KIND, "a", 150) is None


async def test_the_number_of_records_is_bounded_and_the_least_used_goes_first() -> None:
    store = MemoryStore(max_records=2)
    for key in ("a", "b"):
        await store.put(KIND, key, b"x", 100, 0)
    await store.get(KIND, "a", 0)
    await store.put(KIND, "c", b"x", 100, 0)
    assert await store.get(KIND, "b", 0) is None
    assert await store.get(KIND, "a", 0) == b"x"
    await store.close()
    assert len(store) == 0


async def test_the_octets_are_bounded_too() -> None:
    store = MemoryStore(max_bytes=3 * entry_octets("a", Record(b"x" * 100, 0.0, 100.0)))
    for key in "abcd":
        await store.put(KIND, key, b"x" * 100, 100, 0.0)
    assert len(store) == 3
    await store.put(KIND, "e", b"x" * 2000, 100, 0)  # more than there is room for
    assert len(store) == 0
    assert store.octets == 0


@pytest.mark.parametrize("value", [0, 90, 10_000])
@pytest.mark.parametrize("key", [8, MAX_KEY])
async def test_what_is_kept_takes_no_more_memory_than_is_promised(key: int, value: int) -> None:
    """Keys, times and the objects that hold them are counted as well."""
    promised = 1 << 20
    store = MemoryStore(max_bytes=promised)
    with measured() as taken:
        for number in range(1_000 + 2 * promised // (key + value + 300)):
            name = f"{number:0{key}}"
            await store.put(PROBE, name, bytes(value), 1e9 + number, float(number))
        kept = taken()
    assert 0.5 * promised < kept <= promised


async def test_a_flood_of_one_kind_costs_the_others_nothing() -> None:
    store = MemoryStore(max_records=100)
    await store.put(KIND, "policy", b"x", 1000, 0)
    for number in range(40):
        await store.put(OFFERED, f"{number}", b"x", 1000, 0)
    for number in range(500):
        await store.put(PROBE, f"{number}", b"x", 1000, 1)
    assert await store.get(KIND, "policy", 1) == b"x"
    assert len(await store.listing(OFFERED, 1)) == 40
    assert [one.key for one in await store.listing(PROBE, 1)] == [str(n) for n in range(441, 500)]


async def test_where_octets_are_short_the_kind_that_takes_most_of_them_makes_room() -> None:
    store = MemoryStore(max_bytes=60_000)
    for number in range(50):  # most records, but not most octets
        await store.put(OFFERED, f"{number}", b"x", 1000, 0)
    for number in range(50):
        await store.put(PROBE, f"{number}", b"x" * 1000, 1000, 0)
    assert len(await store.listing(OFFERED, 0)) == 50
    assert 5 < len(await store.listing(PROBE, 0)) < 50
    assert store.octets <= 60_000


async def test_what_has_to_go_before_its_time_is_counted() -> None:
    store = MemoryStore(max_records=10, counters=(counters := Counters()))
    for number in range(10):
        await store.put(KIND, f"{number}", b"x", 1000, 0)
    assert counted(counters, "store_evicted_total") == 0
    for number in range(10, 15):
        await store.put(KIND, f"{number}", b"x", 1000, 0)
    assert counted(counters, "store_evicted_total") == 5


async def test_what_is_over_goes_before_what_is_good_and_is_not_counted() -> None:
    store = MemoryStore(max_records=100, counters=(counters := Counters()))
    for number in range(50):
        await store.put(KIND, f"good{number}", b"x", 10_000, 0)
    for number in range(50):
        await store.put(KIND, f"over{number}", b"x", 500, 100)
    await store.put(KIND, "new", b"x", 10_000, 500)
    assert len(store) == 51
    assert await store.get(KIND, "good0", 500) == b"x"
    # A clock that was set back does not end the sweeping.
    for number in range(49):
        await store.put(KIND, f"short{number}", b"x", 300, 100)
    await store.put(KIND, "newer", b"x", 10_000, 500 - 2 * SWEEP_INTERVAL)
    assert len(store) == 52
    assert counted(counters, "store_evicted_total") == 0


async def test_kinds_are_kept_apart_and_listed_apart() -> None:
    store = MemoryStore()
    await store.put(KIND, "a", b"policy", 100, 10)
    await store.put(StoreKind.PROBE, "a", b"probe", 100, 20)
    await store.put(KIND, "over", b"", 50, 10)
    assert await store.listing(KIND, 60) == [("a", 10, 100)]
    assert await store.get(StoreKind.PROBE, "a", 60) == b"probe"


async def test_in_a_process_everything_may_be_claimed() -> None:
    store = MemoryStore()
    assert await store.claim(KIND, "a", 10) is not None
    assert await store.claim(KIND, "a", 10) is not None
    assert not store.shared
