"""The store in memory: what it keeps, for how long, and no more than allowed."""

from __future__ import annotations

from requiretls_milter.store import StoreKind
from requiretls_milter.store.memory import MemoryStore

KIND = StoreKind.MTA_STS_POLICY


async def test_a_record_is_kept_until_its_time_is_over() -> None:
    store = MemoryStore()
    await store.put(KIND, "a", b"1", keep_until=100)
    assert await store.get(KIND, "a", now=99.9) == b"1"
    assert await store.get(KIND, "a", now=100) is None
    assert len(store) == 0


async def test_a_record_replaces_an_earlier_one_and_can_be_forgotten() -> None:
    store = MemoryStore()
    await store.put(KIND, "a", b"1", 100)
    await store.put(KIND, "a", b"2", 200)
    assert await store.get(KIND, "a", 150) == b"2"
    await store.delete(KIND, "a")
    await store.delete(KIND, "a")
    assert await store.get(KIND, "a", 150) is None


async def test_the_number_of_records_is_bounded_and_the_least_used_goes_first() -> None:
    store = MemoryStore(max_records=2)
    for key in ("a", "b"):
        await store.put(KIND, key, b"x", 100)
    await store.get(KIND, "a", 0)
    await store.put(KIND, "c", b"x", 100)
    assert await store.get(KIND, "b", 0) is None
    assert await store.get(KIND, "a", 0) == b"x"
    await store.close()
    assert len(store) == 0
