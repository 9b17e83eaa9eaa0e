"""Gather all evidence of a next hop, in two phases: what DNS says, then what servers do.

:func:`gather` puts questions to an :class:`EvidenceSource`: a question whose text
depends on another answer comes after it, and all others are put at once. There are
two sources: the live one (:class:`~requiretls_milter.evidence.collector.Collector`)
asks the network each time, and the engine's cache wraps the live one.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from requiretls_milter.evidence.dns import MAX_TTL
from requiretls_milter.forecast import reach
from requiretls_milter.model import (
    SMTP_PORT,
    AddressLookup,
    DnsOutcome,
    DomainEvidence,
    HopKind,
    HostEvidence,
    MailProtocol,
    MtaProfile,
    MtaStsEvidence,
    MxEvidence,
    MxRecord,
    NextHop,
    ProbeEvidence,
    TlsaEvidence,
)
from requiretls_milter.syntax.names import address_literal
from requiretls_milter.telemetry.labels import Bound

if TYPE_CHECKING:
    from requiretls_milter.config import Config

MAX_HOSTS = 20
"""MX hosts that evidence is gathered for: each costs at least two lookups and a session."""

MAX_PROBES = 16
"""Sessions for one next hop; Postfix tries 5 addresses by default."""

ANY_AGE = float("-inf")
"""The value of ``since`` that accepts evidence of any age."""


class EvidenceSource(Protocol):
    """Where evidence comes from. None of these methods raises for what the network does.

    A source may keep what it found. ``since`` is a time on :func:`time.monotonic`: if the kept
    evidence is older, the source asks the network again.
    """

    async def mx(self, domain: str, *, since: float = ANY_AGE) -> MxEvidence:
        """Look up the MX records of a domain."""
        ...

    async def srv(self, name: str, *, since: float = ANY_AGE) -> MxEvidence:
        """Look up the SRV records of a service, in the form of MX records with ports."""
        ...

    async def mta_sts(self, domain: str, *, since: float = ANY_AGE) -> MtaStsEvidence:
        """Find the MTA-STS policy of a domain."""
        ...

    async def addresses(self, host: str, *, since: float = ANY_AGE) -> AddressLookup:
        """Look up the addresses of a host."""
        ...

    async def tlsa(
        self, host: str, port: int, addresses: AddressLookup, *, since: float = ANY_AGE
    ) -> TlsaEvidence:
        """Look up the TLSA records of a host whose addresses are known."""
        ...

    async def probe(
        self,
        address: str,
        port: int,
        server_name: str,
        protocol: MailProtocol = MailProtocol.SMTP,
        *,
        since: float = ANY_AGE,
    ) -> ProbeEvidence:
        """Hold a session with an address; *server_name* is the SNI, "" for none."""
        ...


async def gather(
    nexthop: NextHop,
    source: EvidenceSource,
    config: Config,
    now: float,
    *,
    probes: bool = True,
    since: float = ANY_AGE,
) -> DomainEvidence:
    """Gather the evidence of *nexthop*, complete enough for any profile to judge.

    A server is probed if the MTA may try it over any of its transports, even if the MTA's
    TLS policy forbids the connection.

    Args:
        nexthop: what to find out about.
        source: answers the questions.
        config: the port to probe, and how the MTA chooses among servers.
        now: becomes ``gathered_at``, seconds since the epoch.
        probes: false if no server is to be called: DNS and MTA-STS alone.
        since: how old the answers may be; it goes to *source*.

    Raises:
        Exception: whatever *source* raises, for example because it is too busy.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            policy = tasks.create_task(_mta_sts(nexthop, source, since))
            mx = await _mx(nexthop, source, now, since)
            hosts = await _hosts(nexthop, mx, source, config, probes=probes, since=since)
    except ExceptionGroup as several:
        # The source is too busy, or there is an internal error: raise the first of several.
        raise several.exceptions[0] from several
    return DomainEvidence(nexthop, mx, policy.result(), hosts, now)


def bounds_met(evidence: DomainEvidence) -> tuple[Bound, ...]:
    """The bounds that left something out."""
    unseen = len(evidence.mx.records) - len(evidence.hosts)
    sessions = sum(len(host.probes) for host in evidence.hosts)
    met = {
        Bound.HOSTS: evidence.mx.partial or unseen > 0,
        Bound.SESSIONS: sessions >= MAX_PROBES,
    }
    return tuple(bound for bound, is_met in met.items() if is_met)


async def _mx(nexthop: NextHop, source: EvidenceSource, now: float, since: float) -> MxEvidence:
    """Look up the MX records; a next hop that is no domain has none by definition."""
    if nexthop.kind is HopKind.MX:
        return await source.mx(nexthop.host, since=since)
    if nexthop.kind is HopKind.SRV:
        return await source.srv(nexthop.srv_name, since=since)
    return MxEvidence(DnsOutcome.NODATA, canonical=nexthop.host, expires=now + MAX_TTL)


