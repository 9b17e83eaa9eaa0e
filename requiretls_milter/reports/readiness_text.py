"""A report on readiness as text for people and as one JSON object. Pure.

The keys and words of the JSON are a contract with other people's scripts (docs/report.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from requiretls_milter.engine.watched.inboundreport import domain_report
from requiretls_milter.readiness import figures as figuring
from requiretls_milter.readiness import words
from requiretls_milter.readiness.figures import Count, Figures, Share
from requiretls_milter.readiness.values import Downgrade, HopReadiness, Readiness
from requiretls_milter.reports.printing import bare_table, printed
from requiretls_milter.syntax.moments import day, moment, moment_if_any
from requiretls_milter.syntax.text import quantity, visible

SHOWN = 20
"""Next hops, and other lines of a list, in the text; JSON has all."""

SHOWN_DAYS = 14
"""Days of the history in the text."""


# ---------------------------------------------------------------- JSON


def to_json(report: Readiness) -> str:
    """The whole report as one object, in ASCII."""
    found = figuring.figures(report)
    return json.dumps(_object(report, found), indent=2)


def _object(report: Readiness, found: Figures) -> dict[str, Any]:
    return {
        "answer": found.answer.value,
        "sentence": words.answer(report, found),
        "made_at": moment(report.made_at),
        "source": report.source.value,
        "since": moment_if_any(report.since),
        "until": moment_if_any(report.until),
        "mta": report.mta,
        "resolver_validates": report.resolver_validates,
        "mail": _share(found.mail),
        "domains": _share(found.domains),
        "one_step": _count(found.one_step),
        "left_out": {"domains": report.left_out, "mail": report.left_out_mail},
        "states": _counts(found.states),
        "reasons": _counts(found.reasons),
        "steps": _counts(found.just_below),
        "levels": _pairs(found.levels),
        "policies": _pairs(found.policies),
        "tls_versions": _pairs(found.versions),
        "next_hops": [_next_hop(one) for one in figuring.by_mail(report.destinations)],
        "history_kept": report.is_kept,
        "history": [one.model_dump() for one in report.days],
        "downgrades": [_downgrade(one) for one in report.downgrades],
        "own_servers": None
        if report.own is None
        else [domain_report(one, validates=report.resolver_validates) for one in report.own],
        "accuracy": None
        if report.accuracy is None
        else {
            "equal": report.accuracy.equal,
            "different": report.accuracy.different,
            "later": report.accuracy.later,
            "unknown": report.accuracy.unknown,
            "waiting": report.accuracy.waiting,
        },
    }


def _share(share: Share) -> dict[str, Any]:
    return {"ready": share.part, "total": share.whole, "share": share.fraction}


def _count(count: Count) -> dict[str, int]:
    return {"domains": count.domains, "mail": count.mail}


def _counts(found: Mapping[Any, Count]) -> dict[str, dict[str, int]]:
    return {str(key): _count(count) for key, count in found.items()}


def _pairs(found: Mapping[Any, tuple[Count, Count]]) -> dict[str, dict[str, dict[str, int]]]:
    return {
        str(key) or "unknown": {"ready": _count(ready), "others": _count(others)}
        for key, (ready, others) in found.items()
    }


def _next_hop(one: HopReadiness) -> dict[str, Any]:
    return {
        "nexthop": one.nexthop,
        "mail": one.mail,
        "state": one.state.value,
        "status": one.status,
        "reason": one.reason.value,
        "text": one.text,
        "mx": one.mx or None,
        "level": one.level or None,
        "tls_version": one.tls_version or None,
        "policy": one.policy.value,
        "missing": None if one.missing is None else [step.value for step in one.missing],
        "downgraded_at": moment_if_any(one.downgraded_at),
    }


def _downgrade(one: Downgrade) -> dict[str, Any]:
    return {
        "subject": one.subject,
        "feature": one.feature.value,
        "at": moment_if_any(one.at),
        "restored_at": moment_if_any(one.restored_at),
    }


# ---------------------------------------------------------------- text


def to_text(report: Readiness, width: int | None = None) -> str:
    """The report for people, without lists of more than :data:`SHOWN` lines."""
    found = figuring.figures(report)
    parts: list[RenderableType] = [
        Text(words.answer(report, found), "bold"),
        "",
        _table(_head(report, found)),
    ]
    if not report.resolver_validates:
        parts += ["", Text(words.NOT_VALIDATING, "red")]
    for title, rows in _sections(report, found):
        if rows:
            parts += ["", Text(title, "bold"), Padding(_table(rows), (0, 0, 0, 2))]
    return printed(*parts, width=width)


_Rows = Sequence[tuple[str, ...]]


def _head(report: Readiness, found: Figures) -> _Rows:
    rows = [
        ("about", words.period(report)),
        ("judged for", report.mta),
        ("next hops", f"{found.domains.percent}: {words.of(found.domains, 'next hop')}"),
    ]
    if found.counts_mail:
        rows.insert(2, ("mail", f"{found.mail.percent}: {words.of(found.mail, 'recipient')}"))
    return rows


def _sections(report: Readiness, found: Figures) -> Iterable[tuple[str, _Rows]]:
    yield "What would become of it", _of_counts(found.states, words.STATES, found)
    yield "What stands in the way", _of_counts(found.reasons, words.REASONS, found)
    yield "TLS level (ready, not ready)", _of_pairs(found.levels)
    policies = {words.POLICIES[policy]: pair for policy, pair in found.policies.items()}
    yield "Policy (ready, not ready)", _of_pairs(policies)
    yield "One step is missing", _of_counts(found.just_below, words.STEPS, found)
    below = figuring.just_below(report)
    rows = [(_mail(one), one.nexthop, words.missing(one.missing)) for one in below]
    yield "Next hops that lack one step", _bounded(rows)
    lacking = figuring.not_ready(report)
    yield (
        "Not ready",
        _bounded([(_mail(one), one.nexthop, one.status, one.reason) for one in lacking]),
    )
    yield (
        "History (mail, next hops)",
        [
            (
                one.day,
                Share(one.mail_ready, one.mail).percent,
                Share(one.domains_ready, one.domains).percent,
            )
            for one in report.days[-SHOWN_DAYS:]
        ],
    )
    yield "Downgrades", _bounded([_downgrade_row(one) for one in report.downgrades])
    yield "Own servers", _bounded(_own_rows(report))
    yield "Forecasts and deliveries", _accuracy_rows(report)


def _of_counts(found: Mapping[Any, Count], texts: Mapping[Any, str], all_of: Figures) -> _Rows:
    return [
        (
            quantity(count.domains, "next hop"),
            words.share_of(count, all_of),
            texts[key],
        )
        for key, count in found.items()
    ]


def _of_pairs(found: Mapping[str, tuple[Count, Count]]) -> _Rows:
    return [
        (key or words.UNKNOWN_WORD, f"{ready.domains:,}", f"{others.domains:,}")
        for key, (ready, others) in found.items()
    ]


def _downgrade_row(one: Downgrade) -> tuple[str, ...]:
    when = "" if one.at is None else day(one.at)
    restored = "" if one.restored_at is None else f"there again {day(one.restored_at)}"
    return when, one.subject, one.feature, restored


def _own_rows(report: Readiness) -> _Rows:
    rows: list[tuple[str, ...]] = []
    for own in report.own or ():
        if not own.problems:
            said = "not all could be seen" if own.unseen else "nothing is wrong"
            rows.append((own.domain, "", said))
        for problem in own.problems:
            where = f"{problem.host}: " if problem.host else ""
            rows.append((own.domain, problem.severity, where + problem.text))
    return rows


def _accuracy_rows(report: Readiness) -> _Rows:
    found = report.accuracy
    if found is None:
        return ()
    share = Share(found.equal, found.compared)
    return [
        ("came true", f"{share.percent}: {words.of(share, 'forecast')}"),
        ("different", f"{found.different:,}"),
        ("later", f"{found.later:,}"),
        ("unknown", f"{found.unknown:,}"),
        ("waiting", f"{found.waiting:,}"),
    ]


def _mail(one: HopReadiness) -> str:
    return f"{one.mail:,}" if one.mail else ""


def _bounded(rows: _Rows) -> _Rows:
    if len(rows) <= SHOWN:
        return rows
    return [*rows[:SHOWN], ("", f"and {len(rows) - SHOWN:,} more: see --format json")]


def _table(rows: _Rows) -> Table:
    """A table of texts, each of which may be a stranger's (R62)."""
    table = bare_table()
    for _ in range(max(map(len, rows), default=0)):
        table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*map(visible, row))
    return table
