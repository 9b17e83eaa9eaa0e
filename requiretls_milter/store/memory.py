"""A store for the life of the process: ``memory:``, and what stands in for others."""

from __future__ import annotations

from collections import OrderedDict

from requiretls_milter.store import (
    MAX_BYTES,
    MAX_LISTED,
    MAX_RECORDS,
    Listed,
    Record,
    StoreKind,
    alive,
    size,
)


class MemoryStore:
    """Implements :class:`requiretls_milter.store.Store`.

    Args:
        max_records: records of all kinds; the one that was written or read
            longest ago goes first.
        max_bytes: octets of all of them.
    """

    shared = False

    def __init__(self, max_records: int = MAX_RECORDS, max_bytes: int = MAX_BYTES) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._bytes = 0
        self._records: OrderedDict[tuple[StoreKind, str], Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    @property
    def octets(self) -> int:
        """What the records take, roughly."""
        return self._bytes

    async def start(self) -> None:
        """Nothing is to be opened."""

    async def get(self, kind: StoreKind, key: str, now: float) -> bytes | None:
        """The record, unless there is none or its time is over."""
        record = self._records.get((kind, key))
        if record is None:
            return None
        if not alive(record, now):
            if record.keep_until <= now:
                self._forget(kind, key)
            return None
        self._records.move_to_end((kind, key))
        return record.value

    async def put(
        self, kind: StoreKind, key: str, value: bytes, keep_until: float, now: float
    ) -> None:
        """Keep a record in the place of an earlier one."""
        self.keep(kind, key, Record(value, now, keep_until))

    def keep(self, kind: StoreKind, key: str, record: Record) -> None:
        """Keep a record as it is."""
        self._forget(kind, key)
        self._records[kind, key] = record
        self._bytes += size(key, record.value)
        while len(self._records) > self._max_records or self._bytes > self._max_bytes:
            self._forget(*next(iter(self._records)))

    def record(self, kind: StoreKind, key: str) -> Record | None:
        """The record as it is, also where its time is over; this is no use of it."""
        return self._records.get((kind, key))

    async def delete(self, kind: StoreKind, key: str) -> None:
        """Forget a record; there may be none."""
        self._forget(kind, key)

    def _forget(self, kind: StoreKind, key: str) -> None:
        record = self._records.pop((kind, key), None)
        if record is not None:
            self._bytes -= size(key, record.value)

    async def listing(self, kind: StoreKind, now: float) -> list[Listed]:
        """What there is of a kind whose time is not over."""
        found = (
            Listed(key, record.written, record.keep_until)
            for (its_kind, key), record in self._records.items()
            if its_kind is kind and alive(record, now)
        )
        return [one for one, _ in zip(found, range(MAX_LISTED), strict=False)]

    async def claim(self, kind: StoreKind, key: str, seconds: float) -> str | None:
        """Nobody else is there: always granted."""
        return ""

    async def release(self, kind: StoreKind, key: str, token: str) -> None:
        """Nobody waits."""

    async def close(self) -> None:
        """Forget everything."""
        self._records.clear()
        self._bytes = 0
