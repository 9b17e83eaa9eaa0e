"""From domain evidence to the servers that an MTA would try, in its order.

The DNS part of a delivery, before any question of TLS: the same for all
profiles, with the status codes that Postfix uses.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from requiretls_milter.forecast.mta_sts import mta_sts_match
from requiretls_milter.model import (
    AddressLookup,
    AddressPreference,
    DnsOutcome,
    DomainEvidence,
    HopKind,
    HostEvidence,
    MtaProfile,
    MtaStsMode,
    ProbeEvidence,
    Reading,
    Reason,
    TlsaRecord,
)
from requiretls_milter.syntax import status
from requiretls_milter.syntax.endpoint import SMTP_PORT

STRICT = Reading()
"""RFC 8689 as it stands, without any of the choices that soften it."""

"""Only there does Postfix look for itself (SMTP_MISC_FLAG_LOOP_DETECT)."""


@dataclass(frozen=True, slots=True)
class Server:
    """One address of one host, with what the probe saw there.

    ``best``: no server that is tried is better preferred. ``unseen``, if not empty,
    says why nothing is known of the server: it stands for all that the MTA may try
    in its place.
    """

    host: HostEvidence
    address: str
    probe: ProbeEvidence
    best: bool = True
    unseen: str = ""

    @property
    def name(self) -> str:
        """The server as logs and replies call it: ``host[address]``."""
        return f"{self.host.host}[{self.address}]"

    @property
    def family(self) -> str:
        """The word of inet_protocols for its address; of an unseen server it says nothing."""
        return family_of(self.address)


def family_of(address: str) -> str:
    """The word of inet_protocols for an address in its canonical text form."""
    return "ipv6" if ":" in address else "ipv4"


@dataclass(frozen=True, slots=True)
class NoServer:
    """Why a next hop has no server to try.

    ``otherwise`` is the status that it has instead where the order of equals is other.
    """

    status: str
    reason: Reason
    text: str
    otherwise: str = ""


Servers = tuple[tuple[Server, ...], ...] | NoServer
"""The servers to try, in groups of equal preference; or why there is none."""


def servers_of(evidence: DomainEvidence, profile: MtaProfile) -> Servers:
    """List the servers to try: groups of equal preference, the best group first.

    Where the MTA prefers an address family (smtp_address_preference), its servers
    are a group of their own.

    Within a group Postfix shuffles. All groups together may hold more servers
    than ``profile.mx_address_limit`` allows: only so many are tried.
    """
    domain = evidence.nexthop.host
    failure = _mx_failure(evidence)
    if failure:
        return failure
    found = _unseen_at_any_preference(evidence)
    for host in evidence.hosts:
        if host.addresses.outcome is DnsOutcome.FOUND:
            best = not found or host.preference == found[0].host.preference
            found.extend(_servers_at(host, profile, best))
    found.extend(_beyond(evidence))
    if not found:
        return _no_address(evidence, profile)
    return _without_self(domain, evidence, found, profile)


def _mx_failure(evidence: DomainEvidence) -> NoServer | None:
    domain = evidence.nexthop.host
    if evidence.nexthop.kind is not HopKind.MX:
        return None
    mx = evidence.mx
    if mx.outcome is DnsOutcome.ERROR:
        return NoServer(
            status.DNS_FAILURE, Reason.DNS_FAILURE, f"MX lookup of {domain} failed: {mx.error}"
        )
    if mx.null_mx or (mx.null_among and not mx.partial):
        return NoServer(status.NULL_MX, Reason.NULL_MX, f"{domain} accepts no mail (null MX)")
    if mx.outcome is DnsOutcome.NXDOMAIN:
        return NoServer(status.NO_ADDRESS, Reason.NO_SUCH_DOMAIN, f"{domain} does not exist")
    return None


def _unseen(host: str, preference: int, why: str) -> Server:
    missing = HostEvidence(host, preference, AddressLookup(DnsOutcome.NODATA))
    return Server(missing, "", ProbeEvidence(""), unseen=why)


def _unseen_at_any_preference(evidence: DomainEvidence) -> list[Server]:
    """What Postfix tries first of a set of MX records that it keeps by chance.

    It keeps dns_rr_list_limit of them, as they come: it may never see the best.
    """
    if not evidence.mx.partial:
        return []
    domain = evidence.nexthop.host
    why = f"{domain} has more MX records than an MTA looks at: which, chance decides"
    return [_unseen("", _BEST_OF_ALL, why)]


_BEST_OF_ALL = -1
"""A preference that no MX record can have."""


def _beyond(evidence: DomainEvidence) -> list[Server]:
    """The MX hosts after those that evidence was gathered of."""
    number, of = len(evidence.hosts), len(evidence.mx.records)
    if number >= of:
        return []
    first = evidence.mx.records[number]
    why = f"only {number} of the {of} MX hosts of {evidence.nexthop.host} were looked at"
    return [_unseen(first.host, first.preference, why)]


def _servers_at(host: HostEvidence, profile: MtaProfile, best: bool) -> list[Server]:
    if host.partial:
        why = f"{host.host} has more addresses or TLSA records than an MTA looks at"
        return [_unseen(host.host, host.preference, why)]
    probes = {probe.address: probe for probe in host.probes}
    return [
        Server(host, address, probes.get(address) or ProbeEvidence(address), best)
        for address in host.addresses.addresses
        if family_of(address) in profile.inet_protocols
    ]


def _lookup(host: HostEvidence, profile: MtaProfile) -> DnsOutcome:
    """What the address lookup of *host* comes to for an MTA that asks only for its protocols."""
    found = host.addresses
    if found.outcome is not DnsOutcome.FOUND:
        return found.outcome
    for address in found.addresses:
        if family_of(address) in profile.inet_protocols:
            return DnsOutcome.FOUND
    return DnsOutcome.ERROR if found.error else DnsOutcome.NODATA


def lookup_failure(evidence: DomainEvidence, profile: MtaProfile) -> NoServer | None:
    """What the lookups of the hosts' addresses leave recorded; None where all have one.

    It is what remains where no server is tried. A failed lookup dominates "no
    such host", but the last host decides how: "no such host" after a failure is
    4.4.4 (smtp_addr_one() of Postfix). Hosts of equal preference are looked up
    as DNS has them, in any order.
    """
    domain = evidence.nexthop.host
    outcomes = ((host, _lookup(host, profile)) for host in evidence.hosts)
    missed = [(host, outcome) for host, outcome in outcomes if outcome is not DnsOutcome.FOUND]
    if not missed:
        return None
    errors = [host.addresses.error for host, outcome in missed if outcome is DnsOutcome.ERROR]
    if not errors:
        text = f"{missed[-1][0].host}, a server of {domain}, has no address"
        return NoServer(status.NO_ADDRESS, Reason.NO_SUCH_DOMAIN, text)
    last = [
        outcome is DnsOutcome.ERROR
        for host, outcome in missed
        if host.preference == missed[-1][0].preference
    ]
    return NoServer(
        status.DNS_FAILURE if any(last) else status.NO_ADDRESS_FOR_NOW,
        Reason.DNS_FAILURE,
        f"address lookup for {domain} failed: {next(filter(None, errors), 'no answer')}",
        otherwise=status.NO_ADDRESS_FOR_NOW if any(last) and not all(last) else "",
    )


def _no_address(evidence: DomainEvidence, profile: MtaProfile) -> NoServer:
    """No server is left: no host has an address, or none of a protocol that the MTA speaks."""
    domain = evidence.nexthop.host
    failure = lookup_failure(evidence, profile)
    if failure is not None and failure.reason is Reason.DNS_FAILURE:
        return failure
    return NoServer(
        status.NO_ADDRESS, Reason.NO_SUCH_DOMAIN, f"no server of {domain} has an address"
    )


def _without_self(
    domain: str, evidence: DomainEvidence, found: list[Server], profile: MtaProfile
) -> Servers:
    """Drop the MTA itself and all that is no better preferred (RFC 5321 section 5.1).

    A host that is looked up without MX records is not dropped by address: one
    that is the MTA's own makes a loop of all.
    """
    own = [s.host.preference for s in found if s.address in profile.my_addresses]
    if own and evidence.nexthop.port == SMTP_PORT:
        has_mx = evidence.nexthop.kind is HopKind.MX and evidence.mx.outcome is DnsOutcome.FOUND
        best_preference, best_found = evidence.hosts[0].preference, found[0].host.preference
        found = [server for server in found if has_mx and server.host.preference < own[0]]
        if not found and (not has_mx or best_preference == best_found):
            return NoServer(
                status.MAIL_LOOP, Reason.MAIL_LOOP, f"mail for {domain} loops back to this MTA"
            )
        if not found:
            return NoServer(
                status.NO_ADDRESS_FOR_NOW,
                Reason.MAIL_LOOP,
                f"the primary server of {domain} is not to be found",
            )
    return _grouped(found, profile.address_preference)


def _grouped(found: list[Server], preferred: AddressPreference) -> tuple[tuple[Server, ...], ...]:
    """Group servers that Postfix shuffles: of one preference, and family if one is preferred."""

    def rank(server: Server) -> tuple[int, bool]:
        differs = preferred is not AddressPreference.ANY and server.family != preferred
        return server.host.preference, differs and not server.unseen

    return tuple(tuple(group) for _, group in itertools.groupby(sorted(found, key=rank), key=rank))


@dataclass(frozen=True, slots=True)
class Share:
    """How many servers of some address families are tried."""

    families: frozenset[str]
    slots: int


@dataclass(frozen=True, slots=True)
class Sharing:
    """How the servers that may be tried are shared; in one where ``first`` is tried first."""

    shares: tuple[Share, ...]
    first: str = ""


def sharings(groups: Sequence[Sequence[str]], limit: int) -> list[Sharing]:
    """The ways in which *limit* (0: none) may be shared by IPv4 and IPv6: one, or two.

    *groups* has the family of each server. Where there are more servers than may
    be tried, and of both families, neither crowds the other out
    (smtp_balance_inet_protocols). Where both have more than half, the odd one
    is for the family of the first server, which is random where the best group
    has both.
    """
    everyone = [family for group in groups for family in group]
    v4, v6 = everyone.count("ipv4"), everyone.count("ipv6")
    if not limit or not v4 or not v6 or v4 + v6 <= limit:
        return [Sharing((Share(_FAMILIES, limit or len(everyone)),))]
    if v6 <= limit // 2:
        return [_shared(limit - v6, limit)]
    if v4 <= limit // 2:
        return [_shared(v4, limit)]
    return [
        _shared((limit + (family == "ipv4")) // 2, limit, family)
        for family in sorted(set(groups[0]))
    ]


def _shared(v4: int, limit: int, first: str = "") -> Sharing:
    shares = Share(frozenset({"ipv4"}), v4), Share(frozenset({"ipv6"}), limit - v4)
    return Sharing(shares, first)


_FAMILIES = frozenset({"ipv4", "ipv6"})


def within_reach(servers: Servers, limit: int) -> Servers:
    """Leave out the servers that no order within the groups lets the MTA try.

    Unseen ones stay, since they may be of the family that has its share left.
    """
    if isinstance(servers, NoServer) or sum(map(len, servers)) <= limit:
        return servers
    kept = {server for group in servers for server in group if server.unseen and limit > 1}
    for sharing in sharings([[server.family for server in group] for group in servers], limit):
        for share in sharing.shares:
            left = share.slots
            for group in servers:
                members = [server for server in group if server.family in share.families]
                kept.update(members if left > 0 else ())
                left -= len(members)
    reached = (tuple(server for server in group if server in kept) for group in servers)
    return tuple(group for group in reached if group)


def in_mta_sts_policy(
    evidence: DomainEvidence, host: str, reading: Reading = STRICT
) -> bool | None:
    """Whether the domain's policy in force names *host*; None where no policy is in force.

    Only mode ``enforce`` is in force (RFC 8461 section 5), if *reading* does not
    let ``testing`` count.
    """
    policy = evidence.mta_sts.policy
    if policy is None or policy.mode is MtaStsMode.NONE:
        return None
    if policy.mode is MtaStsMode.TESTING and not reading.testing_policies_count:
        return None
    return mta_sts_match(policy, host)


def name_is_authenticated(evidence: DomainEvidence, host: HostEvidence, reading: Reading) -> bool:
    """Whether the server's name is validated as RFC 8689 section 2 wants it.

    By DNSSEC on the MX lookup (of an implicit MX: on the proof that there is
    none) or by MTA-STS. A next hop that names the host itself needs neither.
    """
    if evidence.nexthop.kind is not HopKind.MX:
        return True
    if evidence.mx.secure or in_mta_sts_policy(evidence, host.host, reading):
        return True
    return reading.tlsa_vouches_for_unsigned_mx and bool(secure_tlsa(host))


def secure_tlsa(host: HostEvidence) -> tuple[TlsaRecord, ...]:
    """The TLSA records that DNSSEC vouches for; insecure ones are none (RFC 7672 section 2.2)."""
    tlsa = host.tlsa
    found = tlsa.asked and tlsa.outcome is DnsOutcome.FOUND and tlsa.secure
    return tlsa.records if found else ()


def tlsa_lookup_failed(host: HostEvidence) -> bool:
    """Whether TLSA records may exist that we could not see: a temporary failure, never "none"."""
    unknown_alias = host.addresses.alias_error and not host.addresses.secure
    return unknown_alias or (host.tlsa.asked and host.tlsa.outcome is DnsOutcome.ERROR)
