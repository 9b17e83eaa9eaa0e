"""Which servers Postfix may try: smtp_addr.c as a pure function of evidence and profile.

smtp(8) makes one list of addresses for a next hop and works through it until a
server takes the message:

1. All addresses of all MX hosts, best preference first, of the protocols that it
   speaks (inet_protocols).
2. If one of them is its own, that address and all servers that are not better preferred
   are left out: mail must not come back (RFC 5321 section 5.1).
3. Addresses of equal preference are shuffled; with smtp_address_preference, those
   of one family come first.
4. At most smtp_mx_address_limit addresses stay. If there are addresses of both
   families, each family gets a share of that limit (smtp_balance_inet_protocols).

Because of the shuffling there is not one list but many. The judge needs to know which
attempts can end a delivery, the gathering of evidence which addresses to probe. Both
use this module, so that each server that is judged was a candidate for a probe.

Some servers are *unseen*: an MX host beyond those that evidence was gathered for, a
host with more addresses than are kept. An unseen server stands for all servers, at
least one, that the MTA may try in its place, and it may be of any family that the MTA
speaks (:attr:`MailServer.families`). If there is an unseen server, the shares of the
families are not known: :func:`sharings` returns None, and everything that depends on the
shares calls it.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from requiretls_milter.model import (
    SMTP_PORT,
    AddressLookup,
    AddressPreference,
    DnsOutcome,
    DomainEvidence,
    HopKind,
    HostEvidence,
    MtaProfile,
    ProbeEvidence,
)

IPV4, IPV6 = "ipv4", "ipv6"
"""The address families, by their words in inet_protocols."""

_EITHER = frozenset({IPV4, IPV6})
_ONE_FAMILY = {family: frozenset({family}) for family in (IPV4, IPV6)}

NAMED_BY_DNS = frozenset({HopKind.MX, HopKind.SRV})
"""Next hops whose servers DNS names."""

_BEST_OF_ALL = -1
"""A preference that no MX record can have."""


def family_of(address: str) -> str:
    """Name the family of an address in its canonical text form."""
    return IPV6 if ":" in address else IPV4


# ---------------------------------------------------------------- the servers of a next hop


@dataclass(frozen=True, slots=True)
class Unseen:
    """Why nothing is known of a server, and the address families that it may be of."""

    why: str
    families: frozenset[str]


class MailServer(NamedTuple):
    """One address of one host, with what a probe saw there.

    Attributes:
        host: the MX host, or the host that is the next hop itself.
        address: in canonical text form; empty if the server is unseen.
        probe: the session with it; stage NOT_PROBED if there was none.
        best: no server of the next hop is better preferred.
        unseen: set if nothing is known of the server.
    """

    host: HostEvidence
    address: str
    probe: ProbeEvidence
    best: bool = True
    unseen: Unseen | None = None

    @property
    def name(self) -> str:
        """The server as Postfix's logs and replies name it: ``host[address]``."""
        return f"{self.host.host}[{self.address}]"

    @property
    def families(self) -> frozenset[str]:
        """The address families that the server may be of: one, unless it is unseen."""
        if self.unseen is not None:
            return self.unseen.families
        return _ONE_FAMILY[IPV6 if ":" in self.address else IPV4]


ServerGroups = tuple[tuple[MailServer, ...], ...]
"""Servers in groups that Postfix shuffles, the best group first."""


def candidates(evidence: DomainEvidence, profile: MtaProfile) -> ServerGroups:
    """List the servers that a delivery over *profile* may meet, if nothing stops it before.

    More of them may be listed than the MTA tries: see :func:`within_reach`.
    """
    found = servers_found(evidence, profile)
    return in_groups(without_self(found, evidence, profile), preference_of(evidence, profile))


def servers_found(evidence: DomainEvidence, profile: MtaProfile) -> list[MailServer]:
    """List the servers of the next hop that have an address of the MTA's protocols."""
    found = _unseen_at_any_preference(evidence, profile)
    for host in evidence.hosts:
        if host.addresses.outcome is DnsOutcome.FOUND or host.unasked:
            best = not found or host.preference == found[0].host.preference
            found.extend(_servers_at(host, profile, best))
    found.extend(_beyond_the_hosts(evidence, profile))
    return found


