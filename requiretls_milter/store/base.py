"""What should outlive a restart, or be shared by a fleet.

A store keeps bytes by kind and key until a time. It knows nothing of what they
mean, and a store that fails is a store that knows nothing: the engine goes on.

Times are seconds since the epoch. A record tells when it was written and until
when it is good; neither a clock that was set back nor one that is wrong makes it
good for longer (:func:`alive`).
"""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

MAX_KEY = 1_024
"""Octets of a key: a name, an address and a port take at most some 600."""

MAX_VALUE = 131_072
"""Octets of a record: a policy of 64 KiB (RFC 8461 section 3.3) fits, and nearly every chain."""

MAX_RECORDS = 100_000
"""Records of all kinds, where the configuration says nothing else."""

MAX_BYTES = 64 << 20
"""Octets of all records, where the configuration says nothing else."""

MAX_LISTED = 100_000
"""Keys that are listed at once."""

DIGEST = 16
"""Octets of a record's digest."""

OVERHEAD = 128
"""Octets that a record takes beside its key and value, roughly, wherever it is kept."""

CLOCK_SKEW = 300.0
"""Seconds by which a record may come from the future: the clocks of a fleet differ a little."""

LONGEST = 366 * 86_400.0
"""Seconds that a record is good at most: RFC 8461 section 3.2 allows a policy a year."""


class StoreKind(enum.StrEnum):
    """What a record is; a key belongs to one kind."""

    MTA_STS_POLICY = "mta_sts_policy"
    OFFERED = "offered"  # what a host or domain offered: engine/downgrades.py
    PROBE = "probe"  # what a server did when it was called
    ATTEMPT = "attempt"  # a call of ours that failed, and when the next one may be


class StoreError(Exception):
    """A store that cannot be opened, read or written; the text says which and why."""


class StoreDataError(StoreError):
    """One record that is not as we write them; the others may be well."""


class StoreUnwritableError(StoreError):
    """It is there and can be read, but will not be written: it is full, or read-only."""


@dataclass(frozen=True, slots=True)
class Record:
    """A value, when it was written, and until when it is good."""

    value: bytes
    written: float
    keep_until: float


def alive(record: Record, now: float) -> bool:
    """Whether a record is good at *now*.

    One from the future was written under another clock: nobody knows how long
    it has been good, so that it is not (until the clock has caught up).
    """
    from_past = record.written <= now + CLOCK_SKEW
    return from_past and now < record.keep_until and now < record.written + LONGEST


def digest(kind: StoreKind, key: str, record: Record) -> bytes:
    """What is kept beside a record, of :data:`DIGEST` octets, so that damage to it shows.

    One flipped bit can make another name of a name, or another time of a time,
    that is as good to look at. It is of use against damage only: whoever can
    write records can write digests.
    """
    times = struct.pack("<dd", record.written, record.keep_until)
    hashed = hashlib.blake2b(times, digest_size=DIGEST)
    hashed.update(f"{kind.value}\0{key}\0".encode())
    hashed.update(record.value)
    return hashed.digest()


def size(key: str, value: bytes) -> int:
    """Octets that a record is taken to occupy."""
    return len(key) + len(value) + OVERHEAD


class Listed(NamedTuple):
    """A key, when its record was written, and until when it is good."""

    key: str
    written: float
    keep_until: float


class Store(Protocol):
    """Keeps records."""

    @property
    def shared(self) -> bool:
        """Whether others read and write the same records: a fleet."""
        ...

    async def start(self) -> None:
        """Open it; returns after a few seconds, also where that takes longer."""
        ...

    async def get(self, kind: StoreKind, key: str, now: float) -> bytes | None:
        """The record, unless there is none or its time is over.

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
        """What there is of a kind whose time is not over.

        Raises:
            StoreError: it cannot be read.
        """
        ...

    async def claim(self, kind: StoreKind, key: str, seconds: float) -> str | None:
        """Say that we are about to find out what would make this record.

        Returns:
            A token for :meth:`release`; None where somebody else of the fleet
            has said so, *seconds* ago at most.
        """
        ...

    async def release(self, kind: StoreKind, key: str, token: str) -> None:
        """Give a claim up; what was put before is there for the others by then."""
        ...

    async def close(self) -> None:
        """Write what is left to write."""
        ...


Change = tuple[StoreKind, str, Record | None]
"""A record that is to be kept under its kind and key; None: forgotten."""


class Backend(Protocol):
    """Where records are kept, without any stand-in: each operation may fail.

    All raise :class:`StoreError` where they cannot do what they should:
    :class:`StoreDataError` where only this one record is to blame,
    :class:`StoreUnwritableError` where it can still be read. Deadlines are
    seconds; whoever calls keeps them.
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
        """Open it, or see whether it still is."""
        ...

    async def get(self, kind: StoreKind, key: str, now: float) -> Record | None:
        """The record as it was written, also where its time is over."""
        ...

    async def write(self, changes: Sequence[Change]) -> None:
        """Make changes, all or some; they are made again where this fails."""
        ...

    async def listing(self, kind: StoreKind) -> list[tuple[str, Record]]:
        """Keys of a kind with records that may lack their values; :data:`MAX_LISTED` at most.

        Without its value nobody can tell whether a record is undamaged: what is
        listed is worth a look, and not more.
        """
        ...

    async def claim(self, kind: StoreKind, key: str, seconds: float) -> str | None:
        """See :meth:`Store.claim`."""
        ...

    async def release(self, kind: StoreKind, key: str, token: str) -> None:
        """See :meth:`Store.release`."""
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...
