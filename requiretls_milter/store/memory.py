"""A store for the life of the process: ``memory:``, and what stands in for others."""

from __future__ import annotations

from collections import OrderedDict

from requiretls_milter.store.base import (
    MAX_BYTES,
    MAX_LISTED,
    MAX_RECORDS,
    Listed,
    Record,
    StoreKind,
    alive,
    size,
)
from requiretls_milter.telemetry.counting import Counters

SWEEP_INTERVAL = 60.0
"""Seconds between two looks at all records for those whose time is over, where room is needed."""


class MemoryStore:
    """Implements :class:`requiretls_milter.store.base.Store`.

    Args:
        max_records: records of all kinds; then what is over goes, and after it
            the one that was written or read longest ago, of the kind that has
            most of them.
        max_bytes: octets of all of them, likewise.
        counters: where it is counted what had to go before its time was over;
            None where that is no loss, since there is a backend.
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
        self._records: dict[StoreKind, OrderedDict[str, Record]] = {
            kind: OrderedDict() for kind in StoreKind
        }
        self._octets = dict.fromkeys(StoreKind, 0)
        self._swept = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._records.values()))

    @property
    def octets(self) -> int:
        """What the records take, roughly."""
        return sum(self._octets.values())

    async def start(self) -> None:
        """Nothing is to be opened."""

    async def get(self, kind: StoreKind, key: str, now: float) -> bytes | None:
        """The record, unless there is none or its time is over."""
        record = self._records[kind].get(key)
        if record is None:
            return None
        if not alive(record, now):
            if record.keep_until <= now:
                self._forget(kind, key)
            return None
        self._records[kind].move_to_end(key)
        return record.value

    async def put(
        self, kind: StoreKind, key: str, value: bytes, keep_until: float, now: float
    ) -> None:
        """Keep a record in the place of an earlier one."""
        self.keep(kind, key, Record(value, now, keep_until), now)

    def keep(self, kind: StoreKind, key: str, record: Record, now: float) -> None:
        """Keep a record as it is."""
        self._forget(kind, key)
        self._records[kind][key] = record
        self._octets[kind] += size(key, record.value)
        if self._too_much():
            self._make_room(now)

    def record(self, kind: StoreKind, key: str) -> Record | None:
        """The record as it is, also where its time is over; this is no use of it."""
        return self._records[kind].get(key)

    async def delete(self, kind: StoreKind, key: str) -> None:
        """Forget a record; there may be none."""
        self._forget(kind, key)

    def _forget(self, kind: StoreKind, key: str) -> None:
        record = self._records[kind].pop(key, None)
        if record is not None:
            self._octets[kind] -= size(key, record.value)

    def _too_much(self) -> bool:
        return len(self) > self._max_records or self.octets > self._max_bytes

    def _make_room(self, now: float) -> None:
        """Sweep, and let the least used go of the kind that has most.

        A flood of one kind costs the others nothing. Sweeping takes a look at
        all records, so that what ended a moment ago may have to wait.
        """
        if not 0 <= now - self._swept < SWEEP_INTERVAL:
            self._swept = now
            self._sweep(now)
        while self._too_much():
            crowded = len(self) > self._max_records
            kind = max(StoreKind, key=self._records_of if crowded else self._octets_of)
            key, record = next(iter(self._records[kind].items()))
            self._forget(kind, key)
            if self._counters is not None and record.keep_until > now:
                self._counters.inc("store_evicted_total")

    def _sweep(self, now: float) -> None:
        for kind, records in self._records.items():
            for key in [key for key, record in records.items() if record.keep_until <= now]:
                self._forget(kind, key)

    def _records_of(self, kind: StoreKind) -> int:
        return len(self._records[kind])

    def _octets_of(self, kind: StoreKind) -> int:
        return self._octets[kind]

    async def listing(self, kind: StoreKind, now: float) -> list[Listed]:
        """What there is of a kind whose time is not over."""
        found = (
            Listed(key, record.written, record.keep_until)
            for key, record in self._records[kind].items()
            if alive(record, now)
        )
        return [one for one, _ in zip(found, range(MAX_LISTED), strict=False)]

    async def claim(self, kind: StoreKind, key: str, seconds: float) -> str | None:
        """Nobody else is there: always granted."""
        return ""

    async def release(self, kind: StoreKind, key: str, token: str) -> None:
        """Nobody waits."""

    async def close(self) -> None:
        """Forget everything."""
        for kind in StoreKind:
            self._records[kind].clear()
            self._octets[kind] = 0