def _servers_at(host: HostEvidence, profile: MtaProfile, best: bool) -> list[MailServer]:
    if host.unasked:
        why = f"{host.host} was not looked up: {host.unasked}"
        return [_unseen(host.host, host.preference, why, profile)]
    if host.partial:
        why = f"{host.host} has more addresses or TLSA records than an MTA keeps"
        return [_unseen(host.host, host.preference, why, profile)]
    probes = {probe.address: probe for probe in host.probes}
    return [
        MailServer(host, address, probes.get(address) or ProbeEvidence(address), best)
        for address in host.addresses.addresses
        if family_of(address) in profile.inet_protocols
    ]


def _unseen(host: str, preference: int, why: str, profile: MtaProfile) -> MailServer:
    missing = HostEvidence(host, preference, AddressLookup(DnsOutcome.NODATA))
    unseen = Unseen(why, frozenset(profile.inet_protocols))
    return MailServer(missing, "", ProbeEvidence(""), unseen=unseen)


def _unseen_at_any_preference(evidence: DomainEvidence, profile: MtaProfile) -> list[MailServer]:
    """Make an unseen server for the MX records that Postfix may keep of too large a set.

    Postfix keeps the first dns_rr_list_limit of them in the order of the reply. We keep the
    best preferred ones, which Postfix may never see.
    """
    if not evidence.mx.partial:
        return []
    domain = evidence.nexthop.host
    why = f"{domain} has more MX records than an MTA keeps, and chance decides which"
    return [_unseen("", _BEST_OF_ALL, why, profile)]


def _beyond_the_hosts(evidence: DomainEvidence, profile: MtaProfile) -> list[MailServer]:
    """Make an unseen server for the MX hosts beyond those that evidence was gathered for."""
    gathered, listed = len(evidence.hosts), len(evidence.mx.records)
    if gathered >= listed:
        return []
    first = evidence.mx.records[gathered]
    why = f"only {gathered} of the {listed} MX hosts of {evidence.nexthop.host} were looked up"
    return [_unseen(first.host, first.preference, why, profile)]


def has_mx_records(evidence: DomainEvidence) -> bool:
    """Say whether the servers come from MX or SRV records, not from the next hop's own name."""
    return evidence.nexthop.kind in NAMED_BY_DNS and evidence.mx.outcome is DnsOutcome.FOUND


def without_self(
    found: list[MailServer], evidence: DomainEvidence, profile: MtaProfile
) -> list[MailServer]:
    """Leave out the MTA and all servers that are not better preferred (RFC 5321 section 5.1).

    smtp(8) does so on port 25 alone (SMTP_MISC_FLAG_LOOP_DETECT). Without MX records
    all servers are of one preference, so that no server is left if one is the MTA.
    """
    own = [server.host.preference for server in found if server.address in profile.my_addresses]
    if not own or evidence.nexthop.port != SMTP_PORT:
        return found
    if not has_mx_records(evidence):
        return []
    return [server for server in found if server.host.preference < min(own)]


def preference_of(evidence: DomainEvidence, profile: MtaProfile) -> AddressPreference:
    """Say which family goes first; among servers of SRV records it is a matter of chance."""
    by_srv = evidence.nexthop.kind is HopKind.SRV
    return AddressPreference.ANY if by_srv else profile.address_preference


_preference_of = operator.attrgetter("host.preference")


def in_groups(found: list[MailServer], preferred: AddressPreference) -> ServerGroups:
    """Group the servers that Postfix shuffles: one preference, one family if it prefers one."""

    def of_family(server: MailServer) -> tuple[int, bool]:
        return server.host.preference, preferred not in server.families

    rank = _preference_of if preferred is AddressPreference.ANY else of_family

    return tuple(tuple(group) for _, group in itertools.groupby(sorted(found, key=rank), key=rank))


# ---------------------------------------------------------------- how many of them are tried


