"""Records of the engine in the store: whatever goes wrong costs that record and no more.

A store that fails is a store that knows nothing, and a record that does not decode is no
record. Both are logged, and the engine finds out afresh.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from requiretls_milter.engine.records import RecordError
from requiretls_milter.store.base import Listed, Store, StoreError, StoreKind
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import StoreOperation

_log = log.get_logger("engine.cache")

T = TypeVar("T")


class RecordStore:
    """Reads and writes records; no method raises for what the store does.

    Args:
        store: holds the bytes.
        counters: where records that do not decode are counted.
    """

    def __init__(self, store: Store, counters: Counters) -> None:
        self._store = store
        self._counters = counters

    async def read(
        self, kind: StoreKind, key: str, decode: Callable[[bytes], T | None], now: float
    ) -> T | None:
        """Read and decode a record; None if there is none that is good at *now*.

        *decode* raises :class:`RecordError` for bytes that are no record.
        """
        try:
            value = await self._store.get(kind, key, now)
        except StoreError as error:
            _log.warning("store_failed", kind=kind, key=key, error=str(error))
            return None
        if value is None:
            return None
        try:
            return decode(value)
        except RecordError as error:
            self._counters.inc("store_errors_total", (StoreOperation.DECODE,))
            _log.warning("store_record_bad", kind=kind, key=key, error=str(error))
            return None

    async def write(
        self, kind: StoreKind, key: str, value: bytes, keep_until: float, now: float
    ) -> None:
        """Write a record in the place of an earlier one."""
        try:
            await self._store.put(kind, key, value, keep_until, now)
        except StoreError as error:
            _log.warning("store_failed", kind=kind, key=key, error=str(error))

    async def delete(self, kind: StoreKind, key: str) -> None:
        """Forget a record; there may be none."""
        try:
            await self._store.delete(kind, key)
        except StoreError as error:
            _log.warning("store_failed", kind=kind, key=key, error=str(error))

    async def listing(self, kind: StoreKind, now: float) -> list[Listed] | None:
        """List the records of a kind that are good at *now*; None if the store fails."""
        try:
            return await self._store.listing(kind, now)
        except StoreError as error:
            _log.warning("store_failed", kind=kind, error=str(error))
            return None
