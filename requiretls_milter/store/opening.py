"""Opening the store that a URL names."""

from __future__ import annotations

from requiretls_milter.store.base import MAX_BYTES, MAX_RECORDS, Backend, Store, StoreError
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.store.steady import MAX_PENDING, SteadyStore
from requiretls_milter.syntax.endpoint import StoreUrl
from requiretls_milter.telemetry.counting import Counters, Gauges

DEFAULT_PREFIX = "requiretls-milter:"


def open_store(
    where: StoreUrl,
    counters: Counters,
    gauges: Gauges,
    *,
    max_records: int = MAX_RECORDS,
    max_bytes: int = MAX_BYTES,
    key_prefix: str = DEFAULT_PREFIX,
    secret: bytes = b"",
    max_pending: int = MAX_PENDING,
) -> Store:
    """Make the store at ``store.url``; nothing is read or written before :meth:`Store.start`.

    Args:
        where: ``store.url``.
        counters, gauges: where failures are counted, and ``store_up`` is shown.
        max_records, max_bytes: bounds of what is kept in memory or in a file;
            Redis has bounds of its own (maxmemory).
        key_prefix: of the keys in Redis.
        secret: with which records in Redis are authenticated; empty: they are not.
        max_pending: changes that wait for a store that is slow or gone.

    Raises:
        StoreError: there can never be one: the URL names no kind of store, or the extra
            ``redis`` is not installed.
    """
    backend: Backend
    if where.kind == "memory":
        gauges.set("store_up", 1.0)
        return MemoryStore(max_records, max_bytes, counters)
    if where.kind == "sqlite":
        # Each kind of store is imported only when it is used: redis-py need not be installed.
        from requiretls_milter.store.sqlite import SqliteBackend

        backend = SqliteBackend(where.path, counters, max_records=max_records, max_bytes=max_bytes)
    else:
        try:
            from requiretls_milter.store.redis import RedisBackend
        except ImportError as error:
            raise StoreError(
                f'store.url: Redis needs the extra "redis" (pip install '
                f"requiretls-milter[redis]): {error}"
            ) from error
        backend = RedisBackend(str(where), prefix=key_prefix, secret=secret)
    return SteadyStore(backend, counters, gauges, max_pending=max_pending)
