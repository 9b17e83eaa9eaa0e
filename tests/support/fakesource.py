"""A live source that says what a test wants, counts, and takes as long as it is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

from requiretls_milter.evidence.gathering import ANY_AGE
from requiretls_milter.evidence.mta_sts import StsRecord
from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    MailProtocol,
    MtaStsEvidence,
    MxEvidence,
    MxRecord,
    ProbeEvidence,
    ProbeStage,
    ServerTarget,
    TlsaEvidence,
)


class Clocks:
    """Both clocks, which a test sets."""

    def __init__(self) -> None:
        self.wall_time = 1_000_000.0
        self.monotonic_time = 500.0

    def wall(self) -> float:
        return self.wall_time

    def monotonic(self) -> float:
        return self.monotonic_time

    def pass_(self, seconds: float) -> None:
        self.wall_time += seconds
        self.monotonic_time += seconds


class FakeSource:
    """Implements the cache's LiveSource. ``expires`` of what is scripted are seconds of life."""

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self.calls: Counter[str] = Counter()
        self.gate: asyncio.Event | None = None
        self.held: set[str] = set()
        """Kinds, or kinds with a key, that are never answered."""
        self.error: Exception | None = None
        self.script: dict[str, Any] = {}
        self.probed_ago = 0.0

    def good(self) -> FakeSource:
        """Every domain has one MX ``mx.<domain>`` with one address and a server that is well."""
        self.script = {
            "mx": MxEvidence(DnsOutcome.FOUND, True, expires=300),
            "addresses": AddressLookup(DnsOutcome.FOUND, True, ("192.0.2.1",), expires=300),
            "tlsa": TlsaEvidence(True, DnsOutcome.NODATA, True, expires=300),
            "mta_sts": MtaStsEvidence(expires=300),
            "probe": ProbeEvidence(
                "", ProbeStage.DONE, starttls_offered=True, requiretls=True, expires=3600
            ),
        }
        return self

    async def _say(self, kind: str, key: str) -> Any:
        self.calls[f"{kind} {key}"] += 1
        if self.gate is not None:
            await self.gate.wait()
        if {kind, f"{kind} {key}"} & self.held:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        found = self.script.get(f"{kind} {key}", self.script[kind])
        return replace(found, expires=self._clocks.wall() + found.expires)

    async def mx(self, domain: str, *, since: float = ANY_AGE) -> MxEvidence:
        found: MxEvidence = await self._say("mx", domain)
        if found.outcome is DnsOutcome.FOUND and not found.records:
            return replace(found, records=(MxRecord(10, f"mx.{domain}"),), canonical=domain)
        return found

    async def srv(self, name: str, *, since: float = ANY_AGE) -> MxEvidence:
        found: MxEvidence = await self._say("mx", name)
        return found

    async def mta_sts(self, domain: str, *, since: float = ANY_AGE) -> MtaStsEvidence:
        found: MtaStsEvidence = await self._say("mta_sts", domain)
        return replace(found, fetched_at=self._clocks.wall())

    async def mta_sts_record(self, domain: str) -> StsRecord:
        found: StsRecord = await self._say("record", domain)
        return found

    async def addresses(self, host: str, *, since: float = ANY_AGE) -> AddressLookup:
        found: AddressLookup = await self._say("addresses", host)
        return replace(found, canonical=host)

    async def tlsa(
        self, host: str, port: int, addresses: AddressLookup, *, since: float = ANY_AGE
    ) -> TlsaEvidence:
        found: TlsaEvidence = await self._say("tlsa", f"{host}:{port}")
        return found

    async def probe(self, server: ServerTarget, *, since: float = ANY_AGE) -> ProbeEvidence:
        lmtp = "lmtp " if server.protocol is MailProtocol.LMTP else ""
        asked = f"{lmtp}{server.address} {server.server_name}"
        found: ProbeEvidence = await self._say("probe", asked)
        return replace(
            found, address=server.address, probed_at=self._clocks.wall() - self.probed_ago
        )
