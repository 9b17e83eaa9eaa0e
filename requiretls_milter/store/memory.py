"""A store for the life of the process: ``memory:``."""

from __future__ import annotations

from collections import OrderedDict

from requiretls_milter.store import StoreKind

MAX_RECORDS = 100_000
"""Records, of all kinds; the one that was written or read longest ago goes first."""


class MemoryStore:
    """Implements :class:`requiretls_milter.store.Store`."""

    def __init__(self, max_records: int = MAX_RECORDS) -> None:
        self._max_records = max_records
        self._records: OrderedDict[tuple[StoreKind, str], tuple[bytes, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    async def get(self, kind: StoreKind, key: str, now: float) -> bytes | None:
        """The record, unless there is none or its time is over."""
        record = self._records.get((kind, key))
        if record is None:
            return None
        value, keep_until = record
        if keep_until <= now:
            del self._records[kind, key]
            return None
        self._records.move_to_end((kind, key))
        return value

    async def put(self, kind: StoreKind, key: str, value: bytes, keep_until: float) -> None:
        """Keep a record in the place of an earlier one."""
        self._records[kind, key] = (value, keep_until)
        self._records.move_to_end((kind, key))
        while len(self._records) > self._max_records:
            self._records.popitem(last=False)

    async def delete(self, kind: StoreKind, key: str) -> None:
        """Forget a record; there may be none."""
        self._records.pop((kind, key), None)

    async def close(self) -> None:
        """Forget everything."""
        self._records.clear()