class _OfFamilies(Protocol):
    """A server, or what is known of the attempt at one."""

    @property
    def families(self) -> frozenset[str]: ...


Item = TypeVar("Item", bound=_OfFamilies)


@dataclass(frozen=True, slots=True)
class FamilyShare:
    """How many servers of some address families are tried."""

    families: frozenset[str]
    slots: int


@dataclass(frozen=True, slots=True)
class Sharing:
    """One way in which the limit is shared; ``first``, if set, is the family tried first."""

    shares: tuple[FamilyShare, ...]
    first: str = ""


def sharings(groups: Sequence[Sequence[_OfFamilies]], limit: int) -> list[Sharing] | None:
    """List the ways in which IPv4 and IPv6 may share *limit*; None if that is not known.

    *limit* is smtp_mx_address_limit; 0 stands for none. A *slot* is one server that is
    tried. If both families have more servers than half of the limit and the limit is odd,
    the odd slot is for the family of the server that is tried first. There are two ways if
    the best group has both families, since the group is shuffled.

    The shares are not known if an unseen server may be of either family. With a limit of
    one nothing is shared: one server of the best group is tried.
    """
    everyone = [server.families for group in groups for server in group]
    if limit <= 1:
        return [Sharing((FamilyShare(_EITHER, limit or len(everyone)),))]
    if _EITHER in everyone:
        return None
    v4, v6 = (everyone.count(_ONE_FAMILY[family]) for family in (IPV4, IPV6))
    if not v4 or not v6 or v4 + v6 <= limit:
        return [Sharing((FamilyShare(_EITHER, limit),))]
    if v6 <= limit // 2:
        return [_shared(limit - v6, limit)]
    if v4 <= limit // 2:
        return [_shared(v4, limit)]
    first_families = frozenset().union(*(server.families for server in groups[0]))
    return [
        _shared((limit + (family == IPV4)) // 2, limit, family) for family in sorted(first_families)
    ]


def _shared(v4: int, limit: int, first: str = "") -> Sharing:
    shares = FamilyShare(_ONE_FAMILY[IPV4], v4), FamilyShare(_ONE_FAMILY[IPV6], limit - v4)
    return Sharing(shares, first)


def is_order_fixed(groups: Sequence[Sequence[_OfFamilies]], limit: int) -> bool:
    """Say whether all servers are tried, in one known order: nothing to shuffle or to leave out."""
    if 0 < limit < len(groups):
        return False
    return all(len(group) == 1 and (limit <= 1 or len(group[0].families) == 1) for group in groups)


@dataclass(frozen=True, slots=True)
class _Assumed:
    """A server whose family is taken to be known."""

    families: frozenset[str]


def within_reach(groups: tuple[tuple[Item, ...], ...], limit: int) -> tuple[tuple[Item, ...], ...]:
    """Leave out the servers that the MTA cannot try in any order.

    An unseen server that may be of either family always stays, since one of the families may
    have a slot left. For the other servers the limit is shared out twice: as if all those
    unseen servers were IPv4, and as if all were IPv6. A server that may be tried in either
    case stays. An unseen server may stand for several servers; then the other servers have
    fewer slots than is assumed here. So a server may stay that the MTA never tries, but none
    is left out that the MTA may try.
    """
    if limit == 1:
        return groups[:1]
    if not limit or sum(map(len, groups)) <= limit:
        return groups
    reached: list[set[str]] = [set() for _ in groups]
    for assumed in _ONE_FAMILY.values():
        known = [
            [_Assumed(assumed if len(server.families) > 1 else server.families) for server in group]
            for group in groups
        ]
        for sharing in sharings(known, limit) or ():
            for share in sharing.shares:
                left = share.slots
                for families, group in zip(reached, known, strict=True):
                    if left > 0:
                        families |= share.families
                    left -= sum(server.families <= share.families for server in group)
    kept = (
        tuple(server for server in group if len(server.families) > 1 or server.families & families)
        for families, group in zip(reached, groups, strict=True)
    )
    return tuple(group for group in kept if group)
