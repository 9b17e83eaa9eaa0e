"""The live source, watched for an outage of our own, and the rechecks that tell one.

Every answer of the resolver and of a server goes through here on its way to the cache, so that
the outage detector sees it. When many fail at once, some servers that answered lately are called
again, past everything that is kept: only that tells whether it is they or we.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from requiretls_milter.engine.cache.flights import report_lost
from requiretls_milter.engine.outage import (
    NameTarget,
    OutageDetector,
    ReachabilityMonitor,
    Target,
    could_not_connect,
)
from requiretls_milter.evidence.gathering import EvidenceSource
from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    MxEvidence,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    ServerTarget,
)
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import ProbeResult

RECHECK_TICK = 5.0
"""Seconds between two checks whether an outage of our own is suspected."""

MIN_RECHECK_INTERVAL = 60.0
MAX_RECHECK_INTERVAL = 300.0
"""Seconds between two rechecks: probe.retry_after, within these limits. Rechecks must neither
burden the servers nor let an outage go on unseen for long."""

L = TypeVar("L", MxEvidence, AddressLookup)


class WatchedSource:
    """Asks the live source, and shows each answer to the outage detector.

    Args:
        source: finds out afresh each time.
        outage: is shown what failed and what did not.
        counters: where sessions are counted.
        retry_after: seconds between two rechecks, within limits.
        timeout: seconds for one recheck.
        clock: the time, seconds since the epoch.
        on_recovery: called when the other side can be reached again after an outage.
    """

    def __init__(
        self,
        source: EvidenceSource,
        outage: OutageDetector,
        counters: Counters,
        *,
        retry_after: float,
        timeout: float,
        on_recovery: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._clock = clock
        self._outage = outage
        self._counters = counters
        self._interval = min(max(retry_after, MIN_RECHECK_INTERVAL), MAX_RECHECK_INTERVAL)
        self._timeout = timeout
        self._on_recovery = on_recovery

    async def mx(self, domain: str) -> MxEvidence:
        """Look up the MX records of a domain."""
        return await self._look_up(self._source.mx, domain)

    async def srv(self, name: str) -> MxEvidence:
        """Look up the SRV records of a service."""
        return await self._look_up(self._source.srv, name)

    async def addresses(self, host: str) -> AddressLookup:
        """Look up the addresses of a host."""
        return await self._look_up(self._source.addresses, host)

    async def _look_up(self, look_up: Callable[[str], Awaitable[L]], name: str) -> L:
        found = await look_up(name)
        if self._outage.saw_lookup(name, found):
            self._on_recovery()
        return found

    async def probe(self, server: ServerTarget) -> ProbeEvidence:
        """Hold a session with a server."""
        asked_at = self._clock()
        found = await self._source.probe(server)
        if found.probed_at < asked_at:
            return found  # what another name of the address met before: no session was held
        if found.stage is not ProbeStage.NOT_PROBED or found.failure is not None:
            self._counters.inc("probes_total", (_probe_result(found),))
        if self._outage.saw_probe(found, server):
            self._on_recovery()
        return found

    async def recheck(self) -> None:
        """If an outage is suspected or under way, call some servers again; else do nothing.

        To be awaited every few seconds, once at a time.
        """
        async with asyncio.TaskGroup() as tasks:
            for monitor, targets in self._outage.due_rechecks(self._interval):
                tasks.create_task(self._recheck(monitor, targets))

    async def _recheck(self, monitor: ReachabilityMonitor, targets: Sequence[Target]) -> None:
        found = await asyncio.gather(*map(self._error_of, targets))
        errors = dict(zip(targets, found, strict=True))
        unreachable = {target: error for target, error in errors.items() if error}
        if None not in found:
            if not unreachable:
                return  # none of them could be asked
            unreachable = {target: error or "" for target, error in errors.items()}
        self._outage.rechecked(monitor, unreachable)

    async def _error_of(self, target: Target) -> str | None:
        """Ask one target; returns why it could not be reached, None if it could.

        "" says that it could not be asked, since its budget is spent: the others decide.
        What is kept of it stands: that it cannot be reached now may be our fault.
        """
        try:
            async with asyncio.timeout(self._timeout):
                if isinstance(target, ServerTarget):
                    session = await self.probe(target)
                    if session.stage is ProbeStage.NOT_PROBED:
                        return ""
                    return session.error if could_not_connect(session) else None
                return await self._lookup_error(target)
        except Exception as error:  # noqa: BLE001 - it must not end the other rechecks
            report_lost(("again", target), error, self._timeout)
            return None

    async def _lookup_error(self, target: NameTarget) -> str | None:
        found: MxEvidence | AddressLookup
        if target.is_domain:
            found = await self.mx(target.name)
        else:
            found = await self.addresses(target.name)
        if found.unasked:
            return ""
        return found.error if found.outcome is DnsOutcome.ERROR else None


_PROBE_RESULTS = {
    ProbeStage.CONNECT: ProbeResult.CONNECT,
    ProbeStage.BANNER: ProbeResult.BANNER,
    ProbeStage.EHLO: ProbeResult.EHLO,
    ProbeStage.STARTTLS: ProbeResult.STARTTLS,
    ProbeStage.HANDSHAKE: ProbeResult.HANDSHAKE,
    ProbeStage.EHLO_TLS: ProbeResult.EHLO_TLS,
    ProbeStage.DONE: ProbeResult.DONE,
}


def _probe_result(found: ProbeEvidence) -> ProbeResult:
    if found.failure is ProbeFailure.FORBIDDEN:
        return ProbeResult.FORBIDDEN
    return _PROBE_RESULTS.get(found.stage, ProbeResult.CONNECT)
