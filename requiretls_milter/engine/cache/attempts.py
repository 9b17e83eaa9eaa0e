"""Failed attempts: a server or a name in trouble is not asked again and again (R61).

A failure to find something out proves nothing about a server. It is kept for a pause, and until
the pause ends it is the answer. The pause doubles with each failure. Failed sessions are stored
too, so that a service that restarts again and again does not call a server in trouble as often.
"""

from __future__ import annotations

from typing import NamedTuple

from requiretls_milter.clocks import Clocks, Life
from requiretls_milter.engine.cache.shelf import Entry
from requiretls_milter.engine.outage import OutageDetector
from requiretls_milter.engine.records import KeptAttempt, decode_attempt, encode_attempt
from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.model import MailProtocol, ProbeEvidence, ServerTarget
from requiretls_milter.store.base import StoreKind
from requiretls_milter.telemetry.labels import OutboundService

MAX_RETRY_AFTER = 900.0
"""Seconds to which probe.retry_after doubles while attempts fail."""


class SessionKey(NamedTuple):
    """Names a session in the store: the server, and what separates configurations."""

    server: ServerTarget
    scope: str

    def __str__(self) -> str:
        address, port, server_name, protocol = self.server
        lmtp = "lmtp " if protocol is MailProtocol.LMTP else ""
        return f"{lmtp}{address} {port} {server_name}{self.scope}"


class Attempts:
    """Says how long to wait after a failure, and remembers failed sessions over a restart (R61).

    Args:
        records: where failed sessions are stored.
        outage: says whether a failure is our own.
        clocks: by which pauses end.
        retry_after: seconds between the first two attempts if one fails.
        node: this host, since in a fleet the network of one host may be at fault.
    """

    def __init__(
        self,
        records: RecordStore,
        outage: OutageDetector,
        clocks: Clocks,
        *,
        retry_after: float,
        node: str,
    ) -> None:
        self._records = records
        self._outage = outage
        self._clocks = clocks
        self._retry_after = retry_after
        self._node = node
        self._longest_pause = max(MAX_RETRY_AFTER, retry_after)
        self._recall_until = clocks.monotonic() + self._longest_pause

    def next_pause(self, last: Entry | None, monotonic: float) -> float:
        """Seconds until the next attempt: twice the last pause if that failed not long ago.

        During an outage of our own failures say nothing of the other side, and the first
        success must not be long in coming: pauses do not double (R61).
        """
        if any(map(self._outage.is_out, OutboundService)):
            return self._retry_after
        longest = self._longest_pause
        if last is None or not last.pause or monotonic > last.life.monotonic_end + longest:
            return self._retry_after
        return min(2 * last.pause, longest)

    def stop_recalling(self) -> None:
        """Recall nothing from the store any more: an outage has ended, and failed with it."""
        self._recall_until = self._clocks.monotonic()

    async def recall(self, key: SessionKey) -> Entry | None:
        """What failed before this process was started, for the first time that it is asked.

        The entry may be over: it still makes the next pause twice as long. After the
        longest pause nothing that is stored can matter.
        """
        if self._clocks.monotonic() >= self._recall_until:
            return None
        wall, monotonic = self._clocks.wall(), self._clocks.monotonic()

        def decode(value: bytes) -> KeptAttempt | None:
            return decode_attempt(value, key.server.address, wall, self._longest_pause)

        kept = await self._records.read(StoreKind.ATTEMPT, self._record_key(key), decode, wall)
        if kept is None:
            return None
        ends = kept.found.expires
        life = Life(ends, monotonic + ends - wall)
        return Entry(kept.found, monotonic, life, kept.pause)

    async def keep(self, key: SessionKey, found: ProbeEvidence, pause: float) -> None:
        """Store a session that failed, with its pause; or that a later one did not (pause 0).

        Nothing is stored during an outage of our own: the first success is to end all pauses.
        """
        record, wall = self._record_key(key), self._clocks.wall()
        if not pause:
            await self._records.delete(StoreKind.ATTEMPT, record)
        elif not self._outage.is_out(OutboundService.SMTP):
            keep_until = found.expires + self._longest_pause
            value = encode_attempt(found, pause)
            await self._records.write(StoreKind.ATTEMPT, record, value, keep_until, wall)

    def _record_key(self, key: SessionKey) -> str:
        return f"{key}@{self._node}"