async def _mta_sts(nexthop: NextHop, source: EvidenceSource, since: float) -> MtaStsEvidence:
    """Find the policy of the next-hop domain, before any alias (RFC 8461 section 3.4, R54).

    A smart host is a policy domain too, in brackets and with a port. An address is none.
    """
    if nexthop.kind in (HopKind.MX, HopKind.SRV, HopKind.HOST):
        return await source.mta_sts(nexthop.host, since=since)
    return MtaStsEvidence()


def _host_names(nexthop: NextHop, mx: MxEvidence) -> Sequence[MxRecord]:
    """List the next hop's hosts with their preference (RFC 5321 section 5.1).

    A domain without MX records is its own host (R24), but only if the reply says that there
    are none: not if the lookup failed, and not if the domain does not exist.
    """
    if nexthop.kind is HopKind.LOCAL or mx.null_mx:
        return ()
    without_mx = nexthop.kind is HopKind.MX and mx.outcome is DnsOutcome.NODATA
    if without_mx or nexthop.kind not in (HopKind.MX, HopKind.SRV):
        return (MxRecord(0, nexthop.host),)
    return mx.records[:MAX_HOSTS]


async def _hosts(
    nexthop: NextHop,
    mx: MxEvidence,
    source: EvidenceSource,
    config: Config,
    *,
    probes: bool,
    since: float,
) -> tuple[HostEvidence, ...]:
    usual = nexthop.port == SMTP_PORT and nexthop.protocol is MailProtocol.SMTP
    port = config.probe.port if usual else nexthop.port

    async def look_up(host: str, own_port: int) -> tuple[AddressLookup, TlsaEvidence]:
        addresses = await source.addresses(host, since=since)
        return addresses, await source.tlsa(host, own_port or port, addresses, since=since)

    async def probe(address: str, server_name: str, own_port: int) -> ProbeEvidence:
        if not probes:
            return ProbeEvidence(address, error="probe.plain_mail is dns")
        return await source.probe(
            address, own_port or port, server_name, nexthop.protocol, since=since
        )

    listed = _host_names(nexthop, mx)
    names = tuple(dict.fromkeys((record.host, record.port) for record in listed))
    answers = await asyncio.gather(*itertools.starmap(look_up, names))
    found = dict(zip(names, answers, strict=True))
    hosts = tuple(
        HostEvidence(
            record.host, record.preference, *found[record.host, record.port], port=record.port
        )
        for record in listed
    )
    wanted = _addresses_to_probe(nexthop, mx, hosts, profiles_of(config))
    questions = tuple(
        dict.fromkeys(
            (address, _server_name(host), host.port)
            for host, addresses in wanted
            for address in addresses
        )
    )
    found_probes = await asyncio.gather(*itertools.starmap(probe, questions))
    seen = dict(zip(questions, found_probes, strict=True))
    return tuple(
        replace(
            host,
            probes=tuple(seen[address, _server_name(host), host.port] for address in addresses),
        )
        for host, addresses in wanted
    )


def _server_name(host: HostEvidence) -> str:
    """Choose the SNI: the TLSA base domain (RFC 7672 section 8.1, R42), else the MX host's name.

    RFC 8461 section 7.1 demands the MX host's name. An address is not a name (RFC 6066 section 3).
    """
    tlsa = host.tlsa
    if tlsa.outcome is DnsOutcome.FOUND and tlsa.secure and tlsa.records:
        return tlsa.base_domain
    return "" if address_literal(host.host) else host.host


# ---------------------------------------------------------------- which servers may be tried


def profiles_of(config: Config) -> tuple[MtaProfile, ...]:
    """List the MTA's profiles: the default one, and one for each transport."""
    return tuple(config.mta.profile_for(transport) for transport in ("", *config.mta.transport))


def _addresses_to_probe(
    nexthop: NextHop,
    mx: MxEvidence,
    hosts: tuple[HostEvidence, ...],
    profiles: Iterable[MtaProfile],
) -> list[tuple[HostEvidence, tuple[str, ...]]]:
    """Choose, for each host, the addresses that the MTA may try over some transport.

    The judge uses :mod:`~requiretls_milter.forecast.reach` in the same way: the servers that
    it may need are probed, up to :data:`MAX_PROBES`, and no others.
    """
    known = DomainEvidence(nexthop, mx, hosts=hosts)
    within_reach = {
        (server.host.preference, server.host.host, server.address)
        for profile in profiles
        for group in reach.within_reach(reach.candidates(known, profile), profile.mx_address_limit)
        for server in group
    }
    chosen = [
        (number, address)
        for number, host in enumerate(hosts)
        for address in host.addresses.addresses
        if (host.preference, host.host, address) in within_reach
    ]
    chosen = chosen[:MAX_PROBES]
    return [
        (host, tuple(address for number, address in chosen if number == index))
        for index, host in enumerate(hosts)
    ]
