"""One copy for a fleet: Redis or Valkey (``redis://``, ``rediss://``).

Each record is a string (:mod:`~requiretls_milter.store.rediswire`) under PREFIX KIND ``:`` KEY
that Redis forgets by itself when its time is over. Claims are short-lived keys beside the records:
the engine that holds one calls the server, the others wait.

Only plain commands are used (GETRANGE, SET, DEL, SCAN, and EVAL to give a claim up), so that
any server that speaks the protocol will do. Every client that may write to it is believed, unless
the fleet has a secret: then its digest shows that a milter wrote a record. Claims have none: at
worst two engines do the same work, or one waits for a while.
"""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from redis import asyncio as aioredis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from requiretls_milter.store.base import (
    LONGEST,
    MAX_LISTED,
    MAX_VALUE,
    Change,
    Record,
    StoreDataError,
    StoreError,
    StoreKind,
    StoreUnwritableError,
)
from requiretls_milter.store.rediswire import (
    MAX_HEADER,
    SCAN_COUNT,
    BoundedConnection,
    BoundedSslConnection,
    RecordCodec,
)

MAX_CONNECTIONS = 16
"""Connections at once; further operations wait for one of them."""

ANSWER_WAIT = 0.5
"""Seconds for one answer, connecting included: no assessment may wait long for it."""

LISTING_TIME = 1.0
"""Seconds for one listing. The keys of a large fleet take longer, those of all kinds: the next
listing goes on where this one ended."""

HEALTH_CHECK = 30.0
"""Seconds after which an idle connection is checked before it is used."""

RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
"""Deletes a claim, unless another engine has taken it in the meantime."""

_GLOB = re.compile(r"([\\*?\[\]^-])")


