"""What a store and its backend promise, and what they keep.

A store keeps bytes by kind and key until a time. Times are seconds since the epoch. A record
says when it was written and until when it is good; neither a clock that was set back nor one
that is wrong makes it good for longer (:func:`alive`).
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from requiretls_milter.errors import RequiretlsMilterError

MAX_KEY = 1_024
"""Octets of a key: a name, an address and a port take at most some 600."""

MAX_VALUE = 131_072
"""Octets of a record: a policy of 64 KiB (RFC 8461 section 3.3) fits, and nearly every chain."""

MAX_RECORDS = 100_000
"""Records of all kinds, unless configured."""

MAX_BYTES = 64 << 20
"""Octets of all records, unless configured."""

MAX_LISTED = 100_000
"""Keys that are listed at once."""

DIGEST = 16
"""Octets of a record's digest."""

OVERHEAD = 128
"""Octets that a record takes beside its key and value in a file, roughly."""

CLOCK_SKEW = 300.0
"""Seconds by which a record may be from the future: the clocks of a fleet differ a little."""

SWEEP_INTERVAL = 60.0
"""Seconds between two sweeps for records whose time is over."""

LONGEST = 366 * 86_400.0
"""Seconds that a record is good at most: RFC 8461 section 3.2 allows a policy a year."""


T = TypeVar("T")


class StoreKind(enum.StrEnum):
    """What a record is; a key belongs to one kind."""

    MTA_STS_POLICY = "mta_sts_policy"
    OFFERED = "offered"  # what a host or domain offered: engine/downgrades.py
    PROBE = "probe"  # what a server did when it was called
    ATTEMPT = "attempt"  # a call of ours that failed, and when the next one may be
    BUDGET = "budget"  # how often hosts were called lately: engine/turns/spending.py
    WATCHED = "watched"  # what is wrong with a watched domain: engine/watched/ownservers.py
    DOMAIN = "domain"  # since when a configured domain is as it is: engine/domains/record.py
    REPORT = "report"  # the figures of reports, day by day: engine/reportdays.py


class StoreError(RequiretlsMilterError):
    """A store cannot be opened, read or written; the text says which and why.

    The caller concludes that the store knows nothing at the moment, and goes on without it.
    """


class StoreDataError(StoreError):
    """One record is not as this program writes them.

    The caller concludes that there is no such record; the others may be undamaged.
    """


class StoreUnwritableError(StoreError):
    """The store can be read but not written: it is full, or read-only.

    The caller goes on reading, and keeps what it would have written in memory.
    """


@dataclass(frozen=True, slots=True)
class Record:
    """A value, when it was written, and until when it is good."""

    value: bytes
    written: float
    keep_until: float


def alive(record: Record, now: float) -> bool:
    """Whether a record is good at *now*.

    A record from the future was written under another clock. How long it has been
    good is unknown, so it is not, until the clock has caught up (R61).
    """
    from_past = record.written <= now + CLOCK_SKEW
    return from_past and now < record.keep_until and now < record.written + LONGEST


def digest(kind: StoreKind, key: str, record: Record, secret: bytes = b"") -> bytes:
    """The :data:`DIGEST` octets that are kept beside a record, so that damage to it shows.

    One flipped bit can turn a name or a time into another that looks as valid. Without a
    secret of at most 64 octets a digest helps against damage only: an attacker who can write
    records can write digests.
    """
    times = struct.pack("<dd", record.written, record.keep_until)
    hashed = hashlib.blake2b(times, digest_size=DIGEST, key=secret)
    hashed.update(f"{kind.value}\0{key}\0".encode())
    hashed.update(record.value)
    return hashed.digest()


def size(key: str, value: bytes) -> int:
    """Octets that a record counts for in a file."""
    return len(key) + len(value) + OVERHEAD


class Listed(NamedTuple):
    """A key, when its record was written, and until when it is good."""

    key: str
    written: float
    keep_until: float


class Store(Protocol):
    """Keeps records for the engine."""

    @property
    def shared(self) -> bool:
        """Whether other engines read and write the same records: a fleet."""
        ...

    async def start(self) -> None:
        """Open it; returns after a few seconds, even if opening takes longer."""
        ...

    async def get(self, kind: StoreKind, key: str, now: float) -> bytes | None:
        """Read a record; None if there is none or its time is over.

        Raises:
            StoreError: it cannot be read.
        """
        ...

    async def put(
        self, kind: StoreKind, key: str, value: bytes, keep_until: float, now: float
    ) -> None:
        """Keep a record in the place of an earlier one.

        Raises:
            StoreError: it cannot be written.
        """
        ...

    async def delete(self, kind: StoreKind, key: str) -> None:
        """Forget a record; there may be none.

        Raises:
            StoreError: it cannot be written.
        """
        ...

    async def listing(self, kind: StoreKind, now: float) -> list[Listed]:
        """List the records of a kind whose time is not over.

        Raises:
            StoreError: it cannot be read.
        """
        ...

    async def claim(self, kind: StoreKind, key: str, seconds: float) -> str | None:
        """Claim the work that will make this record.

        Returns:
            A token for :meth:`release`; None if another engine of the fleet has claimed
            it, *seconds* ago at most.
        """
        ...

    async def release(self, kind: StoreKind, key: str, token: str) -> None:
        """Give a claim up; what was put before it is visible to the others by then."""
        ...

    async def close(self) -> None:
        """Write what is left to write."""
        ...


Change = tuple[StoreKind, str, Record | None]
"""A record to keep under its kind and key; None: to forget."""


class Backend(Protocol):
    """Where records are kept, without any stand-in: each operation may fail.

    An operation that fails raises :class:`StoreError`: :class:`StoreDataError` if only
    this one record is at fault, :class:`StoreUnwritableError` if it can still be read.
    Deadlines are seconds, and for the caller to enforce.
    """

    shared: bool
    open_deadline: float
    read_deadline: float
    write_deadline: float

    @property
    def name(self) -> str:
        """The URL, without passwords."""
        ...

    async def open(self) -> None:
        """Open it, or check that it still is open."""
        ...

    async def check(self) -> None:
        """Look whether what is stored is sound, however long it takes; others go first."""
        ...

    async def get(self, kind: StoreKind, key: str, now: float) -> Record | None:
        """Read a record as it was written, even if its time is over."""
        ...

    async def write(self, changes: Sequence[Change]) -> None:
        """Make changes, all or some; the caller repeats them if this fails."""
        ...

    async def listing(self, kind: StoreKind) -> list[tuple[str, Record]]:
        """List keys of a kind with records that may lack values; :data:`MAX_LISTED` at most.

        A backend that has too many to list them in time lists some of them, and others the next
        time. Without its value a record cannot be checked for damage: a listing is a hint to
        read the record, and no more.
        """
        ...

    async def claim(self, kind: StoreKind, key: str, seconds: float) -> str | None:
        """See :meth:`Store.claim`."""
        ...

    async def release(self, kind: StoreKind, key: str, token: str) -> None:
        """See :meth:`Store.release`."""
        ...

    async def close(self) -> None:
        """Close it."""
        ...


PIECE = 500
"""Values that are worked on in one turn of the loop: about a millisecond."""


async def taken_in_turns(values: list[T]) -> AsyncIterator[list[T]]:
    """Take values out of a list in pieces, the last ones first; between two others have their turn.

    What is taken out can be freed, so that not all of it is freed in one turn.
    """
    while values:
        piece = values[-PIECE:]
        del values[-PIECE:]
        yield piece
        await asyncio.sleep(0)
