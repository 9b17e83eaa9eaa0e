"""Whatever a store does costs the record and no more."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.types import EventDict

from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.evidence.probe import FRESH
from requiretls_milter.model import (
    MtaStsEvidence,
    ProbeEvidence,
    ProbeStage,
)
from requiretls_milter.store.base import Listed, StoreError, StoreKind
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.counting import Counters
from tests.support.cachekit import POLICY, RECORD_TTL, RETRY_AFTER, CacheKit
from tests.support.stores import PROBE

SESSION = ProbeEvidence("", ProbeStage.DONE, starttls_offered=True, requiretls=True, expires=FRESH)
ATTEMPT = StoreKind.ATTEMPT
RETRY = RETRY_AFTER
NOTHING = MtaStsEvidence(expires=300)


@pytest.fixture
def kit() -> CacheKit:
    return CacheKit()


class Broken(MemoryStore):
    async def get(self, kind: StoreKind, key: str, now: float) -> bytes | None:
        raise StoreError("unreadable")

    async def put(self, *_: Any) -> None:
        raise StoreError("full")

    async def delete(self, *_: Any) -> None:
        raise StoreError("read-only")

    async def listing(self, *_: Any) -> list[Listed]:
        raise StoreError("unreadable")


class Garbled(MemoryStore):
    async def get(self, kind: StoreKind, key: str, now: float) -> bytes | None:
        return b'{"policy": 7}'


@pytest.mark.parametrize("store", [Broken(), Garbled()])
async def test_a_store_that_fails_is_a_store_that_knows_nothing(store: MemoryStore) -> None:
    kit = CacheKit(store)
    kit.publish()
    for _ in range(2):
        assert (await kit.cache.mta_sts("a", since=kit.clocks.monotonic())).policy == POLICY
        assert (await kit.probe()).stage is ProbeStage.DONE
        kit.clocks.pass_(RECORD_TTL)


async def test_no_operation_raises_for_what_the_store_does(logged: list[EventDict]) -> None:
    records = RecordStore(Broken(), Counters())
    await records.write(PROBE, "key", b"value", 2.0, 1.0)
    await records.delete(PROBE, "key")
    assert await records.read(PROBE, "key", bytes, 1.0) is None
    assert await records.listing(PROBE, 1.0) is None
    assert [entry["event"] for entry in logged] == ["store_failed"] * 4


async def test_a_record_that_is_none_is_looked_for_afresh_and_replaced(
    kit: CacheKit, logged: list[EventDict]
) -> None:
    key = "192.0.2.1 25 mx.a.example"
    now = kit.clocks.wall()
    await kit.store.put(PROBE, key, b"{}", now + 100, now)
    await kit.store.put(StoreKind.MTA_STS_POLICY, "a.example", b'{"policy": 7}', now + 100, now)
    kit.publish()
    await kit.probe()
    assert (await kit.cache.mta_sts("a.example")).policy == POLICY
    assert kit.count("store_errors_total", "decode") == 2
    assert [entry["event"] for entry in logged] == ["store_record_bad"] * 2
    after = kit.restarted()
    await after.probe()
    assert after.sessions == 0
