"""A fleet: milters on several hosts that share a store, and probe each server only once.

Before an engine calls a server or fetches a policy it *claims* the record that will come of it.
The engine that holds the claim does the work and stores the result; the others look into the
store until it is there. A claim ends by itself after a while, so that an engine that dies does
not keep the others waiting.

What only one engine need do, such as to look through all that is stored, one of them does until it
ends: it holds a claim, and renews it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from requiretls_milter.store.base import Store, StoreKind
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import FleetResult

CLAIM_LIFE = 30.0
"""Seconds for which a claim is valid: most sessions take a few."""

FLEET_WAIT = 8.0
"""Seconds that the others wait for the result: postscreen keeps a client waiting for six."""

FIRST_LOOK = 0.05
LAST_LOOK = 0.5
"""Seconds between two looks into the store for it."""

MAX_IN_VAIN = 3
"""Waits in vain within :data:`VAIN_PERIOD` after which this engine waits no more: it may be that
claims are never given up because another program holds them."""

VAIN_PERIOD = 600.0
"""Seconds after which a wait in vain is forgotten."""

LEAD, LEAD_LIFE = "*", 1_800.0
"""The key of the claim for what only one engine does, and the seconds for which it is valid: three
passes over the policies. No domain or server is called so."""

WAIT_JITTER = 0.1
"""Part of the wait that is added at random."""

T = TypeVar("T")


class Fleet:
    """Agrees with the other engines on the same store which of them does the work.

    Args:
        store: which may be shared.
        counters: where it is counted which engine did the work.
        jitter: gives a number from 0 to 1.
    """

    def __init__(self, store: Store, counters: Counters, jitter: Callable[[], float]) -> None:
        self._store = store
        self._counters = counters
        self._jitter = jitter
        self._in_vain: deque[float] = deque(maxlen=MAX_IN_VAIN)
        self._lead: str | None = None

    @property
    def exists(self) -> bool:
        """Whether the store is shared with other engines."""
        return self._store.shared

    async def leads(self, kind: StoreKind, scope: str) -> bool:
        """Whether this engine does what only one need do; to be asked each time before it is done.

        Args:
            kind: of the records that it is done to.
            scope: what separates those that this engine can use from others.
        """
        if not self.exists:
            return True
        key = LEAD + scope
        if self._lead:
            await self._store.release(kind, key, self._lead)
        self._lead = await self._store.claim(kind, key, LEAD_LIFE)
        return self._lead is not None

    async def find_once(
        self,
        kind: StoreKind,
        key: str,
        stored: Callable[[], Awaitable[T | None]],
        find: Callable[[], Awaitable[T]],
    ) -> T:
        """Find something, unless another engine does so at this moment: then wait for its result.

        Args:
            kind, key: the record that *find* may put into the store.
            stored: reads it from the store; None if that is not good enough.
            find: finds it; called after all if the other engine takes too long.
        """
        if not self.exists:
            return await find()
        token = await self._store.claim(kind, key, CLAIM_LIFE)
        result = FleetResult.OURS
        found: T | None = None
        if token is not None:
            found = await stored()  # another engine may have ended just before this claim
        else:
            if self._may_wait():
                token, found = await self._wait(kind, key, stored)
                if token is None and found is None:
                    self._in_vain.append(asyncio.get_running_loop().time())
            if token is None:
                result = FleetResult.IN_VAIN
        try:
            if found is not None:
                result = FleetResult.THEIRS
                return found
            return await find()
        finally:
            self._counters.inc("fleet_flights_total", (result,))
            if token:
                await self._store.release(kind, key, token)

    def _may_wait(self) -> bool:
        """Whether a wait for another engine is likely to be worth it."""
        if len(self._in_vain) < MAX_IN_VAIN:
            return True
        return asyncio.get_running_loop().time() - self._in_vain[0] > VAIN_PERIOD

    async def _wait(
        self, kind: StoreKind, key: str, stored: Callable[[], Awaitable[T | None]]
    ) -> tuple[str | None, T | None]:
        """Wait for another engine's result; returns our own claim if that engine gave its up."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + FLEET_WAIT * (1.0 + WAIT_JITTER * self._jitter())
        pause = FIRST_LOOK
        token: str | None = None
        found: T | None = None
        while token is None and found is None and loop.time() < ends:
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, LAST_LOOK)
            token = await self._store.claim(kind, key, CLAIM_LIFE)
            found = await stored()
        return token, found
