"""One copy for a fleet: Redis or Valkey (``redis://``, ``rediss://``).

Each record is a string under PREFIX KIND ``:`` KEY that Redis forgets by itself
when its time is over; its first line tells, in our own words, when that is, so
that a Redis with another idea of time makes nothing live longer, and what the
digest of all of it is. Claims are short-lived keys beside them: who holds one
calls the server, the others wait.

Only plain commands are used (GETRANGE, SET, DEL, SCAN, and EVAL to give a claim
up), so that anything that speaks the protocol will do. Whoever may write to it
is believed: an access list and TLS are the operator's.
"""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast
from urllib.parse import urlsplit

from redis import asyncio as aioredis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from requiretls_milter.store.base import (
    DIGEST,
    LONGEST,
    MAX_LISTED,
    MAX_VALUE,
    Change,
    Record,
    StoreDataError,
    StoreError,
    StoreKind,
    StoreUnwritableError,
    digest,
)

MAX_CONNECTIONS = 16
"""To the server at once; more operations than that wait for one."""

ANSWER_WAIT = 0.5
"""Seconds for one answer, connecting included: an assessment must not wait for it for long."""

HEALTH_CHECK = 30.0
"""Seconds for which a connection may have been idle and still be used unasked."""

SCAN_COUNT = 1_000
"""Keys that Redis looks at for one SCAN."""

_TIME = rb"(\d{1,12}(?:\.\d{1,6})?)"

HEADER = re.compile(rb"RTLS2 %b %b ([0-9a-f]{%d})\n" % (_TIME, _TIME, 2 * DIGEST))
"""The first line of a record: when it was written, until when it is good, and its digest."""

MAX_HEADER = 96
"""Octets of that line."""

OTHER_FORM = re.compile(rb"RTLS(?!2 )\d+ ")
"""How a record of another version begins. It is none for us, and no damage either: in a fleet
whose milters are upgraded one after the other some write them."""

RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
"""Give a claim up, but not one that has passed to somebody else meanwhile."""

_GLOB = re.compile(r"([\\*?\[\]^-])")


class RedisBackend:
    """Implements :class:`requiretls_milter.store.base.Backend`.

    Args:
        url: as redis-py reads it (``rediss://`` verifies certificate and name;
            ``?ssl_ca_certs=FILE`` for an authority of one's own).
        prefix: of all our keys, where others use the same database.
        wall: a clock.

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
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._prefix = prefix
        self._wall = wall
        try:
            parts = urlsplit(url)
            port = f":{parts.port}" if parts.port else ""
            self.name = f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
            # A name that does not match is no less an attack than a false authority; redis-py
            # has not always looked at it.
            tls = {"ssl_check_hostname": True} if parts.scheme == "rediss" else {}
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
        self._client: aioredis.Redis = aioredis.Redis(connection_pool=pool)

    def _key(self, kind: StoreKind, key: str) -> str:
        return f"{self._prefix}{kind}:{key}"

    def _claim_key(self, kind: StoreKind, key: str) -> str:
        return f"{self._prefix}claim:{kind}:{key}"

    async def open(self) -> None:
        """See whether it answers, as one does that has loaded its data and knows our password."""
        with _errors():
            await self._client.exists(f"{self._prefix}open")

    async def get(self, kind: StoreKind, key: str, now: float) -> Record | None:
        """The record as it is; never more of it than we would have written."""
        with _errors():
            wire = await self._client.getrange(self._key(kind, key), 0, MAX_HEADER + MAX_VALUE)
        return _decode(kind, key, cast(bytes, wire))

    async def write(self, changes: Sequence[Change]) -> None:
        """Make changes, in one round trip; some may have been made where it fails."""
        now = self._wall()
        pipeline = self._client.pipeline(transaction=False)
        for kind, key, record in changes:
            name = self._key(kind, key)
            if record is None or record.keep_until <= now:
                pipeline.delete(name)
            else:
                life = min(record.keep_until - now, LONGEST)
                wire = _encode(kind, key, record)
                pipeline.set(name, wire, px=max(1, math.floor(life * 1000)))
        with _errors():
            results = await pipeline.execute(raise_on_error=False)
            for result in results:
                if isinstance(result, Exception):
                    raise result

    async def listing(self, kind: StoreKind) -> list[tuple[str, Record]]:
        """Keys of a kind with records that lack their values; those that are none are left out."""
        start = self._key(kind, "")
        found: list[tuple[str, Record]] = []
        cursor = 0
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
                    match = HEADER.match(head) if isinstance(head, bytes) else None
                    if match is not None:
                        key = cast(bytes, name).decode("ascii", "replace")[len(start) :]
                        found.append((key, Record(b"", float(match[1]), float(match[2]))))
                if not cursor or len(found) >= MAX_LISTED:
                    return found[:MAX_LISTED]

    async def claim(self, kind: StoreKind, key: str, seconds: float) -> str | None:
        """A token, unless somebody else holds the claim."""
        token = secrets.token_hex(8)
        with _errors():
            held = await self._client.set(
                self._claim_key(kind, key), token, nx=True, px=max(1, int(seconds * 1000))
            )
        return token if held else None

    async def release(self, kind: StoreKind, key: str, token: str) -> None:
        """Give a claim up, if it still is ours."""
        with _errors():
            await self._client.eval(RELEASE, 1, self._claim_key(kind, key), token)

    async def close(self) -> None:
        """Close all connections."""
        with _errors():
            await self._client.aclose(close_connection_pool=True)


def _encode(kind: StoreKind, key: str, record: Record) -> bytes:
    # The digest is that of the record as it will be read: with milliseconds.
    kept = Record(record.value, round(record.written, 3), round(record.keep_until, 3))
    fits = digest(kind, key, kept).hex()
    return f"RTLS2 {kept.written:.3f} {kept.keep_until:.3f} {fits}\n".encode("ascii") + kept.value


def _decode(kind: StoreKind, key: str, wire: bytes) -> Record | None:
    if not wire or OTHER_FORM.match(wire):
        return None
    head = HEADER.match(wire)
    if head is None:
        raise StoreDataError(f"{kind}:{key} is no record of ours")
    value = wire[head.end() :]
    if len(value) > MAX_VALUE:
        raise StoreDataError(f"{kind}:{key} is longer than {MAX_VALUE} octets")
    record = Record(value, float(head[1]), float(head[2]))
    if head[3] != digest(kind, key, record).hex().encode("ascii"):
        raise StoreDataError(f"{kind}:{key} is damaged: not what its digest says")
    return record


_UNWRITABLE = (
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.NoPermissionError,
)
_UNWRITABLE_WORDS = ("MISCONF ", "NOREPLICAS ")
"""How Redis says that it can be read and will not be written, where redis-py has no class."""


@contextmanager
def _errors() -> Iterator[None]:
    """Make of what redis-py raises what a store raises."""
    try:
        yield
    except exceptions.ResponseError as error:
        text = str(error)
        if text.startswith("WRONGTYPE "):
            raise StoreDataError(text) from error
        if isinstance(error, _UNWRITABLE) or text.startswith(_UNWRITABLE_WORDS):
            raise StoreUnwritableError(text) from error
        raise StoreError(text) from error
    except (exceptions.RedisError, OSError, ValueError, EOFError, RecursionError) as error:
        raise StoreError(str(error) or type(error).__name__) from error
