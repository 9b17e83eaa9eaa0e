"""A cache over a scripted source, with clocks that stand still; several may share a store."""

from __future__ import annotations

import asyncio
from typing import Any

from requiretls_milter.config import Config, Limits
from requiretls_milter.engine.cache.source import CachedSource
from requiretls_milter.engine.outage import OutageDetector
from requiretls_milter.evidence.mta_sts import StsRecord
from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    MtaStsEvidence,
    MtaStsMode,
    MtaStsPolicy,
    ProbeEvidence,
    ServerTarget,
)
from requiretls_milter.store.base import Store
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.counting import Counters
from tests.support.fakesource import Clocks, FakeSource
from tests.support.stores import counted

ADDRESSES = AddressLookup(DnsOutcome.FOUND, True, ("192.0.2.1",), "mx.a.example")
POLICY = MtaStsPolicy(MtaStsMode.ENFORCE, ("mx.a.example",), 7 * 86400, "id1")
RETRY_AFTER = 60.0
RECORD_TTL = 300.0
"""Seconds that the TXT record of a policy lives."""
DAY = 86_400.0


def limited(**limits: float) -> Config:
    """A configuration with limits that no operator could set."""
    return Config(limits=Limits().model_copy(update=limits))


class CacheKit:
    """One engine's cache.

    Args:
        store: which may be that of another kit.
        config: the configuration.
        clocks: which may be those of another kit.
        node: the name of the host.
        outage: where answers are noted.
        authorities: the digest of those that vouch for policies.
    """

    def __init__(
        self,
        store: Store | None = None,
        config: Config | None = None,
        clocks: Clocks | None = None,
        *,
        node: str = "",
        outage: OutageDetector | None = None,
        authorities: str = "",
    ) -> None:
        self.store = MemoryStore() if store is None else store
        self.config = Config() if config is None else config
        self.clocks = Clocks() if clocks is None else clocks
        self.source = FakeSource(self.clocks).good()
        self.counters = Counters()
        self.random = 0.0
        self.cache = CachedSource(
            self.source,
            self.store,
            self.config,
            self.counters,
            authorities=authorities,
            outage=outage,
            node=node,
            clocks=self.clocks,
            jitter=lambda: self.random,
        )

    def restarted(self, config: Config | None = None, authorities: str = "") -> CacheKit:
        """Another process with the same store, after this one's end."""
        clocks = Clocks()
        clocks.wall_time, clocks.monotonic_time = self.clocks.wall_time, 7.0
        config = self.config if config is None else config
        return CacheKit(self.store, config, clocks, authorities=authorities)

    async def idle(self) -> None:
        """Let every task go on as far as it can without time passing."""
        for _ in range(100):
            await asyncio.sleep(0)

    def count(self, metric: str, *labels: str) -> float:
        return counted(self.counters, metric, *labels)

    # ------------------------------------------------------------ sessions

    async def probe(self, **options: Any) -> ProbeEvidence:
        return await self.cache.probe(ServerTarget("192.0.2.1", 25, "mx.a.example"), **options)

    @property
    def sessions(self) -> int:
        return sum(n for call, n in self.source.calls.items() if call.startswith("probe "))

    # ------------------------------------------------------------ policies

    def publish(self, policy: MtaStsPolicy = POLICY) -> None:
        expires = min(policy.max_age, RECORD_TTL)
        self.source.script["mta_sts"] = MtaStsEvidence(policy, expires=expires)
        self.source.script["record"] = StsRecord(policy.id, expires=RECORD_TTL)

    def withhold(self, error: str = "HTTP status 500") -> None:
        """From now on the policy has another id and cannot be fetched."""
        self.source.script["mta_sts"] = MtaStsEvidence(error=error, expires=300)
        self.source.script["record"] = StsRecord("another", expires=300)

    @property
    def fetches(self) -> int:
        return sum(n for call, n in self.source.calls.items() if call.startswith("mta_sts "))

    def refreshes(self, result: str) -> float:
        return self.count("mta_sts_refreshes_total", result)
