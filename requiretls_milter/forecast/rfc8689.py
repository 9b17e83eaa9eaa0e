"""How a client delivers that follows RFC 8689 section 4.2.1 to the letter.

This profile is about messages with REQUIRETLS alone; all other mail goes by
Postfix's rules in both profiles.
"""

from __future__ import annotations

import itertools

from requiretls_milter.forecast import sentences
from requiretls_milter.forecast.attempt import (
    AT_SECOND_EHLO,
    IN_CLEAR,
    DeliveryAttempt,
    session_failure,
    tls_weakness,
    unknown,
)
from requiretls_milter.forecast.authentication import authenticate
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.forecast.reach import MailServer
from requiretls_milter.forecast.servers import (
    NoServer,
    Servers,
    in_mta_sts_policy,
    name_is_authenticated,
    tlsa_lookup_failed,
)
from requiretls_milter.forecast.strength import SMALL_KEY, session_weakness
from requiretls_milter.model import (
    UNKNOWN_STATUS,
    DomainEvidence,
    Outcome,
    ProbeStage,
    Reading,
    Reason,
)
from requiretls_milter.syntax import status

_BEFORE_TLS = IN_CLEAR | {ProbeStage.STARTTLS}


def deliver(
    evidence: DomainEvidence,
    servers: Servers,
    reading: Reading,
    trust: TrustStore,
    now: float,
) -> DeliveryAttempt:
    """Try every server in order of preference; the first that satisfies takes the message (R11).

    If none satisfies, a temporary failure at any of them keeps the message in the
    queue. Otherwise it fails: with 5.7.30 if one of them lacked nothing but REQUIRETLS,
    else with 5.7.10 (section 4.2.1).
    """
    if isinstance(servers, NoServer):
        return DeliveryAttempt(None, servers.status, servers.reason, servers.text)
    attempts: list[DeliveryAttempt] = []
    for server in itertools.chain.from_iterable(servers):
        attempts.append(attempt(server, evidence, reading, trust, now))
        if attempts[-1].delivered and not reading.every_mx:
            break
    decisive = (max if reading.every_mx else min)(attempts, key=_rank)
    # It decides only as long as the others do not end differently.
    return decisive.until_at_most(min(attempt.until for attempt in attempts))


def _rank(result: DeliveryAttempt) -> int:
    """Rank a result: of several failures the lowest one is reported."""
    if result.delivered:
        return 0
    if result.status == UNKNOWN_STATUS:
        return 1
    if status.outcome_of(result.status) is Outcome.DEFER:
        return 2
    return 3 if result.status == status.REQUIRETLS_NEEDED else 4


def attempt(
    server: MailServer, evidence: DomainEvidence, reading: Reading, trust: TrustStore, now: float
) -> DeliveryAttempt:
    """Go through steps 2 to 5 of section 4.2.1 at one server.

    The codes are those of section 4.2.1 (R12). A failed TLSA lookup comes before
    all that MTA-STS confirms: a success of MTA-STS never overrides DANE (RFC 8461
    section 2, R45).
    """
    if server.unseen:
        return unknown(server, server.unseen.why)
    if not name_is_authenticated(evidence, server.host, reading):
        return _name_not_authenticated(server, evidence)
    if tlsa_lookup_failed(server.host):
        # RFC 7672 section 2.2: a failed lookup is a reason to delay, not "no records" (R21).
        return DeliveryAttempt(
            server,
            status.TLS_NOT_ESTABLISHED,
            Reason.POLICY_LOOKUP_FAILED,
            sentences.tlsa_lookup_failed(server),
        )
    return (
        session_failure(server, _BEFORE_TLS)
        or _no_tls(server, reading)
        or _inside_tls(server, evidence, reading, trust, now)
    )


def _name_not_authenticated(server: MailServer, evidence: DomainEvidence) -> DeliveryAttempt:
    domain = evidence.nexthop.host
    if in_mta_sts_policy(evidence, server.host.host) is False:
        # RFC 8461 section 5.1: the policy may have changed, so that it never fails mail (R57).
        return DeliveryAttempt(
            server,
            status.POLICY_TEMPORARY,
            Reason.MX_NOT_IN_MTA_STS_POLICY,
            f"{server.host.host} is not in the MTA-STS policy of {domain}",
        )
    if evidence.mta_sts.error:
        return DeliveryAttempt(
            server,
            status.POLICY_TEMPORARY,
            Reason.POLICY_LOOKUP_FAILED,
            f"MX records of {domain} are not signed, and its MTA-STS policy could not be had: "
            f"{evidence.mta_sts.error}",
        )
    return DeliveryAttempt(
        server,
        status.ENCRYPTION_NEEDED,
        Reason.MX_LOOKUP_INSECURE,
        f"MX records of {domain} are neither signed nor confirmed by MTA-STS",
    )


def _no_tls(server: MailServer, reading: Reading) -> DeliveryAttempt | None:
    probe = server.probe
    weakness = tls_weakness(probe) or (None if reading.weak_tls_counts else session_weakness(probe))
    if probe.starttls_reply is not None:
        reason, text = Reason.STARTTLS_REFUSED, sentences.starttls_refused(server)
    elif not probe.starttls_offered:
        reason, text = Reason.STARTTLS_NOT_OFFERED, sentences.starttls_not_offered(server)
    elif probe.stage is ProbeStage.HANDSHAKE:
        reason = Reason.TLS_HANDSHAKE_FAILED
        text = sentences.handshake_failed(server, sentences.failure_of(probe))
    elif weakness is not None:
        # Section 4.2.1 refers to RFC 7525, whose successor is RFC 9325.
        reason = Reason.TLS_HANDSHAKE_FAILED
        text = sentences.handshake_failed(server, weakness)
    else:
        return None
    return DeliveryAttempt(server, status.ENCRYPTION_NEEDED, reason, text)


def _inside_tls(
    server: MailServer, evidence: DomainEvidence, reading: Reading, trust: TrustStore, now: float
) -> DeliveryAttempt:
    """Verify the certificate, then look at the EHLO reply inside TLS."""
    result = authenticate(server, evidence, reading, trust, now)
    mismatch = result.mismatch
    if mismatch is None and result.small_key and not reading.weak_tls_counts:
        mismatch = SMALL_KEY
    if mismatch is None:
        attempt = session_failure(server, AT_SECOND_EHLO) or _last_step(server, result.until)
    else:
        attempt = _not_authenticated(server, mismatch)
    return attempt.until_at_most(result.until)


def _not_authenticated(server: MailServer, mismatch: str) -> DeliveryAttempt:
    if server.probe.chain_cut:
        return unknown(server, sentences.chain_cut(server, mismatch))
    return DeliveryAttempt(
        server,
        status.ENCRYPTION_NEEDED,
        Reason.CERTIFICATE_NOT_VERIFIED,
        sentences.certificate_not_verified(server, mismatch),
    )


def _last_step(server: MailServer, until: float) -> DeliveryAttempt:
    if server.probe.requiretls is not True:
        return DeliveryAttempt(
            server,
            status.REQUIRETLS_NEEDED,
            Reason.REQUIRETLS_NOT_OFFERED,
            sentences.requiretls_not_offered(server),
            until=until,
        )
    return DeliveryAttempt(
        server,
        status.SUCCESS,
        Reason.OK,
        f"{server.name} would take the message with REQUIRETLS over verified TLS",
        ends=True,
        verified=True,
        requiretls_sent=True,
        until=until,
    )
