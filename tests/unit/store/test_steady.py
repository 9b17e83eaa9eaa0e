"""A store whose backend fails, hangs, lies or comes back: it never raises, nor waits for long."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

import pytest
from structlog.typing import EventDict

from requiretls_milter.store import steady as module
from requiretls_milter.store.base import (
    LONGEST,
    MAX_KEY,
    MAX_VALUE,
    Change,
    Record,
    StoreDataError,
    StoreError,
    StoreKind,
    StoreUnwritableError,
)
from requiretls_milter.store.memory import MemoryStore
from tests.support.memory import measured
from tests.support.stores import POLICY, PROBE, counted, steady
from tests.support.waiting import PATIENCE, until

NOW = 1_000_000.0


class Backend:
    """Keeps records in a dict, and fails as it is told."""

    shared = True
    name = "scripted"
    open_deadline = read_deadline = write_deadline = 0.1

    def __init__(self) -> None:
        self.records: dict[tuple[StoreKind, str], Record] = {}
        self.fails: dict[str, Exception] = {}
        self.hangs: set[str] = set()
        self.swallows: set[str] = set()
        self.calls: list[str] = []
        self.batches: list[int] = []
        self.claims: set[tuple[StoreKind, str]] = set()
        self.checks = 0
        self.damaged = False

    async def _do(self, operation: str) -> None:
        self.calls.append(operation)
        await asyncio.sleep(0)
        if operation in self.hangs:
            await asyncio.sleep(3600)
        if operation in self.swallows:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
        if operation in self.fails:
            raise self.fails[operation]

    async def open(self) -> None:
        await self._do("open")

    async def get(self, kind: StoreKind, key: str, now: float) -> Record | None:
        await self._do("get")
        return self.records.get((kind, key))

    async def write(self, changes: Sequence[Change]) -> None:
        await self._do("write")
        self.batches.append(len(changes))
        for kind, key, record in changes:
            if record is None:
                self.records.pop((kind, key), None)
            else:
                self.records[kind, key] = record

    async def check(self) -> None:
        self.checks += 1
        if self.damaged:
            self.damaged = False
            raise StoreError("damaged")

    async def listing(self, kind: StoreKind) -> list[tuple[str, Record]]:
        await self._do("listing")
        return [(key, record) for (its, key), record in self.records.items() if its is kind]

    async def claim(self, kind: StoreKind, key: str, seconds: float) -> str | None:
        await self._do("claim")
        if (kind, key) in self.claims:
            return None
        self.claims.add((kind, key))
        return "token"

    async def release(self, kind: StoreKind, key: str, token: str) -> None:
        await self._do("release")
        self.claims.discard((kind, key))

    async def close(self) -> None:
        await self._do("close")


class Kit:
    def __init__(self, **options: Any) -> None:
        self.backend = Backend()
        self.store, self.counters, self.gauges = steady(self.backend, **options)

    def errors(self, operation: str) -> float:
        return counted(self.counters, "store_errors_total", operation)

    @property
    def shown_up(self) -> float:
        return {name: value for name, _, value in self.gauges.items()}["store_up"]

    async def put(self, key: str, value: bytes = b"x", life: float = 100) -> None:
        await self.store.put(POLICY, key, value, NOW + life, NOW)

    async def get(self, key: str, now: float = NOW) -> bytes | None:
        return await self.store.get(POLICY, key, now)

    async def settled(self) -> None:
        await until(lambda: self.store.up and not self.store.pending, "settled")


@pytest.fixture
async def kit() -> Any:
    one = Kit()
    await one.store.start()
    yield one
    one.backend.hangs.clear()
    await one.store.close()


async def test_what_is_put_is_there_at_once_and_in_the_backend_soon(kit: Kit) -> None:
    await kit.put("a", b"1")
    assert kit.backend.records == {}
    assert await kit.get("a") == b"1"
    await kit.settled()
    assert kit.backend.records[POLICY, "a"] == Record(b"1", NOW, NOW + 100)
    await kit.store.delete(POLICY, "a")
    assert await kit.get("a") is None
    await kit.settled()
    assert kit.backend.records == {}
    assert kit.shown_up == 1


async def test_what_others_wrote_is_read(kit: Kit) -> None:
    await kit.put("a", b"ours")
    await kit.settled()
    kit.backend.records[POLICY, "a"] = Record(b"theirs", NOW, NOW + 100)
    assert await kit.get("a") == b"theirs"
    assert await kit.get("a", NOW + 100) is None


async def test_many_changes_are_written_at_once(kit: Kit) -> None:
    for number in range(500):
        await kit.put(str(number % 450))
    await kit.settled()
    assert len(kit.backend.records) == 450
    assert len(kit.backend.batches) <= 4
    assert max(kit.backend.batches) == module.BATCH


async def test_a_backend_that_cannot_be_opened_is_stood_in_for_until_it_can(
    logged: list[EventDict],
) -> None:
    kit = Kit()
    kit.backend.fails["open"] = StoreError("no such directory")
    await kit.store.start()
    assert kit.shown_up == 0
    await kit.put("a", b"1")
    assert await kit.get("a") == b"1"
    assert await kit.get("b") is None
    assert "get" not in kit.backend.calls
    await until(lambda: kit.errors("open") >= 3)
    del kit.backend.fails["open"]
    await kit.settled()
    assert kit.backend.records[POLICY, "a"].value == b"1"
    assert kit.shown_up == 1
    # Once, however often it was tried.
    assert [entry["event"] for entry in logged] == ["store_lost", "store_back"]
    assert logged[0]["error"] == "no such directory"
    await kit.store.close()


async def test_a_reader_waits_once_and_not_for_long(kit: Kit) -> None:
    await kit.put("a", b"1")
    await kit.settled()
    kit.backend.hangs |= {"get", "open"}
    async with asyncio.timeout(50 * kit.backend.read_deadline):
        for _ in range(100):
            assert await kit.get("a") == b"1"
    assert kit.backend.calls.count("get") == 1
    assert kit.shown_up == 0
    kit.backend.hangs.clear()
    await kit.settled()


async def test_a_backend_that_opens_well_and_reads_badly_is_tried_less_and_less_often() -> None:
    kit = Kit(first_pause=0.02, last_pause=10.0)
    await kit.store.start()
    kit.backend.fails["get"] = StoreError("gone")
    ends = time.monotonic() + 0.6
    while time.monotonic() < ends:
        await kit.get("a")
        await asyncio.sleep(0.001)
    assert 3 <= kit.errors("read") <= 7  # 20, 40, 80, 160, 320 ms, not 600 times
    await kit.store.close()


async def test_a_full_backend_is_read_all_the_same(kit: Kit) -> None:
    kit.backend.records[POLICY, "there"] = Record(b"0", NOW, NOW + 100)
    kit.backend.fails["write"] = StoreUnwritableError("full")
    await kit.put("a", b"1")
    await until(lambda: kit.errors("write") >= 2)
    assert kit.shown_up == 0
    assert await kit.get("there") == b"0"
    assert await kit.get("a") == b"1"
    del kit.backend.fails["write"]
    await kit.settled()
    assert kit.backend.records[POLICY, "a"].value == b"1"


async def test_a_change_made_while_it_is_written_is_written_too(kit: Kit) -> None:
    kit.backend.hangs.add("write")
    await kit.put("a", b"1")
    await until(lambda: "write" in kit.backend.calls)
    await kit.put("a", b"2")
    kit.backend.hangs.clear()
    await kit.settled()
    assert kit.backend.records[POLICY, "a"].value == b"2"


async def test_changes_that_wait_are_bounded() -> None:
    kit = Kit(max_pending=10)
    await kit.store.start()
    kit.backend.fails["write"] = StoreError("gone")
    for number in range(25):
        await kit.put(str(number))
    assert kit.store.pending == 10
    assert counted(kit.counters, "store_evicted_total") == 15
    assert counted(kit.counters, "saturated_total", "store_queue") == 15
    kit.backend.fails.clear()
    await kit.settled()
    assert set(kit.backend.records) == {(POLICY, str(number)) for number in range(15, 25)}
    await kit.store.close()


async def test_a_record_that_is_not_ours_is_no_record_and_breaks_nothing(
    kit: Kit, logged: list[EventDict]
) -> None:
    kit.backend.fails["get"] = StoreDataError("no record of ours")
    assert await kit.get("a") is None
    assert kit.errors("decode") == 1
    assert kit.store.up
    assert [entry["event"] for entry in logged] == ["store_record_bad"]


async def test_a_bad_record_is_removed_and_told_once(kit: Kit, logged: list[EventDict]) -> None:
    kit.backend.records[POLICY, "a"] = Record(b"damaged", NOW, NOW + 100)
    kit.backend.fails["get"] = StoreDataError("damaged")
    assert await kit.get("a") is None
    del kit.backend.fails["get"]
    assert await kit.get("a") is None  # not removed yet, but not read again either
    await kit.settled()
    assert kit.backend.records == {}
    assert kit.errors("decode") == 1
    assert [entry["event"] for entry in logged] == ["store_record_bad"]


async def test_a_bad_record_is_replaced_by_what_memory_has(kit: Kit) -> None:
    await kit.put("a", b"1")
    await kit.settled()
    kit.backend.records[POLICY, "a"] = Record(b"damaged", NOW, NOW + 100)
    kit.backend.fails["get"] = StoreDataError("damaged")
    assert await kit.get("a") == b"1"
    await kit.settled()
    assert kit.backend.records[POLICY, "a"] == Record(b"1", NOW, NOW + 100)


async def test_what_came_while_a_bad_record_was_read_is_not_removed() -> None:
    kit = Kit(memory=MemoryStore(max_records=0))  # it is in nobody's memory
    await kit.store.start()
    kit.backend.fails["get"] = StoreDataError("damaged")
    await kit.settled()
    reader = asyncio.create_task(kit.get("a"))
    await asyncio.sleep(0)  # it has begun to read, and no more
    assert kit.backend.calls[-1] == "get"
    await kit.put("a", b"new")
    assert await reader is None
    await kit.settled()
    assert kit.backend.records[POLICY, "a"].value == b"new"
    await kit.store.close()


async def test_what_the_backend_has_lost_memory_still_knows_as_long_as_it_is_good(
    kit: Kit,
) -> None:
    await kit.put("a", b"1")
    await kit.settled()
    kit.backend.records.clear()  # evicted, or flushed
    assert await kit.get("a", NOW + 99) == b"1"
    assert await kit.get("a", NOW + 100) is None


@pytest.mark.parametrize(
    ("key", "value", "keep_until"),
    [
        ("a", b"x" * (MAX_VALUE + 1), NOW + 100),
        ("a" * (MAX_KEY + 1), b"x", NOW + 100),
        ("\u00e9", b"x", NOW + 100),
        ("\ud800", b"x", NOW + 100),
        ("a", b"x", NOW),
        ("a", b"x", float("nan")),
        ("a", b"x", float("-inf")),
    ],
)
async def test_what_cannot_be_kept_is_not_and_holds_nothing_else_up(
    kit: Kit, key: str, value: bytes, keep_until: float
) -> None:
    await kit.store.put(POLICY, key, b"before", NOW + 100, NOW)
    await kit.store.put(POLICY, key, value, keep_until, NOW)
    await kit.put("other")
    await kit.settled()
    assert await kit.store.get(POLICY, key, NOW) is None
    assert set(kit.backend.records) == {(POLICY, "other")}


async def test_nothing_is_kept_for_longer_than_a_year(kit: Kit) -> None:
    await kit.put("a", life=float("inf"))
    await kit.settled()
    assert kit.backend.records[POLICY, "a"].keep_until == NOW + LONGEST


async def test_a_mistake_of_ours_is_told_and_contained(kit: Kit, logged: list[EventDict]) -> None:
    kit.backend.fails.update(get=ZeroDivisionError(), write=KeyError("x"))
    assert await kit.get("a") is None
    await kit.put("a", b"1")
    await until(lambda: kit.errors("write") >= 1)
    assert "store_failed" in {entry["event"] for entry in logged}
    kit.backend.fails.clear()
    await kit.settled()
    assert kit.backend.records[POLICY, "a"].value == b"1"


async def test_keys_are_listed_from_the_backend_or_else_from_memory(kit: Kit) -> None:
    kit.backend.records[POLICY, "theirs"] = Record(b"", NOW - 5, NOW + 100)
    kit.backend.records[POLICY, "over"] = Record(b"", NOW - 5, NOW)
    kit.backend.records[PROBE, "probe"] = Record(b"", NOW - 5, NOW + 100)
    assert await kit.store.listing(POLICY, NOW) == [("theirs", NOW - 5, NOW + 100)]
    await kit.put("ours")
    kit.backend.fails["listing"] = StoreError("too many")
    assert [one[:2] for one in await kit.store.listing(POLICY, NOW)] == [("ours", NOW)]
    assert kit.errors("list") == 1
    assert kit.store.up  # that much was asked for says nothing of the rest


# ---------------------------------------------------------------- claims


async def test_a_claim_is_given_to_one(kit: Kit) -> None:
    token = await kit.store.claim(PROBE, "a", 30)
    assert token
    assert await kit.store.claim(PROBE, "a", 30) is None
    await kit.store.release(PROBE, "a", token)
    assert await kit.store.claim(PROBE, "a", 30)


async def test_what_was_put_is_there_when_a_claim_is_given_up(kit: Kit) -> None:
    token = await kit.store.claim(POLICY, "a", 30)
    assert token
    kit.backend.calls.clear()
    await kit.put("a", b"result")
    await kit.store.release(POLICY, "a", token)
    assert kit.backend.calls.index("write") < kit.backend.calls.index("release")
    assert kit.backend.records[POLICY, "a"].value == b"result"


async def test_where_the_fleet_cannot_be_asked_everybody_may(kit: Kit) -> None:
    for failure in (StoreUnwritableError("OOM"), StoreError("gone")):
        kit.backend.fails = {"claim": failure, "release": failure}
        assert await kit.store.claim(PROBE, "a", 30) == ""
        await kit.store.release(PROBE, "a", "")
        await kit.store.release(PROBE, "a", "token")
    assert kit.errors("claim") >= 2
    await kit.settled()


# ---------------------------------------------------------------- beginning and end


async def test_the_start_does_not_wait_for_long(
    monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    monkeypatch.setattr(module, "START_WAIT", 0.05)
    kit = Kit()
    kit.backend.open_deadline = 60
    kit.backend.hangs.add("open")
    async with asyncio.timeout(PATIENCE):  # less than open_deadline
        await kit.store.start()
    assert [entry["event"] for entry in logged] == ["store_slow"]
    await kit.put("a", b"1")
    assert await kit.get("a") == b"1"
    await kit.store.close()


async def test_the_end_writes_what_is_left_to_write() -> None:
    kit = Kit()
    await kit.store.start()
    await kit.settled()
    for number in range(300):
        await kit.put(str(number))
    await kit.store.close()
    assert len(kit.backend.records) == 300
    assert kit.backend.calls[-1] == "close"


async def test_a_cancellation_that_a_client_library_swallows_is_carried_out() -> None:
    kit = Kit()
    await kit.store.start()
    await kit.settled()
    kit.backend.write_deadline = 60
    kit.backend.swallows |= {"write", "get"}
    await kit.put("a")
    await until(lambda: "write" in kit.backend.calls)
    reader = asyncio.create_task(kit.get("b"))
    await until(lambda: "get" in kit.backend.calls)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    kit.backend.swallows.clear()
    async with asyncio.timeout(PATIENCE):  # less than write_deadline
        await kit.store.close()


@pytest.mark.parametrize("how", ["hangs", "fails"])
async def test_the_end_does_not_wait_for_a_backend_that_is_gone(
    how: str, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    monkeypatch.setattr(module, "CLOSE_WAIT", 0.1)
    kit = Kit()
    await kit.store.start()
    await kit.settled()
    kit.backend.write_deadline = 60
    await kit.put("a")
    if how == "hangs":
        kit.backend.hangs |= {"write", "close"}
    else:
        kit.backend.fails["write"] = StoreError("gone")
    async with asyncio.timeout(PATIENCE):  # less than write_deadline
        await kit.store.close()
    (told,) = logged
    assert told["event"] == "store_not_closed"
    assert told["unwritten"] == 1


async def test_memory_beside_a_backend_is_bounded() -> None:
    memory = MemoryStore(max_records=10)
    kit = Kit(memory=memory)
    await kit.store.start()
    for number in range(50):
        await kit.put(str(number))
    for number in range(50):  # not written yet, and not in memory any more
        assert await kit.get(str(number)) == b"x"
    await kit.settled()
    assert len(memory) == 10
    assert len(kit.backend.records) == 50
    assert await kit.get("0") == b"x"
    await kit.store.close()


@pytest.mark.parametrize("octets", [1, MAX_VALUE])
async def test_what_waits_for_the_backend_takes_no_more_memory_than_is_promised(
    octets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside what the stand-in holds; both may hold the same records, but need not."""
    promised = 2 << 20
    monkeypatch.setattr(module, "PENDING_BYTES", promised)
    backend = Backend()
    backend.hangs = {"open"}
    store, counters, _ = steady(backend, memory=MemoryStore(max_records=0))
    with measured() as taken:
        for number in range(4_000):
            await store.put(PROBE, f"{number:0{MAX_KEY}}", bytes(octets), NOW + 1000.0, NOW)
        kept = taken()
    assert 0.6 * promised < kept <= promised
    assert counted(counters, "saturated_total", "store_queue") > 0
    assert counted(counters, "store_evicted_total") == 4_000 - store.pending
