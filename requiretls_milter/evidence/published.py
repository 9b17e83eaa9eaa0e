"""What a domain publishes for those that send to it, beside its servers: looked at anew each time.

The policy host is asked whatever is kept of the policy: a policy that is kept hides for a day that
its host fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import dns.rdatatype

from requiretls_milter.evidence.dns import Resolver
from requiretls_milter.evidence.mta_sts import MtaStsFetcher
from requiretls_milter.evidence.turns import BusyError
from requiretls_milter.model import (
    DnsOutcome,
    DomainEvidence,
    HostEvidence,
    MtaStsEvidence,
    PublishedEvidence,
)


async def find_published(
    resolver: Resolver, policies: MtaStsFetcher, evidence: DomainEvidence, port: int
) -> PublishedEvidence:
    """Find out what a domain publishes. Never raises for what the network does.

    Args:
        resolver: answers lookups.
        policies: fetches policies.
        evidence: of the domain, a next hop by MX.
        port: of its servers.
    """
    domain = evidence.nexthop.host
    unusable = [host for host in evidence.hosts if _cannot_have_dane(host)]
    async with asyncio.TaskGroup() as tasks:
        fetch = tasks.create_task(_policy(policies, domain))
        reports = tasks.create_task(_has_tlsrpt(resolver, domain))
        lookups = [tasks.create_task(_has_tlsa(resolver, one.host, port)) for one in unusable]
    policy = fetch.result()
    certificate = b""
    if policy.policy is not None or (policy.error and not policy.unasked):
        certificate = await policies.presented(domain)
    found = zip(unusable, lookups, strict=True)
    named = tuple(host.host for host, lookup in found if lookup.result())
    return PublishedEvidence(policy, certificate, reports.result(), named)


def _cannot_have_dane(host: HostEvidence) -> bool:
    """Whether an unsigned address, or unsigned TLSA records, rule DANE out."""
    looked_up = host.addresses.outcome is DnsOutcome.FOUND and not host.addresses.unproven
    return looked_up and not (host.tlsa.queried and host.tlsa.secure) and not host.tlsa.error


async def _policy(policies: MtaStsFetcher, domain: str) -> MtaStsEvidence:
    try:
        return await policies.policy(domain)
    except BusyError as error:
        return MtaStsEvidence(error=str(error), unasked=True)


async def _has_tlsrpt(resolver: Resolver, domain: str) -> bool | None:
    """Whether there is a TLSRPT record (RFC 8460 section 3); None if the lookup failed."""
    try:
        found = await resolver.lookup(f"_smtp._tls.{domain}", dns.rdatatype.TXT)
    except BusyError:
        return None
    if found.outcome is DnsOutcome.ERROR:
        return None
    texts = (b"".join(rdata.strings) for rdata in cast(Iterable[Any], found.rdatas))
    return any(text.startswith(b"v=TLSRPTv1") for text in texts)


async def _has_tlsa(resolver: Resolver, host: str, port: int) -> bool:
    try:
        found = await resolver.lookup(f"_{port}._tcp.{host}", dns.rdatatype.TLSA)
    except BusyError:
        return False
    return found.outcome is DnsOutcome.FOUND and bool(found.rdatas)
