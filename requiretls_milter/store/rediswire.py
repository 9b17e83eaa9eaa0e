"""What goes between us and a Redis: records as octets, and replies of bounded size.

Each record is a string. Its first line repeats until when the record is good, so that a Redis with
a wrong clock makes nothing live longer, and holds the record's digest. With a secret of the fleet
the digest shows that a milter wrote the record.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Any

from redis import asyncio as aioredis
from redis import exceptions
from redis._parsers import _AsyncRESP2Parser

from requiretls_milter.store.base import (
    DIGEST,
    MAX_VALUE,
    Record,
    StoreDataError,
    StoreKind,
    digest,
)

SCAN_COUNT = 1_000
"""Keys that Redis looks at for one SCAN."""

MAX_REPLY = 4 << 20
"""Octets of the replies to one request: twice what a SCAN of the longest keys takes. Of longer ones
redis-py would read as much as the network brings until the deadline."""

MAX_ITEMS = 20 * SCAN_COUNT
"""Items of these replies, however nested: SCAN may return somewhat more than it was asked for."""

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


class RecordCodec:
    """Records as octets, and back.

    Args:
        secret: what the fleet shares; only records that were written with it are read. Empty:
            every client that may write is believed.
    """

    def __init__(self, secret: bytes = b"") -> None:
        self._form = AUTHENTIC if secret else PLAIN
        self._secret = hashlib.blake2b(secret, person=b"store").digest() if secret else b""

    def encode(self, kind: StoreKind, key: str, record: Record) -> bytes:
        """The octets of a record."""
        # The digest is that of the record as it will be read: with milliseconds.
        kept = Record(record.value, round(record.written, 3), round(record.keep_until, 3))
        times = b"%.3f %.3f" % (kept.written, kept.keep_until)
        return b"%b %b %b\n%b" % (self._form, times, self._digest(kind, key, kept), kept.value)

    def decode(self, kind: StoreKind, key: str, wire: bytes) -> Record | None:
        """The record in *wire*; None if there is none, or one of another form.

        Raises:
            StoreDataError: the octets are no record, or not the one of this kind and key.
        """
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

    def decode_head(self, wire: object) -> Record | None:
        """A record without its value, from its first line; None if that is none of ours.

        Without its value its digest cannot be checked.
        """
        head = HEADER.match(wire) if isinstance(wire, bytes) else None
        if head is None or head[1] != self._form:
            return None
        return Record(b"", float(head[2]), float(head[3]))

    def _digest(self, kind: StoreKind, key: str, record: Record) -> bytes:
        return digest(kind, key, record, self._secret).hex().encode("ascii")


class BoundedParser(_AsyncRESP2Parser):
    """Reads replies, and gives up those that no server of ours would send.

    The parser of hiredis, which redis-py prefers if it is installed, has no such bound.
    """

    _items = 0
    _octets = 0

    def renew(self) -> None:
        """Begin to count anew: a request is sent."""
        self._items = self._octets = 0

    async def _read_response(self, disable_decoding: bool = False) -> Any:
        self._items += 1
        if self._items > MAX_ITEMS:
            raise exceptions.InvalidResponse(f"a reply of more than {MAX_ITEMS} items")
        return await super()._read_response(disable_decoding)

    async def _read(self, length: int) -> bytes:
        self._count(length)
        return await super()._read(length)

    async def _readline(self) -> bytes:
        line = await super()._readline()
        self._count(len(line))
        return line

    def _count(self, octets: int) -> None:
        self._octets += octets
        if octets < 0 or self._octets > MAX_REPLY:
            raise exceptions.InvalidResponse(f"a reply of more than {MAX_REPLY} octets")


class _Bounded(aioredis.Connection):
    """A connection whose replies are bounded for each request, a pipeline of commands too."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, parser_class=BoundedParser)

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        """Send one request."""
        if isinstance(self._parser, BoundedParser):
            self._parser.renew()
        await super().send_packed_command(command, check_health)


class BoundedConnection(_Bounded):
    """In clear."""


class BoundedSslConnection(_Bounded, aioredis.SSLConnection):
    """Over TLS."""
