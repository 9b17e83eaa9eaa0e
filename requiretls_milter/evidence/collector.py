"""The live source of evidence: each question goes out to the network."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from requiretls_milter.evidence.addresses import AddressPolicy
from requiretls_milter.evidence.budgets import Budgets
from requiretls_milter.evidence.dns import Resolver
from requiretls_milter.evidence.gathering import ANY_AGE, EvidenceSource, profiles_of
from requiretls_milter.evidence.mta_sts import MtaStsFetcher, StsRecord
from requiretls_milter.evidence.policyhost import HTTPS_PORT
from requiretls_milter.evidence.probe import Prober
from requiretls_milter.evidence.published import find_published
from requiretls_milter.evidence.tlsa import find_tlsa
from requiretls_milter.evidence.turns import Limiters
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.model import (
    AddressLookup,
    DomainEvidence,
    MtaStsEvidence,
    MxEvidence,
    ProbeEvidence,
    PublishedEvidence,
    ServerTarget,
    TlsaEvidence,
)
from requiretls_milter.telemetry.counting import Counters

if TYPE_CHECKING:
    from requiretls_milter.config import Config

Looked = TypeVar("Looked", MxEvidence, MtaStsEvidence, AddressLookup, TlsaEvidence)


class Collector(EvidenceSource):
    """The live source: each question goes out to the network.

    Args:
        config: name servers, limits, and how to probe.
        trust: the authorities that vouch for policies.
        limiters: say when a lookup, a fetch or a session may begin.
        policy_port: the port of policy hosts.
        clock: the time, seconds since the epoch.
        counters: where it is counted that a bound of ``[limits]`` is met.
        budgets: what strangers' names may cause; None for new ones.
    """

    def __init__(
        self,
        config: Config,
        trust: TrustStore,
        *,
        limiters: Limiters,
        policy_port: int = HTTPS_PORT,
        clock: Callable[[], float] = time.time,
        counters: Counters | None = None,
        budgets: Budgets | None = None,
    ) -> None:
        probe, limits = config.probe, config.limits
        counters = counters or Counters()
        budgets = budgets or Budgets(limits, counters)
        policy = AddressPolicy(probe.allow_networks)
        protocols = {name for profile in profiles_of(config) for name in profile.inet_protocols}
        self._clock = clock
        self._smtp_port = probe.port
        self.resolver = Resolver(
            config.dns.nameservers,
            config.dns.timeout,
            tuple(protocols),
            clock,
            limiter=limiters.lookups,
            budgets=budgets,
        )
        """The resolver; its ``trusted`` belongs to the self-test."""
        self._mta_sts = MtaStsFetcher(
            self.resolver,
            policy,
            trust.authorities,
            port=policy_port,
            timeout=limits.fetch_timeout,
            limiter=limiters.fetches,
            clock=clock,
            counters=counters,
            budgets=budgets,
        )
        self._prober = Prober(policy, probe, limiter=limiters.probes, clock=clock, budgets=budgets)

    async def mx(self, domain: str, *, since: float = ANY_AGE) -> MxEvidence:
        """See :meth:`Resolver.mx`."""
        return self._observed(await self.resolver.mx(domain))

    async def srv(self, name: str, *, since: float = ANY_AGE) -> MxEvidence:
        """See :meth:`Resolver.srv`."""
        return self._observed(await self.resolver.srv(name))

    async def mta_sts_record(self, domain: str) -> StsRecord:
        """Look up the TXT record alone: it says whether a policy that is kept is still current."""
        return await self._mta_sts.record(domain)

    async def mta_sts(self, domain: str, *, since: float = ANY_AGE) -> MtaStsEvidence:
        """See :meth:`MtaStsFetcher.policy`."""
        return self._observed(await self._mta_sts.policy(domain))

    async def published(self, evidence: DomainEvidence) -> PublishedEvidence:
        """See :func:`find_published`."""
        return await find_published(self.resolver, self._mta_sts, evidence, self._smtp_port)

    async def addresses(self, host: str, *, since: float = ANY_AGE) -> AddressLookup:
        """See :meth:`Resolver.addresses`."""
        return self._observed(await self.resolver.addresses(host))

    async def tlsa(
        self, host: str, port: int, addresses: AddressLookup, *, since: float = ANY_AGE
    ) -> TlsaEvidence:
        """See :func:`find_tlsa`."""
        found = await find_tlsa(self.resolver, host, port, addresses, self._clock)
        return self._observed(found)

    async def probe(self, server: ServerTarget, *, since: float = ANY_AGE) -> ProbeEvidence:
        """See :meth:`Prober.probe`."""
        return await self._prober.probe(server)

    def _observed(self, found: Looked) -> Looked:
        """Note when it was looked up, unless it was not."""
        return found if found.unasked else replace(found, observed_at=self._clock())

    async def close(self) -> None:
        """Close the source, and the connections whose servers have not ended them yet."""
        self._prober.close()
