"""The sentences of a forecast that several profiles use: ``text``, one line for people.

What they quote (host names, replies of servers, names in certificates) comes from
evidence, where it is printable and bounded already (R62).
"""

from __future__ import annotations

from requiretls_milter.forecast.reach import MailServer
from requiretls_milter.model import ProbeEvidence, Reason
from requiretls_milter.syntax.names import address_literal

SHORTCOMINGS = {
    Reason.NONCOMPLIANT_UNVERIFIED: "the server is not authenticated as RFC 8689 wants",
    Reason.NONCOMPLIANT_MX_INSECURE: "the MX records are neither signed nor confirmed by MTA-STS",
    Reason.NONCOMPLIANT_NOT_OFFERED: "the server does not offer REQUIRETLS",
    Reason.NONCOMPLIANT_WEAK_TLS: "its TLS is weaker than RFC 9325 allows",
    Reason.NONCOMPLIANT_NOT_CARRIED: "this MTA is told not to pass REQUIRETLS on",
}
"""What a delivery that would be made lacks of RFC 8689 section 4.2.1."""

RANDOM_ORDER = "servers of equal preference differ, and Postfix tries them in random order"

RESOLVER_UNPROVEN = (
    "the resolver's answers have the AD bit, but nothing has shown yet that it validates DNSSEC"
)
"""Why a failure that may rest on DNSSEC is no forecast."""


MX_UNSIGNED = "the MX records are not signed"
"""Without a signature nobody can tell whether they name the servers of the domain."""


def no_tlsa_records(server: MailServer) -> str:
    """Say that a host has no TLSA records that count, and whether that is for want of DNSSEC."""
    host, tlsa = server.host.host, server.host.tlsa
    if address_literal(host) is not None:
        return f"{host} is an address, which has no TLSA records"
    if not tlsa.queried:
        return f"the addresses of {host} are not signed, so TLSA records do not count"
    if tlsa.records:
        return f"the TLSA records of {host} are not signed"
    return f"{host} has no TLSA records"


def tlsa_lookup_failed(server: MailServer) -> str:
    """Say that TLSA records may exist that could not be seen."""
    return f"TLSA lookup for {server.host.host} failed"


def failure_of(probe: ProbeEvidence) -> str:
    """Say why a session ended early."""
    return probe.error or str(probe.failure)


def starttls_not_offered(server: MailServer) -> str:
    """Say that the server has no STARTTLS."""
    return f"{server.name} does not offer STARTTLS"


def starttls_refused(server: MailServer) -> str:
    """Say that the server offers STARTTLS and refuses it, and with which reply."""
    reply = server.probe.starttls_reply
    said = f": {reply.code} {reply.text}" if reply else ""
    return f"{server.name} offers STARTTLS but refuses it{said}"


def handshake_failed(server: MailServer, why: str) -> str:
    """Say that TLS does not come about."""
    return f"TLS handshake with {server.name} failed: {why}"


def certificate_not_verified(server: MailServer, mismatch: str) -> str:
    """Say that TLS comes about with a server that does not prove to be the MX host."""
    return f"certificate of {server.name} is not verified: {mismatch}"


def chain_cut(server: MailServer, mismatch: str) -> str:
    """Say that the missing certificate may be among those that were not kept."""
    return f"{server.name} presented more certificates than we keep: {mismatch}"


def smtputf8_not_offered(server: MailServer, where: str) -> str:
    """Say that an EHLO reply lacks the keyword; *where* is that reply."""
    return f"{server.name} does not offer SMTPUTF8 {where}, which the message needs"


def message_too_large(server: MailServer, size: int) -> str:
    """Say that the server takes no message of that size."""
    return f"{server.name} takes {server.probe.size_limit} octets, and the message has {size}"


def requiretls_not_offered(server: MailServer) -> str:
    """Say that the EHLO reply inside TLS lacks the keyword."""
    return f"{server.name} does not offer REQUIRETLS"
