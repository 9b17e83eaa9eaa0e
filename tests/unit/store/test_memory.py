"""The store in memory: what it keeps, for how long, and no more than allowed."""

from __future__ import annotations

import pytest

from requiretls_milter.store import CLOCK_SKEW, LONGEST, OVERHEAD, Record, StoreKind, alive
from requiretls_milter.store.memory import MemoryStore

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
    await store.put(KIND, "a", b"2", 200, 0)
    assert await store.get(KIND, "a", 150) == b"2"
    assert store.octets == OVERHEAD + 2
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
    store = MemoryStore(max_bytes=3 * (OVERHEAD + 101))
    for key in "abcd":
        await store.put(KIND, key, b"x" * 100, 100, 0)
    assert len(store) == 3
    await store.put(KIND, "e", b"x" * 1000, 100, 0)  # more than there is room for
    assert len(store) == 0
    assert store.octets == 0


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


@pytest.mark.parametrize(
    ("record", "now", "good"),
    [
        (Record(b"", 1000, 2000), 1999, True),
        (Record(b"", 1000, 2000), 2000, False),
        (Record(b"", 1000, 2000), 1000 - CLOCK_SKEW, True),
        (Record(b"", 1000, 2000), 999 - CLOCK_SKEW, False),  # the clock was set back
        (Record(b"", 1000, 1e18), 999 + LONGEST, True),
        (Record(b"", 1000, 1e18), 1000 + LONGEST, False),  # whatever it says of itself
        (Record(b"", float("nan"), 2000), 1500, False),
        (Record(b"", 1000, float("nan")), 1500, False),
        (Record(b"", 1000, float("inf")), 1000 + LONGEST, False),
    ],
)
@pytest.mark.rule(61)
def test_r61_no_time_in_a_record_makes_it_live_longer(
    record: Record, now: float, good: bool
) -> None:
    assert alive(record, now) is good
