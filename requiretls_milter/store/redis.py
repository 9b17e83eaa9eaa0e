"""One copy for a fleet: Redis or Valkey (``redis://``, ``rediss://``).

Each record is a string under PREFIX KIND ``:`` KEY that Redis forgets by itself when its time
is over. Its first line repeats that time, so that a Redis with a wrong clock makes nothing live
longer, and holds the digest of the record. Claims are short-lived keys beside the records: the
engine that holds one calls the server, the others wait.

Only plain commands are used (GETRANGE, SET, DEL, SCAN, and EVAL to give a claim up), so that
any server that speaks the protocol will do. Every client that may write to it is believed, unless
the fleet has a secret: then its digest shows who wrote a record. Claims have none: at worst two
engines do the same work, or one waits for a while.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from redis import asyncio as aioredis
from redis import exceptions
from redis._parsers import _AsyncRESP2Parser
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
"""Connections at once; further operations wait for one of them."""

ANSWER_WAIT = 0.5
"""Seconds for one answer, connecting included: no assessment may wait long for it."""

HEALTH_CHECK = 30.0
"""Seconds after which an idle connection is checked before it is used."""

SCAN_COUNT = 1_000
"""Keys that Redis looks at for one SCAN."""

MAX_REPLY = 4 << 20
"""Octets of one reply: twice what a SCAN of the longest keys takes. Of a longer one redis-py would
read as much as the network brings until the deadline."""

MAX_ITEMS = 20 * SCAN_COUNT
"""Items of one reply, however they are nested: SCAN may return somewhat more than it was asked."""

_TIME = rb"(\d{1,12}(?:\.\d{1,6})?)"

PLAIN = b"RTLS2"
AUTHENTIC = b"RTLS3"
"""How a record begins, without and with a secret. Neither reads what the other has written."""

HEADER = re.compile(rb"(RTLS[23]) %b %b ([0-9a-f]{%d})\n" % (_TIME, _TIME, 2 * DIGEST))
"""The first line of a record: its form, when it was written, until when it is good, its digest."""

MAX_HEADER = 96
"""Octets of that line."""

ANY_FORM = re.compile(rb"(RTLS\d+) ")
"""How a record of any version begins. One of another form counts as no record, and not as damage:
in a fleet that is upgraded host by host, some engines write them."""

RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
"""Deletes a claim, unless another engine has taken it in the meantime."""

_GLOB = re.compile(r"([\\*?\[\]^-])")


class BoundedParser(_AsyncRESP2Parser):
    """Reads replies, and gives up one that no server of ours would send.

    The parser of hiredis, which redis-py prefers if it is installed, has no such bound.
    """

    _items = 0
    _octets = 0

    async def read_response(self, disable_decoding: bool = False) -> Any:
        """Read one reply."""
        self._items = self._octets = 0
        return await super().read_response(disable_decoding)

    async def _read_response(self, disable_decoding: bool = False) -> Any:
        self._items += 1
        if self._items > MAX_ITEMS:
            raise exceptions.InvalidResponse(f"a reply of more than {MAX_ITEMS} items")
        return await super()._read_response(disable_decoding)

    async def _read(self, length: int) -> bytes:
        self._octets += length
        if not 0 <= length <= MAX_REPLY or self._octets > MAX_REPLY:
            raise exceptions.InvalidResponse(f"a reply of more than {MAX_REPLY} octets")
        return await super()._read(length)


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
        self._form = AUTHENTIC if secret else PLAIN
        self._secret = hashlib.blake2b(secret, person=b"store").digest() if secret else b""
        try:
            parts = urlsplit(url)
            port = f":{parts.port}" if parts.port else ""
            self.name = f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
            # A wrong name is as bad as a wrong authority; not every version of redis-py checks it.
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
                parser_class=BoundedParser,
                **tls,
            )
        except ValueError as error:
            raise StoreError(f"store.url: {error}") from error
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
        with _errors():
            await self._pool.disconnect(inuse_connections=False)
            await self._client.exists(f"{self._prefix}open")

    async def get(self, kind: StoreKind, key: str, now: float) -> Record | None:
        """Read a record as it is; never more octets than this program would have written."""
        with _errors():
            wire = await self._client.getrange(self._key(kind, key), 0, MAX_HEADER + MAX_VALUE)
        if not isinstance(wire, bytes):
            raise StoreError("GETRANGE was not answered with a string")
        return self._decode(kind, key, wire)

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
                wire = self._encode(kind, key, record)
                pipeline.set(name, wire, px=max(1, math.floor(life * 1000)))
        with _errors():
            results = await pipeline.execute(raise_on_error=False)
            for result in results:
                if isinstance(result, Exception):
                    raise result

    async def listing(self, kind: StoreKind) -> list[tuple[str, Record]]:
        """List keys of a kind with records that lack their values; other strings are left out."""
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
                    if match is None or match[1] != self._form:
                        continue
                    if isinstance(name, bytes):
                        key = name.decode("ascii", "replace")[len(start) :]
                        found.append((key, Record(b"", float(match[2]), float(match[3]))))
                if not cursor or len(found) >= MAX_LISTED:
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

    def _encode(self, kind: StoreKind, key: str, record: Record) -> bytes:
        # The digest is that of the record as it will be read: with milliseconds.
        kept = Record(record.value, round(record.written, 3), round(record.keep_until, 3))
        times = b"%.3f %.3f" % (kept.written, kept.keep_until)
        return b"%b %b %b\n%b" % (self._form, times, self._digest(kind, key, kept), kept.value)

    def _decode(self, kind: StoreKind, key: str, wire: bytes) -> Record | None:
        form = ANY_FORM.match(wire)
        if not wire or (form is not None and form[1] != self._form):
            return None
        head = HEADER.match(wire)
        if head is None:
            raise StoreDataError(f"{kind}:{key} is no record of ours")
        value = wire[head.end() :]
        if len(value) > MAX_VALUE:
            raise StoreDataError(f"{kind}:{key} is longer than {MAX_VALUE} octets")
        record = Record(value, float(head[2]), float(head[3]))
        if not hmac.compare_digest(head[4], self._digest(kind, key, record)):
            raise StoreDataError(f"{kind}:{key} is damaged: not what its digest says")
        return record

    def _digest(self, kind: StoreKind, key: str, record: Record) -> bytes:
        return digest(kind, key, record, self._secret).hex().encode("ascii")


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
    except (
        exceptions.RedisError,
        OSError,
        ValueError,
        TypeError,
        EOFError,
        RecursionError,
    ) as error:
        raise StoreError(str(error) or type(error).__name__) from error
