"""What an MTA profile means: Postfix's TLS levels, smtp_requiretls_policy and the policy tables."""

from __future__ import annotations

import functools
import itertools

from requiretls_milter.model import (
    MtaProfile,
    NextHop,
    RequiretlsPolicy,
    TlsLevel,
    TlsPolicy,
)
from requiretls_milter.syntax.names import is_address, patterns

_MATCHING = frozenset(
    {
        TlsLevel.HALF_DANE,
        TlsLevel.DANE,
        TlsLevel.DANE_ONLY,
        TlsLevel.VERIFY,
        TlsLevel.SECURE,
    }
)
_MANDATORY = _MATCHING | {TlsLevel.ENCRYPT}
_BY_AUTHORITIES = frozenset({TlsLevel.VERIFY, TlsLevel.SECURE})
_BY_TLSA = frozenset({TlsLevel.DANE, TlsLevel.DANE_ONLY})

_INSISTING = frozenset({RequiretlsPolicy.ENFORCE, RequiretlsPolicy.OPPORTUNISTIC_STARTTLS})
_WITHOUT_EFFECT = frozenset({RequiretlsPolicy.DISABLE, RequiretlsPolicy.INVALID})


def uses_tls(level: TlsLevel) -> bool:
    """Say whether STARTTLS is sent if it is offered."""
    return level is not TlsLevel.NONE


def requires_tls(level: TlsLevel) -> bool:
    """Say whether mail is never delivered in clear (Postfix: above ``may``)."""
    return level in _MANDATORY


def must_match(level: TlsLevel) -> bool:
    """Say whether the server's certificate has to match (Postfix: above ``encrypt``)."""
    return level in _MATCHING


def must_pkix(level: TlsLevel) -> bool:
    """Say whether the certificate has to match by a chain to a trusted authority."""
    return level in _BY_AUTHORITIES


def uses_dane(level: TlsLevel) -> bool:
    """Say whether TLSA records are looked up at this configured level."""
    return level in _BY_TLSA


def at_most_may(level: TlsLevel) -> TlsLevel:
    """Lower *level* as ``TLS-Required: No`` demands (RFC 8689 section 4.2.2, R13)."""
    return TlsLevel.MAY if requires_tls(level) else level


def requires_starttls(policy: RequiretlsPolicy) -> bool:
    """Say whether the policy insists on TLS at every level."""
    return policy in _INSISTING


def takes_part(policy: RequiretlsPolicy) -> bool:
    """Say whether the sender's REQUIRETLS has any effect, and shows in Postfix's ``tls=``."""
    return policy not in _WITHOUT_EFFECT


@functools.lru_cache(maxsize=4096)
def requiretls_policy(profile: MtaProfile, domain: str) -> RequiretlsPolicy:
    """Look up what smtp_requiretls_policy says for a next-hop *domain* (or address).

    The default of Postfix 3.11 exempts $mydomain and its subdomains, ``localhost`` and
    addresses (R19). A table is searched as Postfix searches one: the name, then each
    ``.parent``, then ``*``; addresses match exactly. Without a match it is enforce.
    """
    if profile.requiretls_policy is None:
        return _default_policy(profile.mydomain, domain)
    table = dict(profile.requiretls_policy)
    for key in patterns(domain):
        if key in table:
            return table[key]
    return table.get("*", RequiretlsPolicy.ENFORCE)


@functools.lru_cache(maxsize=4096)
def tls_policy(profile: MtaProfile, nexthop: NextHop) -> tuple[TlsPolicy | None, bool]:
    """Look up the static entry of smtp_tls_policy_maps for *nexthop*, and whether it is its own.

    A name alone is looked up by itself, then by each ``.parent``, whatever names its servers (MX,
    SRV or its own address, as for LMTP); any other next hop (``[host]``, with a port) by its own
    name only (tls_policy_lookup()).
    """
    table = dict(profile.tls_policy)
    own = nexthop.destination
    if own in table:
        return table[own], True
    if own == nexthop.host:
        for key in itertools.islice(patterns(own), 1, None):
            if key in table:
                return table[key], False
    return None, False


def _default_policy(mydomain: str, domain: str) -> RequiretlsPolicy:
    exempt = domain == "localhost" or is_address(domain)
    own = bool(mydomain) and (domain == mydomain or domain.endswith("." + mydomain))
    return RequiretlsPolicy.OPPORTUNISTIC if exempt or own else RequiretlsPolicy.ENFORCE
