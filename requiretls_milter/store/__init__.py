"""What should outlive a restart: MTA-STS policies, evidence, what was good last.

A store keeps bytes by kind and key until a time. It knows nothing of what they
mean, and a store that fails is a store that knows nothing: the engine goes on.
"""

from __future__ import annotations

import enum
from typing import Protocol


class StoreKind(enum.StrEnum):
    """What a record is; a key belongs to one kind."""

    MTA_STS_POLICY = "mta_sts_policy"
    OFFERED = "offered"  # what a host or domain offered: engine/downgrades.py


class StoreError(Exception):
    """A store that cannot be opened, read or written; the text says which and why."""


class Store(Protocol):
    """Keeps records. Times are seconds since the epoch."""

    async def get(self, kind: StoreKind, key: str, now: float) -> bytes | None:
        """The record, unless there is none or its time is over.

        Raises:
            StoreError: it cannot be read.
        """
        ...

    async def put(self, kind: StoreKind, key: str, value: bytes, keep_until: float) -> None:
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

    async def close(self) -> None:
        """Write what is left to write."""
        ...
