"""Whether a server proves to be the host that DNS or MTA-STS names (RFC 8689 section 4.2.1)."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from requiretls_milter.forecast import dane, pkix
from requiretls_milter.forecast.certificate import Check
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.forecast.reach import MailServer, has_mx_records
from requiretls_milter.forecast.servers import secure_tlsa
from requiretls_milter.model import DomainEvidence, HopKind, HostEvidence, Reading


class Authentication(NamedTuple):
    """By what the presented certificate was verified, or why it was not (``mismatch``).

    The others as in :class:`~requiretls_milter.forecast.certificate.Check`.
    """

    verified_by: Literal["dane", "pkix"] | None
    mismatch: str | None = None
    until: float = math.inf
    small_key: bool = False

    @classmethod
    def by(cls, means: Literal["dane", "pkix"], check: Check) -> Authentication:
        """Say what a *check* by these means comes to."""
        verified_by = means if check.mismatch is None else None
        return cls(verified_by, check.mismatch, check.until, check.small_key)


def dane_references(host: HostEvidence, evidence: DomainEvidence) -> tuple[str, ...]:
    """List the reference identifiers for DANE-TA(2) (RFC 7672 section 3.2.2, R39).

    They are the TLSA base domain and, if the host comes from signed MX records, the
    next-hop domain before and after CNAME expansion. If there are no MX records, they
    are the base domain and the next hop's own name, which may be an alias of it.
    """
    if not has_mx_records(evidence):
        return (host.tlsa.base_domain, host.host)
    if not evidence.mx.secure:
        return (host.tlsa.base_domain,)
    return postfix_dane_references(host, evidence)


def postfix_dane_references(host: HostEvidence, evidence: DomainEvidence) -> tuple[str, ...]:
    """List them as Postfix does (dane_init()), whether the MX records are signed or not."""
    if has_mx_records(evidence):
        nexthop = evidence.nexthop
        queried = nexthop.srv_name if nexthop.kind is HopKind.SRV else nexthop.host
        return (host.tlsa.base_domain, evidence.mx.canonical, queried)
    return (host.tlsa.base_domain,)


def authenticate(
    server: MailServer, evidence: DomainEvidence, reading: Reading, trust: TrustStore, now: float
) -> Authentication:
    """Verify the certificate that *server* presented, by DANE or by PKIX (R6).

    A secure TLSA RRset decides alone: usable records must match (RFC 7672
    section 2.2). If none is usable, nothing authenticates the server, unless
    *reading* allows PKIX then. Without TLSA records the chain must lead to a trusted
    authority and name the MX host itself, not a pattern (RFC 8689 section
    4.2.1, RFC 8461 section 4.2).
    """
    chain = server.probe.chain
    records = secure_tlsa(server.host)
    usable = dane.usable(records)
    if usable:  # R32: no fallback to PKIX
        references = dane_references(server.host, evidence)
        return Authentication.by("dane", dane.check(chain, usable, references, now))
    if records and not reading.pkix_beside_unusable_tlsa:  # R33
        return Authentication(None, "no TLSA record is usable")
    # R56: the MX host's name
    return Authentication.by("pkix", pkix.check(chain, (server.host.host,), trust, now))
