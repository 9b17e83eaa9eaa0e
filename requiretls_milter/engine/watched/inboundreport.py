"""What was found out about an own domain as an object of JSON: a contract (docs/watch.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from requiretls_milter.forecast.inbound import Ending, InboundReport, ServerReadiness
from requiretls_milter.forecast.inboundserver import Problem
from requiretls_milter.syntax.moments import moment, moment_if_any

_READY = {
    ServerReadiness.READY: True,
    ServerReadiness.NOT_READY: False,
    ServerReadiness.UNKNOWN: None,
}


class ProblemReport(TypedDict):
    """One problem; ``host`` is null for the domain, ``at`` for what has no time."""

    problem: str
    severity: str
    host: str | None
    text: str
    at: str | None


class InboundServerReport(TypedDict):
    """One MX host; ``ready`` is null if that is not known."""

    host: str
    ready: bool | None
    certificate_expires: str | None


class EndingReport(TypedDict):
    """What ends first; ``host`` is null for the policy host."""

    what: str
    host: str | None
    at: str


class DomainReport(TypedDict):
    """One domain."""

    domain: str
    observed_at: str
    resolver_validates: bool
    breaks_first: ProblemReport | None
    ends_first: EndingReport | None
    problems: list[ProblemReport]
    servers: list[InboundServerReport]
    policy_expires: str | None
    policy_certificate_expires: str | None
    unseen: list[str]


def domain_report(report: InboundReport, *, validates: bool) -> DomainReport:
    """Make the object of a domain; ``validates``: whether the resolver does."""
    first, end = report.breaks_first, report.ends_first
    return DomainReport(
        domain=report.domain,
        observed_at=moment(report.observed_at),
        resolver_validates=validates,
        breaks_first=None if first is None else problem_report(first),
        ends_first=None if end is None else _ending(end),
        problems=[problem_report(one) for one in report.problems],
        servers=[
            InboundServerReport(
                host=one.host,
                ready=_READY[one.readiness],
                certificate_expires=moment_if_any(one.certificate_expires),
            )
            for one in report.servers
        ],
        policy_expires=moment_if_any(report.policy_expires),
        policy_certificate_expires=moment_if_any(report.policy_certificate_expires),
        unseen=sorted(host or report.domain for host in report.unseen),
    )


def _ending(end: Ending) -> EndingReport:
    return EndingReport(what=end.what, host=end.host or None, at=moment(end.at))


def problem_report(finding: Problem) -> ProblemReport:
    """Make the object of a problem."""
    return ProblemReport(
        problem=finding.problem.value,
        severity=finding.severity.value,
        host=finding.host or None,
        text=finding.text,
        at=moment_if_any(finding.at),
    )


@dataclass(frozen=True, slots=True)
class Change:
    """What is new of a watched domain: problems that were not there before, and that are gone.

    ``report`` is what was found out, ``validates`` whether the resolver validates DNSSEC.
    """

    report: InboundReport
    appeared: tuple[Problem, ...]
    ended: tuple[Problem, ...]
    validates: bool


class ChangeReport(TypedDict):
    """A change, as ``watch.notify`` is told of it."""

    event: str
    domain: str
    appeared: list[ProblemReport]
    ended: list[ProblemReport]
    report: DomainReport


def change_report(change: Change) -> ChangeReport:
    """Make the object of a change."""
    return ChangeReport(
        event="watched_domain_changed",
        domain=change.report.domain,
        appeared=[problem_report(one) for one in change.appeared],
        ended=[problem_report(one) for one in change.ended],
        report=domain_report(change.report, validates=change.validates),
    )
