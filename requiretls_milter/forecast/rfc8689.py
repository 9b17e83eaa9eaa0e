"""What a client does that follows RFC 8689 section 4.2.1 to the letter.

For messages that are to be delivered with REQUIRETLS; all others are no matter
of this profile.
"""

from __future__ import annotations

import itertools

from requiretls_milter.forecast.attempt import (
    IN_CLEAR,
    Attempt,
    session_failure,
    tls_weakness,
    unknown,
)
from requiretls_milter.forecast.authentication import authenticate
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.forecast.servers import (
    NoServer,
    Server,
    Servers,
    in_mta_sts_policy,
    name_is_authenticated,
    tlsa_lookup_failed,
)
from requiretls_milter.model import (
    UNKNOWN_STATUS,
    DomainEvidence,
    ProbeStage,
    Reading,
    Reason,
)
from requiretls_milter.syntax import status

_BEFORE_TLS = IN_CLEAR | {ProbeStage.STARTTLS}
_AT_SECOND_EHLO = frozenset({ProbeStage.EHLO_TLS})


def deliver(
    evidence: DomainEvidence,
    servers: Servers,
    reading: Reading,
    trust: TrustStore,
    now: float,
) -> Attempt:
    """Try every server in order of preference; the first that satisfies takes the message.

    None left: something temporary at any of them keeps the message in the
    queue; else 5.7.30 if all that was missing at one of them was REQUIRETLS,
    else 5.7.10 (section 4.2.1).
    """
    if isinstance(servers, NoServer):
        return Attempt(None, servers.status, servers.reason, servers.text)
    attempts: list[Attempt] = []
    for server in itertools.chain.from_iterable(servers):
        attempts.append(attempt(server, evidence, reading, trust, now))
        if attempts[-1].delivered and not reading.every_mx:
            return attempts[-1]
    return (max if reading.every_mx else min)(attempts, key=_rank)


def _rank(result: Attempt) -> int:
    if result.delivered:
        return 0
    if result.status == UNKNOWN_STATUS:
        return 1
    if result.status.startswith("4"):
        return 2
    return 3 if result.status == status.REQUIRETLS_NEEDED else 4


def attempt(
    server: Server, evidence: DomainEvidence, reading: Reading, trust: TrustStore, now: float
) -> Attempt:
    """Steps 2 to 5 of section 4.2.1 at one server."""
    if server.unseen:
        return unknown(server, server.unseen)
    if not name_is_authenticated(evidence, server.host, reading):
        return _name_not_authenticated(server, evidence)
    if tlsa_lookup_failed(server.host):
        # RFC 7672 section 2.2: delay, rather than take the lookup for "none".
        return Attempt(
            server,
            status.TLS_NOT_ESTABLISHED,
            Reason.POLICY_LOOKUP_FAILED,
            f"TLSA lookup for {server.host.host} failed",
        )
    return (
        session_failure(server, _BEFORE_TLS)
        or _no_tls(server)
        or _not_authenticated(server, evidence, reading, trust, now)
        or session_failure(server, _AT_SECOND_EHLO)
        or _last_step(server)
    )


def _name_not_authenticated(server: Server, evidence: DomainEvidence) -> Attempt:
    domain = evidence.nexthop.host
    if in_mta_sts_policy(evidence, server.host.host) is False:
        # RFC 8461 section 5.1: the policy may have changed; no permanent failure from it.
        return Attempt(
            server,
            status.POLICY_TEMPORARY,
            Reason.MX_NOT_IN_MTA_STS_POLICY,
            f"{server.host.host} is not in the MTA-STS policy of {domain}",
        )
    if evidence.mta_sts.error:
        return Attempt(
            server,
            status.POLICY_TEMPORARY,
            Reason.POLICY_LOOKUP_FAILED,
            f"MX records of {domain} are not signed, and its MTA-STS policy could not be had: "
            f"{evidence.mta_sts.error}",
        )
    return Attempt(
        server,
        status.ENCRYPTION_NEEDED,
        Reason.MX_LOOKUP_INSECURE,
        f"MX records of {domain} are neither signed nor confirmed by MTA-STS",
    )


def _no_tls(server: Server) -> Attempt | None:
    probe = server.probe
    if probe.starttls_reply is not None:
        reply = probe.starttls_reply
        reason = Reason.STARTTLS_REFUSED
        text = f"{server.name} offers STARTTLS but refuses it: {reply.code} {reply.text}"
    elif not probe.starttls_offered:
        reason = Reason.STARTTLS_NOT_OFFERED
        text = f"{server.name} does not offer STARTTLS"
    elif probe.stage is ProbeStage.HANDSHAKE:
        reason = Reason.TLS_HANDSHAKE_FAILED
        why = probe.error or str(probe.failure)
        text = f"TLS handshake with {server.name} failed: {why}"
    elif tls_weakness(probe):
        # Section 4.2.1 refers to RFC 7525, whose successor is RFC 9325: no TLS before 1.2,
        # no suite and no key of less than 112 bits.
        reason = Reason.TLS_HANDSHAKE_FAILED
        text = f"TLS handshake with {server.name} failed: {tls_weakness(probe)}"
    else:
        return None
    return Attempt(server, status.ENCRYPTION_NEEDED, reason, text)


def _not_authenticated(
    server: Server, evidence: DomainEvidence, reading: Reading, trust: TrustStore, now: float
) -> Attempt | None:
    result = authenticate(server, evidence, reading, trust, now)
    if result.verified_by:
        return None
    if server.probe.chain_cut:
        why = f"{server.name} presented more certificates than we keep: {result.error}"
        return unknown(server, why)
    return Attempt(
        server,
        status.ENCRYPTION_NEEDED,
        Reason.CERTIFICATE_NOT_VERIFIED,
        f"certificate of {server.name} is not verified: {result.error}",
    )


def _last_step(server: Server) -> Attempt:
    if server.probe.requiretls is not True:
        return Attempt(
            server,
            status.REQUIRETLS_NEEDED,
            Reason.REQUIRETLS_NOT_OFFERED,
            f"{server.name} does not offer REQUIRETLS",
        )
    return Attempt(
        server,
        status.SUCCESS,
        Reason.OK,
        f"{server.name} would take the message with REQUIRETLS over verified TLS",
        ends=True,
        verified=True,
        requiretls_sent=True,
    )
