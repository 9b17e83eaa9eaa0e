"""Gather all evidence of a next hop, in two phases: what DNS says, then what servers do.

:class:`Gathering` puts questions to an :class:`EvidenceSource`: a question whose text
depends on another answer comes after it, and all others are put at once. What is known so far
can be had at any time. There are two sources: the live one
(:class:`~requiretls_milter.evidence.collector.Collector`) asks the network each time, and the
engine's cache wraps the live one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
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
    ServerTarget,
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

MAX_AT_ONCE = 8
"""Questions of one next hop that are open at once: no next hop holds more places than these of
what all share. limits.gatherings times as many are limits.flights."""

LOOKUP_PATIENCE = 2.0
"""Seconds after which servers are called although the names of others have not been looked up:
a name server that is silent does not hold up the others. Most lookups take less."""

LATE = "not known in time"
"""Why evidence is missing that takes too long to find."""

_NOT_YET = (AddressLookup(DnsOutcome.ERROR, error=LATE, unasked=True), TlsaEvidence())
"""The lookups of a host that have not ended: it may have any servers."""

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

    async def probe(self, server: ServerTarget, *, since: float = ANY_AGE) -> ProbeEvidence:
        """Hold a session with a server."""
        ...


class Gathering:
    """The evidence of one next hop: gathered by :meth:`run`, and known in part before it ends.

    A server is probed if the MTA may try it over any of its transports, even if the MTA's
    TLS policy forbids the connection.

    Args:
        nexthop: what to find out about.
        source: answers the questions.
        config: the port to probe, and how the MTA chooses among servers.
        now: becomes ``gathered_at``, seconds since the epoch.
        probes: false if no server is to be called: DNS and MTA-STS alone.
        since: how old the answers may be; it goes to *source*.
        profiles: what :func:`profiles_of` makes of *config*, if it is known already.
    """

    def __init__(
        self,
        nexthop: NextHop,
        source: EvidenceSource,
        config: Config,
        now: float,
        *,
        probes: bool = True,
        since: float = ANY_AGE,
        profiles: Sequence[MtaProfile] = (),
    ) -> None:
        self._nexthop = nexthop
        self._source = source
        usual = nexthop.port == SMTP_PORT and nexthop.protocol is MailProtocol.SMTP
        self._port = config.probe.port if usual else nexthop.port
        self._profiles = profiles or profiles_of(config)
        self._now = now
        self._with_probes = probes
        self._since = since
        self.is_running = False
        """Whether questions are open."""
        self._places = asyncio.Semaphore(MAX_AT_ONCE)
        self._mx: MxEvidence | None = None
        self._policy: MtaStsEvidence | None = None
        # By host, and by address and SNI; 0 stands for the next hop's own port.
        self._looked_up: dict[tuple[str, int], tuple[AddressLookup, TlsaEvidence]] = {}
        self._called: set[tuple[str, str, int]] = set()
        self._probed: dict[tuple[str, str, int], ProbeEvidence] = {}

    async def run(self) -> None:
        """Put all questions; what the source cannot find in time stays unknown.

        Raises:
            Exception: whatever the source raises but TimeoutError.
        """
        self.is_running = True
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._find_policy())
                await self._find_servers()
        except ExceptionGroup as several:
            # The source is too busy, or there is an internal error: raise the first of several.
            first: Exception = several
            while isinstance(first, ExceptionGroup):
                first = first.exceptions[0]
            raise first from several
        finally:
            self.is_running = False

    def known(self) -> DomainEvidence | None:
        """Give what is known now; None if that is not even the MX records.

        What is not known counts as not asked for, never as "there is none": the forecast is
        unknown wherever it might matter.
        """
        if self._mx is None:
            return None
        policy = self._policy or MtaStsEvidence(error=LATE, expires=self._now, unasked=True)
        hosts = tuple(
            HostEvidence(
                record.host,
                record.preference,
                *self._looked_up.get((record.host, record.port), _NOT_YET),
                port=record.port,
            )
            for record in _host_names(self._nexthop, self._mx)
        )
        wanted = _addresses_to_probe(self._nexthop, self._mx, hosts, self._profiles)
        hosts = tuple(
            replace(host, probes=tuple(self._probe_of(host, address) for address in addresses))
            for host, addresses in wanted
        )
        return DomainEvidence(self._nexthop, self._mx, policy, hosts, self._now)

    def _probe_of(self, host: HostEvidence, address: str) -> ProbeEvidence:
        found = self._probed.get((address, _server_name(host), host.port))
        why = LATE if self._with_probes else "probe.plain_mail is dns"
        return found or ProbeEvidence(address, error=why)

    # ------------------------------------------------------------ the questions

    async def _find_policy(self) -> None:
        """Find the policy of the next-hop domain, before any alias (RFC 8461 section 3.4, R54).

        A smart host is a policy domain too, in brackets and with a port. An address is none.
        """
        if self._nexthop.kind not in (HopKind.MX, HopKind.SRV, HopKind.HOST):
            self._policy = MtaStsEvidence()
            return
        async with self._question():
            self._policy = await self._source.mta_sts(self._nexthop.host, since=self._since)

    async def _find_servers(self) -> None:
        await self._find_mx()
        if self._mx is None:
            return
        listed = _host_names(self._nexthop, self._mx)
        names = dict.fromkeys((record.host, record.port) for record in listed)
        async with asyncio.TaskGroup() as tasks:
            lookups = [tasks.create_task(self._look_up(*name)) for name in names]
            if lookups:
                await asyncio.wait(lookups, timeout=LOOKUP_PATIENCE)
            await self._probe_known()
        await self._probe_known()

    async def _probe_known(self) -> None:
        """Probe those servers that the MTA may try, as far as they are known, each once."""
        known = self.known()
        if known is None or not self._with_probes:
            return
        servers = dict.fromkeys(
            (probe.address, _server_name(host), host.port)
            for host in known.hosts
            for probe in host.probes
        )
        left = MAX_PROBES - len(self._called)
        new = [server for server in servers if server not in self._called][:left]
        self._called.update(new)
        async with asyncio.TaskGroup() as tasks:
            for server in new:
                tasks.create_task(self._probe(*server))

    async def _find_mx(self) -> None:
        """Look up the MX records; a next hop that is no domain has none by definition."""
        nexthop = self._nexthop
        if nexthop.kind not in (HopKind.MX, HopKind.SRV):
            expires = self._now + MAX_TTL
            self._mx = MxEvidence(DnsOutcome.NODATA, canonical=nexthop.host, expires=expires)
            return
        async with self._question():
            if nexthop.kind is HopKind.SRV:
                self._mx = await self._source.srv(nexthop.srv_name, since=self._since)
            else:
                self._mx = await self._source.mx(nexthop.host, since=self._since)

    async def _look_up(self, host: str, own_port: int) -> None:
        async with self._question():
            port = own_port or self._port
            addresses = await self._source.addresses(host, since=self._since)
            tlsa = await self._source.tlsa(host, port, addresses, since=self._since)
            self._looked_up[host, own_port] = addresses, tlsa

    async def _probe(self, address: str, server_name: str, own_port: int) -> None:
        async with self._question():
            port, protocol = own_port or self._port, self._nexthop.protocol
            server = ServerTarget(address, port, server_name, protocol)
            found = await self._source.probe(server, since=self._since)
            self._probed[address, server_name, own_port] = found

    @contextlib.asynccontextmanager
    async def _question(self) -> AsyncIterator[None]:
        """Hold one of the places, and leave unknown what takes the source too long."""
        async with self._places:
            with contextlib.suppress(TimeoutError):
                yield


def bounds_met(evidence: DomainEvidence) -> tuple[Bound, ...]:
    """The bounds that left something out."""
    unseen = len(evidence.mx.records) - len(evidence.hosts)
    sessions = sum(len(host.probes) for host in evidence.hosts)
    met = {
        Bound.HOSTS: evidence.mx.partial or unseen > 0,
        Bound.SESSIONS: sessions >= MAX_PROBES,
    }
    return tuple(bound for bound, is_met in met.items() if is_met)


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
