"""A domain as those see it that send mail to it: what is wrong, and what would break first.

The evidence is that of a next hop, and what else the domain publishes
(:class:`~requiretls_milter.model.PublishedEvidence`). What could not be found out is never a
problem by itself: it is told as :attr:`InboundReport.unseen`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from requiretls_milter.forecast import inboundserver
from requiretls_milter.forecast.certificate import Certificate, parse
from requiretls_milter.forecast.der import MalformedCertificateError
from requiretls_milter.forecast.inboundserver import Problem, Urgency
from requiretls_milter.forecast.mta_sts import mta_sts_match
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.model import (
    DnsOutcome,
    DomainEvidence,
    HostEvidence,
    InboundProblem,
    MtaStsMode,
    MtaStsPolicy,
    PublishedEvidence,
)
from requiretls_milter.syntax.moments import day
from requiretls_milter.syntax.text import printable

SHORT_MAX_AGE = 86_400
"""Seconds of max_age below which a policy protects few senders: those that send every day. RFC
8461 section 3.2 speaks of weeks."""

_OF_ALL_SERVERS = frozenset(
    {InboundProblem.LOOKUP_FAILED, InboundProblem.NO_SERVER, InboundProblem.MX_UNSIGNED}
)
"""Problems of the domain with which none of its servers gets such mail."""


class ServerReadiness(enum.StrEnum):
    """Whether REQUIRETLS mail gets to a server now."""

    READY = "ready"
    NOT_READY = "not_ready"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ServerState:
    """One MX host.

    Attributes:
        host: its name.
        readiness: whether REQUIRETLS mail to the domain can be delivered to it.
        certificate_expires: the end of the certificate that ends first among those that its
            addresses present; None if none was seen. Seconds since the epoch.
    """

    host: str
    readiness: ServerReadiness
    certificate_expires: float | None


@dataclass(frozen=True, slots=True)
class Ending:
    """A certificate, and its end.

    Attributes:
        what: ``certificate`` of a server, or ``policy_certificate`` of the MTA-STS policy host.
        host: the server; "" for the policy host.
        at: seconds since the epoch.
    """

    what: str
    host: str
    at: float


@dataclass(frozen=True, slots=True)
class InboundReport:
    """What was found out about a domain.

    Attributes:
        domain: its name.
        problems: the worst first; those that end by the time at which they do.
        servers: the MX hosts in order of preference.
        policy_expires: when senders that fetched the MTA-STS policy last will have lost it; None
            if there is no policy.
        unseen: hosts of which not all is known, and "" if it is not known what the domain itself
            publishes.
        observed_at: seconds since the epoch.
        policy_certificate_expires: the end of the policy host's certificate; None if none was seen.
    """

    domain: str
    problems: tuple[Problem, ...]
    servers: tuple[ServerState, ...]
    policy_expires: float | None
    unseen: frozenset[str]
    observed_at: float
    policy_certificate_expires: float | None = None

    @property
    def ends_first(self) -> Ending | None:
        """The certificate that ends first, near or far; None if none was seen."""
        ends = [
            Ending("certificate", one.host, one.certificate_expires)
            for one in self.servers
            if one.certificate_expires is not None
        ]
        if self.policy_certificate_expires is not None:
            ends.append(Ending("policy_certificate", "", self.policy_certificate_expires))
        return min(ends, key=lambda one: one.at, default=None)

    @property
    def breaks_first(self) -> Problem | None:
        """What is broken already, or breaks first; None for nothing."""
        serious = (one for one in self.problems if one.severity is not Urgency.ADVICE)
        return next(serious, None)

    @property
    def verdict(self) -> str:
        """The same as a sentence."""
        first = self.breaks_first
        if first is None:
            return f"Nothing that was seen breaks soon.{self._end}"
        where = f" of {first.host}" if first.host else ""
        when = f"on {day(first.at)}" if first.at is not None else "now"
        return f"Breaks first: {first.problem}{where}, {when}."

    @property
    def _end(self) -> str:
        first = self.ends_first
        if first is None:
            return ""
        whose = first.host or "the MTA-STS policy host"
        return f" Ends first: the certificate of {whose}, on {day(first.at)}."


def judge_inbound(
    evidence: DomainEvidence,
    published: PublishedEvidence,
    trust: TrustStore,
    now: float,
    *,
    validates: bool,
) -> InboundReport:
    """Say what is wrong with a domain.

    Args:
        evidence: of its servers; the next hop is the domain.
        published: what else it publishes.
        trust: the certification authorities that count.
        now: seconds since the epoch.
        validates: whether the resolver validates. If not, nothing is said of signatures.
    """
    policy = published.mta_sts.policy or evidence.mta_sts.policy
    findings = list(_of_domain(evidence, published, policy, now, validates=validates))
    unseen = {""} if evidence.mx.unasked or published.mta_sts.unasked else set()
    if not validates or evidence.mx.unproven or evidence.mx.outcome is DnsOutcome.ERROR:
        unseen.add("")
    for host in evidence.hosts:
        enforced = _is_enforced(policy, host)
        found = inboundserver.judge_server(
            evidence, host, trust, now, enforced=enforced, validates=validates
        )
        findings += found.findings
        findings += _of_host(host, published, policy, enforced=enforced)
        if found.unseen:
            unseen.add(host.host)
    ordered = tuple(sorted(dict.fromkeys(findings), key=_order))
    return InboundReport(
        evidence.nexthop.host,
        ordered,
        tuple(_state(host, ordered, unseen, now) for host in evidence.hosts),
        _policy_expires(evidence, published),
        frozenset(unseen),
        now,
        _policy_certificate_end(published),
    )


def _is_enforced(policy: MtaStsPolicy | None, host: HostEvidence) -> bool:
    """Whether senders demand a verified certificate of *host* because of the policy."""
    if policy is None or policy.mode is not MtaStsMode.ENFORCE:
        return False
    return mta_sts_match(policy, host.host)


_SEVERITIES = tuple(Urgency)


def _order(finding: Problem) -> tuple[int, float, str, str]:
    at = finding.at if finding.at is not None else 0.0
    return _SEVERITIES.index(finding.severity), at, finding.host, finding.problem


def _policy_expires(evidence: DomainEvidence, published: PublishedEvidence) -> float | None:
    ends = [
        found.fetched_at + found.policy.max_age
        for found in (evidence.mta_sts, published.mta_sts)
        if found.policy is not None
    ]
    return max(ends, default=None)


def _state(
    host: HostEvidence, findings: tuple[Problem, ...], unseen: set[str], now: float
) -> ServerState:
    broken = any(
        one.severity is Urgency.BROKEN
        and (one.host == host.host or (not one.host and one.problem in _OF_ALL_SERVERS))
        for one in findings
    )
    if broken:
        readiness = ServerReadiness.NOT_READY
    else:
        is_unknown = host.host in unseen or "" in unseen
        readiness = ServerReadiness.UNKNOWN if is_unknown else ServerReadiness.READY
    return ServerState(host.host, readiness, inboundserver.certificate_end(host))


# ---------------------------------------------------------------- the domain


def _of_domain(
    evidence: DomainEvidence,
    published: PublishedEvidence,
    policy: MtaStsPolicy | None,
    now: float,
    *,
    validates: bool,
) -> Iterator[Problem]:
    yield from _of_mx(evidence, policy, validates=validates)
    yield from _of_policy(evidence, published)
    yield from _of_policy_host(published, now)
    if published.tlsrpt is False:
        text = "no TLSRPT record: nothing tells us which deliveries fail elsewhere (RFC 8460)"
        yield Problem(InboundProblem.TLSRPT_MISSING, Urgency.ADVICE, "", text)


def _of_mx(
    evidence: DomainEvidence, policy: MtaStsPolicy | None, *, validates: bool
) -> Iterator[Problem]:
    mx = evidence.mx
    if mx.outcome is DnsOutcome.ERROR:
        if not mx.unasked:
            text = printable(f"the MX lookup failed: {mx.error}")
            yield Problem(InboundProblem.LOOKUP_FAILED, Urgency.BROKEN, "", text)
        return
    if not evidence.hosts:
        text = "null MX: the domain takes no mail" if mx.null_mx else "no server is named"
        if mx.outcome is DnsOutcome.NXDOMAIN:
            text = "the domain does not exist"
        yield Problem(InboundProblem.NO_SERVER, Urgency.BROKEN, "", text)
        return
    if mx.secure or mx.unproven or not validates:
        return
    named = all(_is_enforced(policy, host) for host in evidence.hosts)
    severity = Urgency.ADVICE if named else Urgency.BROKEN
    text = "the MX records are not signed by DNSSEC"
    text += ": MTA-STS alone vouches for them" if named else ", and no MTA-STS policy vouches"
    yield Problem(InboundProblem.MX_UNSIGNED, severity, "", text)


def _of_policy(evidence: DomainEvidence, published: PublishedEvidence) -> Iterator[Problem]:
    fetched = published.mta_sts
    if fetched.unasked:
        return
    if fetched.error:
        text = printable(f"the MTA-STS policy cannot be fetched: {fetched.error}")
        yield Problem(InboundProblem.POLICY_HOST_FAILS, Urgency.BROKEN, "", text)
        return
    if fetched.policy is None:
        kept = evidence.mta_sts.policy
        withdrawn = kept is None or kept.mode is MtaStsMode.NONE
        severity = Urgency.ADVICE if withdrawn else Urgency.BROKEN
        text = "no MTA-STS record" if withdrawn else "the MTA-STS record is gone"
        yield Problem(InboundProblem.POLICY_MISSING, severity, "", text)
        return
    if fetched.policy.mode is not MtaStsMode.ENFORCE:
        text = f"the MTA-STS policy has the mode {fetched.policy.mode}: it demands nothing"
        yield Problem(InboundProblem.POLICY_NOT_ENFORCED, Urgency.ADVICE, "", text)
    if fetched.policy.max_age < SHORT_MAX_AGE:
        text = f"the MTA-STS policy is kept for {fetched.policy.max_age} s only (max_age)"
        yield Problem(InboundProblem.POLICY_MAX_AGE_SHORT, Urgency.ADVICE, "", text)


def _policy_certificate(published: PublishedEvidence) -> Certificate | None:
    if not published.policy_certificate:
        return None
    try:
        return parse(published.policy_certificate)
    except MalformedCertificateError:
        return None  # the fetch has failed for it


def _policy_certificate_end(published: PublishedEvidence) -> float | None:
    certificate = _policy_certificate(published)
    return None if certificate is None else certificate.not_after


def _of_policy_host(published: PublishedEvidence, now: float) -> Iterator[Problem]:
    certificate = _policy_certificate(published)
    if certificate is None:
        return
    end = certificate.not_after
    when = day(end)
    if end < now:
        text = f"the policy host's certificate ended on {when}"
        problem = InboundProblem.POLICY_CERTIFICATE_EXPIRED
        yield Problem(problem, Urgency.BROKEN, "", text)
    elif inboundserver.ends_soon(certificate, now):
        text = f"the policy host's certificate ends on {when}"
        problem = InboundProblem.POLICY_CERTIFICATE_EXPIRES
        yield Problem(problem, Urgency.ENDS, "", text, end)


def _of_host(
    host: HostEvidence,
    published: PublishedEvidence,
    policy: MtaStsPolicy | None,
    *,
    enforced: bool,
) -> Iterator[Problem]:
    if host.host in published.unsigned_tlsa:
        severity = Urgency.ADVICE if enforced else Urgency.BROKEN
        text = "there are TLSA records, but no sender may use them: not all is signed by DNSSEC"
        yield Problem(InboundProblem.TLSA_UNSIGNED, severity, host.host, text)
    if policy is None or policy.mode is MtaStsMode.NONE or mta_sts_match(policy, host.host):
        return
    severity = Urgency.BROKEN if policy.mode is MtaStsMode.ENFORCE else Urgency.ADVICE
    text = "the MTA-STS policy does not name this server"
    yield Problem(InboundProblem.MX_NOT_IN_POLICY, severity, host.host, text)
