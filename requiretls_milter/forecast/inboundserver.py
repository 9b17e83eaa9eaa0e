"""One server of a domain as those see it that send mail to it. Pure; see :mod:`.inbound`."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from requiretls_milter.forecast import dane, pkix
from requiretls_milter.forecast.authentication import dane_references
from requiretls_milter.forecast.certificate import Certificate, parse
from requiretls_milter.forecast.der import MalformedCertificateError
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.forecast.servers import secure_tlsa, tlsa_lookup_failed
from requiretls_milter.model import (
    DnsOutcome,
    DomainEvidence,
    HostEvidence,
    InboundProblem,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    TlsaRecord,
)
from requiretls_milter.syntax.moments import day
from requiretls_milter.syntax.text import printable

SOON = 21 * 86_400.0
"""Seconds before its end at which a certificate should have been renewed: ACME clients do it 30
days before, and then fail each day."""

SOON_PART = 1 / 3
"""The same as a part of its validity, for certificates that are valid for days only."""

ROLLOVER_SOON = 30 * 86_400.0
"""Seconds before the end of a certificate within which its successor is to be expected."""


class Urgency(enum.StrEnum):
    """What a problem means; the worst first."""

    BROKEN = "broken"  # mail that insists on security does not get through now
    ENDS = "ends"  # it gets through until a time that is known
    ADVICE = "advice"  # it gets through, and could be safer


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem.

    Attributes:
        problem: the word.
        severity: what it means.
        host: the server that has it; "" for the domain.
        text: a sentence without its stop, printable.
        at: when it breaks, seconds since the epoch; None if it has no such time.
    """

    problem: InboundProblem
    severity: Urgency
    host: str
    text: str
    at: float | None = None


@dataclass(frozen=True, slots=True)
class ServerFindings:
    """What was found out about a server; ``unseen``: not all could be found out."""

    findings: tuple[Problem, ...]
    unseen: bool


def ends_soon(certificate: Certificate, now: float) -> bool:
    """Say whether a certificate should have been renewed by now."""
    validity = certificate.not_after - certificate.not_before
    return certificate.not_after - now < min(SOON, SOON_PART * validity)


def certificate_end(host: HostEvidence) -> float | None:
    """Give the end of the certificate that ends first among those that a host presents."""
    leaves = (_leaf(probe) for probe in host.probes)
    return min((leaf.not_after for leaf in leaves if leaf is not None), default=None)


def _leaf(probe: ProbeEvidence) -> Certificate | None:
    try:
        return parse(probe.chain[0]) if probe.chain else None
    except MalformedCertificateError:
        return None


def judge_server(
    evidence: DomainEvidence,
    host: HostEvidence,
    trust: TrustStore,
    now: float,
    *,
    enforced: bool,
    validates: bool,
) -> ServerFindings:
    """Say what is wrong with a server.

    Args:
        evidence: of the domain.
        host: one of its hosts.
        trust: the certification authorities that count.
        now: seconds since the epoch.
        enforced: whether an MTA-STS policy in mode ``enforce`` names the host, so that senders
            demand a certificate of a public authority.
        validates: whether the resolver validates.
    """
    findings = list(_of_dns(host, validates=validates))
    unseen = bool(host.unasked) or tlsa_lookup_failed(host) or host.addresses.unproven
    for probe in host.probes:
        if _is_unseen(probe):
            unseen = True
        findings += _of_session(host.host, probe)
        if probe.chain:
            findings += _of_certificate(evidence, host, probe, trust, now, enforced=enforced)
    # One server is told of once, however many addresses it has.
    first = {one.problem: one for one in reversed(findings)}
    return ServerFindings(tuple(reversed(first.values())), unseen or not host.probes)


def _of_dns(host: HostEvidence, *, validates: bool) -> Iterator[Problem]:
    found = host.addresses
    if host.unasked:
        return
    if found.outcome is not DnsOutcome.FOUND:
        text = printable(f"no address: {found.error or found.outcome}")
        yield Problem(InboundProblem.LOOKUP_FAILED, Urgency.BROKEN, host.host, text)
        return
    if tlsa_lookup_failed(host):
        text = printable(f"the TLSA lookup failed: {host.tlsa.error or 'its alias is not known'}")
        yield Problem(InboundProblem.LOOKUP_FAILED, Urgency.BROKEN, host.host, text)
        return
    absent = host.tlsa.queried and host.tlsa.outcome in (DnsOutcome.NODATA, DnsOutcome.NXDOMAIN)
    if validates and absent:
        text = "no TLSA records: senders that use DANE cannot verify this server"
        yield Problem(InboundProblem.TLSA_MISSING, Urgency.ADVICE, host.host, text)
    records = secure_tlsa(host)
    if records and not dane.usable(records):
        text = "none of the TLSA records is usable: senders that use DANE verify nothing"
        yield Problem(InboundProblem.TLSA_UNUSABLE, Urgency.BROKEN, host.host, text)


# ---------------------------------------------------------------- the session

_OURS = (ProbeFailure.FORBIDDEN, ProbeFailure.LIMIT, ProbeFailure.UNREACHABLE)
"""Failures that say nothing of the server."""


def _is_unseen(probe: ProbeEvidence) -> bool:
    """Whether the session did not come to its end."""
    return probe.stage is not ProbeStage.DONE


def _of_session(name: str, probe: ProbeEvidence) -> Iterator[Problem]:
    found = _session_problem(probe)
    if found is not None:
        problem, text = found
        text = printable(f"{probe.address}: {text}")
        yield Problem(problem, Urgency.BROKEN, name, text)


