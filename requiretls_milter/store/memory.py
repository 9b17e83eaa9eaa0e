"""A store for as long as the process runs: ``memory:``, and the stand-in for other stores."""

from __future__ import annotations

from requiretls_milter.bounded import BoundedMap, entry_octets
from requiretls_milter.store.base import (
    MAX_BYTES,
    MAX_LISTED,
    MAX_RECORDS,
    SWEEP_INTERVAL,
    Listed,
    Record,
    StoreKind,
    alive,
    taken_in_turns,
)
from requiretls_milter.telemetry.counting import Counters


class MemoryStore:
    """Implements :class:`requiretls_milter.store.base.Store`.

    Args:
        max_records: records of all kinds. Beyond that, records whose time is over
            are dropped, and then the least recently used of the kind that has most.
        max_bytes: octets of memory that all of them take, likewise.
        counters: where evictions of good records are counted; None if they are no
            loss, since there is a backend.
    """

    shared = False

    def __init__(
        self,
        max_records: int = MAX_RECORDS,
        max_bytes: int = MAX_BYTES,
        counters: Counters | None = None,
    ) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._counters = counters
        self._records: dict[StoreKind, BoundedMap[str, Record]] = {
            kind: BoundedMap(weigh=entry_octets) for kind in StoreKind
        }
        self._swept = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._records.values()))

    @property
    def octets(self) -> int:
        """The octets of memory that all records take, with their keys."""
        return sum(records.weight for records in self._records.values())

    async def start(self) -> None:
        """Do nothing: there is nothing to open."""

    async def get(self, kind: StoreKind, key: str, now: float) -> bytes | None:
        """Read a record; None if there is none or its time is over."""
        record = self._records[kind].get(key)
        if record is None:
            return None
        if not alive(record, now):
            if record.keep_until <= now:
                self._records[kind].pop(key)
            return None
        self._records[kind].touch(key)
        return record.value

    async def put(
        self, kind: StoreKind, key: str, value: bytes, keep_until: float, now: float
    ) -> None:
        """Keep a record in the place of an earlier one."""
        self.keep(kind, key, Record(value, now, keep_until), now)

    def keep(self, kind: StoreKind, key: str, record: Record, now: float) -> None:
        """Keep a record as it is."""
        self._records[kind].put(key, record)
        if self._is_over_limit():
            self._make_room(now)

    def record(self, kind: StoreKind, key: str) -> Record | None:
        """The record as it is, even if its time is over; this does not count as a use."""
        return self._records[kind].get(key)

    async def delete(self, kind: StoreKind, key: str) -> None:
        """Forget a record; there may be none."""
        self._records[kind].pop(key)

    def _is_over_limit(self) -> bool:
        return len(self) > self._max_records or self.octets > self._max_bytes

    def _make_room(self, now: float) -> None:
        """Sweep, then evict the least recently used of the kind that has most.

        A flood of one kind costs the others nothing. A sweep visits all records, so that
        what ended a moment ago may have to wait for the next one.
        """
        if not 0 <= now - self._swept < SWEEP_INTERVAL:
            self._swept = now
            self._sweep(now)
        while self._is_over_limit():
            crowded = len(self) > self._max_records
            kind = max(StoreKind, key=self._count_of if crowded else self._weight_of)
            _, record = self._records[kind].pop_oldest()
            if self._counters is not None and record.keep_until > now:
                self._counters.inc("store_evicted_total")

    def _sweep(self, now: float) -> None:
        for records in self._records.values():
            for key in [key for key, record in records.items() if record.keep_until <= now]:
                records.pop(key)

    def _count_of(self, kind: StoreKind) -> int:
        return len(self._records[kind])

    def _weight_of(self, kind: StoreKind) -> int:
        return self._records[kind].weight

    async def listing(self, kind: StoreKind, now: float) -> list[Listed]:
        """List the records of a kind whose time is not over."""
        listed = list(self._records[kind].items())[-MAX_LISTED:]
        return [
            Listed(key, record.written, record.keep_until)
            async for piece in taken_in_turns(listed)
            for key, record in piece
            if alive(record, now)
        ]

    async def claim(self, kind: StoreKind, key: str, seconds: float) -> str | None:
        """Grant it: no other engine has this store."""
        return ""

    async def release(self, kind: StoreKind, key: str, token: str) -> None:
        """Do nothing: no other engine waits."""

    async def close(self) -> None:
        """Forget all records."""
        for records in self._records.values():
            records.clear()