class RedisBackend:
    """Implements :class:`requiretls_milter.store.base.Backend`.

    Args:
        url: as redis-py reads it (``rediss://`` verifies certificate and name;
            ``?ssl_ca_certs=FILE`` names a private authority).
        prefix: of all our keys, since other programs may use the same database.
        secret: what the fleet shares; only records that were written with it are read. Empty:
            every client that may write is believed.
        wall: a clock, in seconds since the epoch.

    Raises:
        StoreError: the URL is not one.
    """

    shared = True
    open_deadline = 2.0
    read_deadline = ANSWER_WAIT
    write_deadline = 2.0

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        secret: bytes = b"",
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._prefix = prefix
        self._wall = wall
        self._codec = RecordCodec(secret)
        try:
            parts = urlsplit(url)
            port = f":{parts.port}" if parts.port else ""
            self.name = f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
            # A wrong name is as bad as a wrong authority; not every version of redis-py checks it.
            secure = parts.scheme == "rediss"
            tls = {"ssl_check_hostname": True} if secure else {}
            pool = aioredis.BlockingConnectionPool.from_url(
                url,
                max_connections=MAX_CONNECTIONS,
                timeout=ANSWER_WAIT,
                socket_timeout=ANSWER_WAIT,
                socket_connect_timeout=ANSWER_WAIT,
                health_check_interval=HEALTH_CHECK,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                client_name="requiretls-milter",
                **tls,
            )
        except ValueError as error:
            raise StoreError(f"store.url: {error}") from error
        pool.connection_class = BoundedSslConnection if secure else BoundedConnection
        self._cursors: dict[StoreKind, int] = {}
        self._pool = pool
        self._client: aioredis.Redis = aioredis.Redis(connection_pool=pool)

    def _key(self, kind: StoreKind, key: str) -> str:
        return f"{self._prefix}{kind}:{key}"

    def _claim_key(self, kind: StoreKind, key: str) -> str:
        return f"{self._prefix}claim:{kind}:{key}"

    async def open(self) -> None:
        """Check that it answers: it has loaded its data and accepts our password.

        The connections that are open are given up: what fails may be the server that they lead to,
        while another has its name or address by now.
        """
        self._cursors.clear()
        with _errors():
            await self._pool.disconnect(inuse_connections=False)
            await self._client.exists(f"{self._prefix}open")

    async def check(self) -> None:
        """Do nothing: that is the server's own affair."""

    async def get(self, kind: StoreKind, key: str, now: float) -> Record | None:
        """Read a record as it is; never more octets than this program would have written."""
        with _errors():
            wire = await self._client.getrange(self._key(kind, key), 0, MAX_HEADER + MAX_VALUE)
        if not isinstance(wire, bytes):
            raise StoreError("GETRANGE was not answered with a string")
        return self._codec.decode(kind, key, wire)

    async def write(self, changes: Sequence[Change]) -> None:
        """Make changes, in one round trip; some may have been made if it fails."""
        now = self._wall()
        pipeline = self._client.pipeline(transaction=False)
        for kind, key, record in changes:
            name = self._key(kind, key)
            if record is None or record.keep_until <= now:
                pipeline.delete(name)
            else:
                life = min(record.keep_until - now, LONGEST)
                wire = self._codec.encode(kind, key, record)
                pipeline.set(name, wire, px=max(1, math.floor(life * 1000)))
        with _errors():
            results = await pipeline.execute(raise_on_error=False)
            for result in results:
                if isinstance(result, Exception):
                    raise result

    async def listing(self, kind: StoreKind) -> list[tuple[str, Record]]:
        """List keys of a kind with records that lack their values; other strings are left out.

        They may be a part of all; then the next listing has further ones.
        """
        start = self._key(kind, "")
        found: list[tuple[str, Record]] = []
        cursor, ends = self._cursors.pop(kind, 0), time.monotonic() + LISTING_TIME
        with _errors():
            while True:
                cursor, names = await self._client.scan(
                    cursor, match=_GLOB.sub(r"\\\1", start) + "*", count=SCAN_COUNT
                )
                pipeline = self._client.pipeline(transaction=False)
                for name in names:
                    pipeline.getrange(name, 0, MAX_HEADER - 1)
                heads = await pipeline.execute(raise_on_error=False) if names else []
                for name, head in zip(names, heads, strict=True):
                    record = self._codec.decode_head(head)
                    if record is not None and isinstance(name, bytes):
                        found.append((name.decode("ascii", "replace")[len(start) :], record))
                if not cursor:
                    return found[:MAX_LISTED]
                if len(found) >= MAX_LISTED or time.monotonic() >= ends:
                    self._cursors[kind] = cursor
                    return found[:MAX_LISTED]

    async def claim(self, kind: StoreKind, key: str, seconds: float) -> str | None:
        """Return a token, unless another engine holds the claim."""
        token = secrets.token_hex(8)
        with _errors():
            held = await self._client.set(
                self._claim_key(kind, key), token, nx=True, px=max(1, int(seconds * 1000))
            )
        return token if held else None

    async def release(self, kind: StoreKind, key: str, token: str) -> None:
        """Give a claim up, if it is still held with this token."""
        with _errors():
            await self._client.eval(RELEASE, 1, self._claim_key(kind, key), token)

    async def close(self) -> None:
        """Close all connections."""
        with _errors():
            await self._client.aclose(close_connection_pool=True)


_UNWRITABLE = (
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.NoPermissionError,
)
_UNWRITABLE_WORDS = ("MISCONF ", "NOREPLICAS ")
"""How Redis says that it can be read but not written, for which redis-py has no class."""


_FAILURES = (
    exceptions.RedisError,
    OSError,
    EOFError,
    # What redis-py raises for a reply that is no reply, or not of the type that it should be.
    *(ValueError, TypeError, RecursionError),
)


@contextmanager
def _errors() -> Iterator[None]:
    """Turn the exceptions of redis-py into those of a store."""
    try:
        yield
    except exceptions.ResponseError as error:
        text = str(error)
        if text.startswith("WRONGTYPE "):
            raise StoreDataError(text) from error
        if isinstance(error, _UNWRITABLE) or text.startswith(_UNWRITABLE_WORDS):
            raise StoreUnwritableError(text) from error
        raise StoreError(text) from error
    except _FAILURES as error:
        raise StoreError(str(error) or type(error).__name__) from error