def _session_problem(probe: ProbeEvidence) -> tuple[InboundProblem, str] | None:
    if probe.failure in _OURS or probe.stage is ProbeStage.NOT_PROBED:
        return None
    if probe.starttls_reply is not None:
        reply = f"{probe.starttls_reply.code} {probe.starttls_reply.text}"
        return InboundProblem.STARTTLS_REFUSED, f"STARTTLS is refused: {reply}"
    match probe.stage:
        case ProbeStage.CONNECT | ProbeStage.BANNER | ProbeStage.EHLO:
            if probe.reply is not None:
                reply = f"{probe.reply.code} {probe.reply.text}"
                return InboundProblem.SERVER_REJECTS, f"the server refuses the session: {reply}"
            why = probe.error or probe.failure or "no answer"
            return InboundProblem.SERVER_UNREACHABLE, f"no session: {why}"
        case ProbeStage.STARTTLS | ProbeStage.HANDSHAKE:
            why = probe.error or probe.failure or "no answer"
            return InboundProblem.TLS_HANDSHAKE_FAILED, f"TLS does not come about: {why}"
        case ProbeStage.DONE if not probe.starttls_offered:
            return InboundProblem.STARTTLS_NOT_OFFERED, "STARTTLS is not offered"
        case ProbeStage.DONE if probe.requiretls is False:
            return InboundProblem.REQUIRETLS_NOT_OFFERED, "REQUIRETLS is not offered inside TLS"
        case _:
            return None


# ---------------------------------------------------------------- the certificate


def _of_certificate(
    evidence: DomainEvidence,
    host: HostEvidence,
    probe: ProbeEvidence,
    trust: TrustStore,
    now: float,
    *,
    enforced: bool,
) -> Iterator[Problem]:
    chain = probe.chain
    leaf = _leaf(probe)
    if leaf is None:
        text = f"{probe.address}: the certificate cannot be read"
        yield Problem(InboundProblem.CERTIFICATE_NOT_VERIFIED, Urgency.BROKEN, host.host, text)
        return
    usable = dane.usable(secure_tlsa(host))
    match = dane.match(chain, usable) if usable else None
    if match is not None and not match.end_entity and match.anchored is None:
        text = f"{probe.address}: no TLSA record matches the certificate that is served"
        yield Problem(InboundProblem.TLSA_DOES_NOT_MATCH, Urgency.BROKEN, host.host, text)
    # With DANE-EE(3) dates and names do not count (RFC 7672 section 3.1.1).
    counts = enforced or match is None or not match.end_entity
    yield from _of_dates(host.host, probe.address, leaf, now, counts=counts)
    if leaf.not_before <= now <= leaf.not_after and counts:
        yield from _of_path(evidence, host, probe, usable, trust, now, enforced=enforced)
    if match is not None and match.end_entity and match.anchored is None:
        yield from _of_rollover(host.host, chain, usable, leaf, now)


def _of_dates(
    name: str, address: str, leaf: Certificate, now: float, *, counts: bool
) -> Iterator[Problem]:
    text = f"{address}: the certificate %s on {day(leaf.not_after)}"
    if not counts:
        text += "; senders that go by DANE-EE ignore dates"
    if now > leaf.not_after:
        severity = Urgency.BROKEN if counts else Urgency.ADVICE
        problem = InboundProblem.CERTIFICATE_EXPIRED
        yield Problem(problem, severity, name, text % "ended")
    elif ends_soon(leaf, now):
        severity = Urgency.ENDS if counts else Urgency.ADVICE
        problem = InboundProblem.CERTIFICATE_EXPIRES
        yield Problem(problem, severity, name, text % "ends", leaf.not_after)


def _of_path(
    evidence: DomainEvidence,
    host: HostEvidence,
    probe: ProbeEvidence,
    usable: tuple[TlsaRecord, ...],
    trust: TrustStore,
    now: float,
    *,
    enforced: bool,
) -> Iterator[Problem]:
    """Say why senders that go by names and authorities do not accept the certificate."""
    mismatches = []
    if enforced or not usable:
        mismatches.append(pkix.check(probe.chain, (host.host,), trust, now).mismatch)
    if usable:
        found = dane.match(probe.chain, usable)
        if found.anchored is not None and not found.end_entity:
            references = dane_references(host, evidence)
            mismatches.append(dane.check(probe.chain, usable, references, now).mismatch)
    for mismatch in filter(None, mismatches):
        text = printable(f"{probe.address}: {mismatch}")
        yield Problem(InboundProblem.CERTIFICATE_NOT_VERIFIED, Urgency.BROKEN, host.host, text)
        return


def _of_rollover(
    name: str,
    chain: tuple[bytes, ...],
    usable: tuple[TlsaRecord, ...],
    leaf: Certificate,
    now: float,
) -> Iterator[Problem]:
    """Foresee what happens to the TLSA records when the certificate is renewed.

    A record that does not match now is there for the next certificate or key. If there is none,
    a record of the certificate (selector 0) matches no successor at all, and one of its key
    (selector 1) only a successor with the same key.
    """
    served = [record for record in usable if dane.match(chain, (record,)).end_entity]
    if len(served) < len(usable):
        return
    problem = InboundProblem.ROLLOVER_UNPREPARED
    if any(record.selector == dane.SPKI for record in served):
        text = "no TLSA record for a further key: a renewal must keep the key"
        yield Problem(problem, Urgency.ADVICE, name, text)
        return
    text = f"the TLSA records match this certificate alone, which ends on {day(leaf.not_after)}"
    if leaf.not_after - now < ROLLOVER_SOON:
        yield Problem(problem, Urgency.ENDS, name, text, max(leaf.not_after, now))
    else:
        yield Problem(problem, Urgency.ADVICE, name, text)
