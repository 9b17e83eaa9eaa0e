"""What a mail about watched domains says: a pure function of what was found out.

Each text is ASCII, printable, in lines of bounded length and number: what servers say reaches a
mailbox as quoted words, never as a header field or a command.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from requiretls_milter.engine.watched.inboundreport import Change
from requiretls_milter.forecast.inbound import InboundReport
from requiretls_milter.forecast.inboundserver import Problem, Urgency
from requiretls_milter.syntax.moments import moment
from requiretls_milter.syntax.text import bounded, quantity

MAX_LINE = 200
"""Characters of a line: RFC 5322 section 2.1.1 allows 998."""

MAX_LINES = 2_000
"""Lines of a mail."""

_SIGNATURE = (
    "",
    "-- ",
    "requiretls-milter. What each word means: docs/watch.md. Look now:",
    "requiretls-milter check --inbound {domain}",
)


@dataclass(frozen=True, slots=True)
class Letter:
    """Subject and text of a mail."""

    subject: str
    text: str


def changes_letter(changes: Sequence[Change]) -> Letter:
    """Tell of changes, at least one, the earliest first."""
    domains = list(dict.fromkeys(change.report.domain for change in changes))
    appeared, ended = (
        sum(one.severity is not Urgency.ADVICE for one in findings)
        for findings in (
            [one for change in changes for one in change.appeared],
            [one for change in changes for one in change.ended],
        )
    )
    subject = f"{_domains(domains)}: {quantity(appeared, 'new problem')}, {ended} ended"
    lines: list[str] = []
    for change in changes:
        lines += [f"{change.report.domain}, {moment(change.report.observed_at)}"]
        lines += [f"  new, {one.severity}:  {_problem(one)}" for one in change.appeared]
        lines += [f"  ended:  {_problem(one)}" for one in change.ended]
        lines += [f"  {change.report.verdict}", ""]
    return _letter(subject, lines, domains)


def digest_letter(reports: Sequence[InboundReport]) -> Letter:
    """Tell how all domains are, those with problems first."""
    ordered = sorted(reports, key=lambda report: (report.breaks_first is None, report.domain))
    bad = [report.domain for report in ordered if report.breaks_first is not None]
    if bad:
        subject = f"{len(bad)} of {len(ordered)} watched domains with problems: {_domains(bad)}"
    else:
        subject = f"{quantity(len(ordered), 'watched domain')} in good order"
    lines: list[str] = []
    for report in ordered:
        lines += [f"{report.domain}, {moment(report.observed_at)}: {report.verdict}"]
        lines += [f"  {one.severity.value + ':':<8} {_problem(one)}" for one in report.problems]
        if report.problems:
            lines.append("")
    return _letter(subject, lines, [report.domain for report in ordered])


def _problem(finding: Problem) -> str:
    where = f"{finding.host}: " if finding.host else ""
    return f"{finding.problem}: {where}{finding.text}"


def _domains(domains: Sequence[str]) -> str:
    """The first domains of a list, and how many there are beside them."""
    rest = f" and {len(domains) - 1} more" if len(domains) > 1 else ""
    return domains[0] + rest


def _letter(subject: str, lines: list[str], domains: Sequence[str]) -> Letter:
    kept = [bounded(line, MAX_LINE) for line in _bounded(lines)]
    kept += [line.format(domain=domains[0]) for line in _SIGNATURE]
    return Letter(bounded(subject, MAX_LINE), "\n".join(kept) + "\n")


def _bounded(lines: list[str]) -> Iterator[str]:
    yield from lines[:MAX_LINES]
    if len(lines) > MAX_LINES:
        yield f"... and {len(lines) - MAX_LINES} lines more"
