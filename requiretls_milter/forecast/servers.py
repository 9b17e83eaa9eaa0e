"""The DNS part of a delivery, before any question of TLS.

Which servers there are to try, or why there is none, with the status codes that
Postfix uses; and what DNSSEC and MTA-STS say of a server's name and keys. It is the
same for all profiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from requiretls_milter.forecast import reach
from requiretls_milter.forecast.mta_sts import mta_sts_match
from requiretls_milter.forecast.reach import (
    NAMED_BY_DNS,
    MailServer,
    ServerGroups,
    family_of,
    has_mx_records,
)
from requiretls_milter.model import (
    UNKNOWN_STATUS,
    DnsOutcome,
    DomainEvidence,
    HopKind,
    HostEvidence,
    MtaProfile,
    MtaStsMode,
    Reading,
    Reason,
    TlsaRecord,
)
from requiretls_milter.syntax import status

STRICT = Reading()
"""RFC 8689 as it stands, without any of the choices that soften it."""


@dataclass(frozen=True, slots=True)
class NoServer:
    """Why a next hop has no server to try.

    ``otherwise``, if set, is the status that the delivery ends with if Postfix
    happens to look up hosts of equal preference in another order.
    """

    status: str
    reason: Reason
    text: str
    otherwise: str = ""


Servers = ServerGroups | NoServer
"""The servers to try, in groups that Postfix shuffles; or why there is none."""


def servers_of(evidence: DomainEvidence, profile: MtaProfile) -> Servers:
    """List the servers to try, in groups that Postfix shuffles; or say why there is none.

    All groups together may hold more servers than ``profile.mx_address_limit``
    allows: only so many are tried.

    A failed MX lookup defers the domain (R23). NXDOMAIN, a null MX and a domain that is
    its own server are three different outcomes (RFC 7672 section 2.2.2, R24).
    """
    failure = _mx_failure(evidence)
    if failure:
        return failure
    found = reach.servers_found(evidence, profile)
    if not found:
        return _no_address(evidence, profile)
    left = reach.without_self(found, evidence, profile)
    if not left:
        return _loop(evidence, found)
    return reach.in_groups(left, reach.preference_of(evidence, profile))


def _mx_failure(evidence: DomainEvidence) -> NoServer | None:
    if evidence.nexthop.kind not in NAMED_BY_DNS:
        return None
    domain, mx = evidence.nexthop.host, evidence.mx
    by_srv = evidence.nexthop.kind is HopKind.SRV
    if mx.unasked:
        return not_looked_up(f"the MX records of {domain}", mx.error)
    if mx.outcome is DnsOutcome.ERROR:
        what = "SRV" if by_srv else "MX"
        return NoServer(
            status.DNS_FAILURE, Reason.DNS_FAILURE, f"{what} lookup of {domain} failed: {mx.error}"
        )
    if mx.null_mx or (mx.null_among and not mx.partial):
        return NoServer(status.NULL_MX, Reason.NULL_MX, f"{domain} accepts no mail (null MX)")
    if mx.outcome is DnsOutcome.NXDOMAIN and not by_srv:
        return NoServer(status.NO_ADDRESS, Reason.NO_SUCH_DOMAIN, f"{domain} does not exist")
    if by_srv and mx.outcome is not DnsOutcome.FOUND:
        text = f"{domain} has no SRV records for the service {evidence.nexthop.service}"
        return NoServer(status.NO_ADDRESS, Reason.NO_SUCH_DOMAIN, text)
    return None


def not_looked_up(what: str, why: str) -> NoServer:
    """Say that nothing is known, since our own budget allowed no question: that is no failure."""
    return NoServer(UNKNOWN_STATUS, Reason.UNKNOWN, f"{what} could not be looked up: {why}")


def _lookup(host: HostEvidence, profile: MtaProfile) -> DnsOutcome:
    """Say how the address lookup of *host* ends for an MTA that looks up its protocols only."""
    found = host.addresses
    if found.outcome is not DnsOutcome.FOUND:
        return found.outcome
    for address in found.addresses:
        if family_of(address) in profile.inet_protocols:
            return DnsOutcome.FOUND
    return DnsOutcome.ERROR if found.error else DnsOutcome.NODATA


def lookup_failure(evidence: DomainEvidence, profile: MtaProfile) -> NoServer | None:
    """Say which failure the address lookups leave recorded; None if each host has an address.

    A delivery ends with it if no server is tried. A failed lookup counts more than
    "no such host", but the last host decides how: "no such host" after a failure is
    4.4.4 (smtp_addr_one() of Postfix). Hosts of equal preference are looked up in the
    order of the DNS reply, that is in any order.
    """
    missed = [
        (host, outcome)
        for host in evidence.hosts
        if (outcome := _lookup(host, profile)) is not DnsOutcome.FOUND and not host.unasked
    ]
    if not missed:
        return None
    domain = evidence.nexthop.host
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
    """Say what Postfix says if no host has an address of a protocol that it speaks."""
    domain = evidence.nexthop.host
    failure = lookup_failure(evidence, profile)
    if failure is not None and failure.reason is Reason.DNS_FAILURE:
        return failure
    return NoServer(
        status.NO_ADDRESS, Reason.NO_SUCH_DOMAIN, f"no server of {domain} has an address"
    )


def _loop(evidence: DomainEvidence, found: Sequence[MailServer]) -> NoServer:
    """Say what Postfix says if all of *found* is the MTA itself, or no better preferred."""
    domain = evidence.nexthop.host
    if has_mx_records(evidence) and evidence.hosts[0].preference != found[0].host.preference:
        return NoServer(
            status.NO_ADDRESS_FOR_NOW,
            Reason.MAIL_LOOP,
            f"the primary server of {domain} is not to be found",
        )
    return NoServer(status.MAIL_LOOP, Reason.MAIL_LOOP, f"mail for {domain} loops back to this MTA")


def in_mta_sts_policy(
    evidence: DomainEvidence, host: str, reading: Reading = STRICT
) -> bool | None:
    """Say whether the domain's policy in force names *host*; None if no policy is in force.

    A policy is in force in mode ``enforce`` alone (RFC 8461 section 5, R57), unless
    *reading* lets mode ``testing`` count.
    """
    policy = evidence.mta_sts.policy
    if policy is None or policy.mode is MtaStsMode.NONE:
        return None
    if policy.mode is MtaStsMode.TESTING and not reading.testing_policies_count:
        return None
    return mta_sts_match(policy, host)


def name_is_authenticated(evidence: DomainEvidence, host: HostEvidence, reading: Reading) -> bool:
    """Say whether the server's name is validated as RFC 8689 section 2 demands (R5).

    DNSSEC validates it if the MX lookup is secure (without MX records: if the proof that
    there are none is, R24), MTA-STS if the policy names the host. A next hop that names the
    host itself needs neither.
    """
    if evidence.nexthop.kind not in NAMED_BY_DNS:
        return True
    if evidence.mx.secure or in_mta_sts_policy(evidence, host.host, reading):
        return True
    return reading.tlsa_vouches_for_unsigned_mx and bool(secure_tlsa(host))


def secure_tlsa(host: HostEvidence) -> tuple[TlsaRecord, ...]:
    """List the TLSA records that DNSSEC vouches for.

    Insecure records count as none (RFC 7672 section 2.2, R34).
    """
    tlsa = host.tlsa
    found = tlsa.queried and tlsa.outcome is DnsOutcome.FOUND and tlsa.secure
    return tlsa.records if found else ()


def tlsa_lookup_failed(host: HostEvidence) -> bool:
    """Say whether TLSA records may exist that could not be seen (RFC 7672 section 2.1.2).

    That is a temporary failure of this host, and never "no records" (R21).
    """
    unknown_alias = host.addresses.alias_error and not host.addresses.secure
    return unknown_alias or (host.tlsa.queried and host.tlsa.outcome is DnsOutcome.ERROR)
