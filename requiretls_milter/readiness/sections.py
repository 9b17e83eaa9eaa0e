"""The sections of the page, from the plots to the long lists. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from requiretls_milter.forecast.inbound import InboundReport, ServerReadiness
from requiretls_milter.readiness import charts, words
from requiretls_milter.readiness import figures as figuring
from requiretls_milter.readiness.days import Day
from requiretls_milter.readiness.figures import Count, Figures, Share
from requiretls_milter.readiness.tables import table
from requiretls_milter.readiness.values import HopReadiness, Readiness
from requiretls_milter.syntax.markup import Child, cut, element
from requiretls_milter.syntax.moments import day, moment
from requiretls_milter.syntax.text import quantity

MAX_ROWS = 500
"""Next hops that are listed as not ready."""

MAX_BELOW = 50
"""Next hops that are listed as lacking one step."""

MAX_DOWNGRADES = 50
"""Downgrades that are listed."""

MAX_OWN = 100
"""Lines about own servers."""

MAX_DAYS_SHOWN = 14
"""Days of the table of the history; the plot has all."""

MAX_NAME = 253
"""Characters of a name."""

MAX_SAID = 160
"""Characters of what a forecast or a finding says."""


def _outcome(report: Readiness, found: Figures) -> Sequence[Child]:
    told = "; ".join(
        f"{words.STATES[state]}: {_of_all(count, found)}" for state, count in found.states.items()
    )
    return (
        _plot(charts.states(found), f"What would become of it: {told}."),
        _counts("What would become of the mail", "outcome", found.states, words.STATES, found),
    )


def _reasons(report: Readiness, found: Figures) -> Sequence[Child]:
    if not found.reasons:
        return (element("p", "Nothing: each next hop that was assessed is ready."),)
    rows: list[tuple[Child, ...]] = [
        (element("code", reason.value), *_numbers(count, found), words.REASONS[reason])
        for reason, count in found.reasons.items()
    ]
    heads = ("reason", *_heads(found), "means")
    first, count = next(iter(found.reasons.items()))
    commonest = f"The commonest reason: {words.REASONS[first]} ({_of_all(count, found)})."
    left = len(found.reasons) - charts.MAX_BARS
    more = f" {left} further ones are in the table alone." if left > 0 else ""
    return (
        _plot(charts.reasons(found), f"Share by reason. {commonest}{more}"),
        table("Reasons", heads, rows, numbers=len(heads) - 2, has_heading=True),
    )


def _not_ready(report: Readiness, found: Figures) -> Sequence[Child] | None:
    lacking = figuring.not_ready(report)
    if not lacking:
        return None
    return _bounded(
        "Next hops that are not ready",
        ("next hop", *_mail_head(found), "status", "reason", "lacks", "what was found"),
        lacking,
        lambda one: (
            cut(one.nexthop, MAX_NAME),
            *_mail(one, found),
            cut(one.status, 16),
            element("code", one.reason.value),
            words.missing(one.missing),
            cut(one.text, MAX_SAID),
        ),
        MAX_ROWS,
    )


def _policies(report: Readiness, found: Figures) -> Sequence[Child]:
    policies = {words.POLICIES[key]: pair for key, pair in found.policies.items()}
    told = "; ".join(f"{name}: {_both(pair, found)}" for name, pair in policies.items())
    return (
        _plot(
            charts.policies(found),
            f"By what the servers can be verified, and how much of that is ready: {told}.",
        ),
        _pairs("Policy of the next hop", "policy", policies, found),
        _pairs("TLS level at which our MTA would deliver", "level", found.levels, found),
        _pairs("TLS version of the session", "version", found.versions, found),
    )


def _just_below(report: Readiness, found: Figures) -> Sequence[Child]:
    if not found.just_below:
        return (element("p", "No next hop lacks one step alone."),)
    return (
        _counts("The one step that is missing", "step", found.just_below, words.STEPS, found),
        *_bounded(
            "Next hops that lack one step",
            ("next hop", *_mail_head(found), "lacks", "server"),
            figuring.just_below(report),
            lambda one: (
                cut(one.nexthop, MAX_NAME),
                *_mail(one, found),
                words.missing(one.missing),
                cut(one.mx, MAX_NAME),
            ),
            MAX_BELOW,
            has_heading=False,
        ),
    )


def _history(report: Readiness, found: Figures) -> Sequence[Child]:
    days = report.days
    if not days:
        why = (
            "No earlier report is kept."
            if report.is_kept
            else "No history: the running service keeps it, and none was reached."
        )
        return (element("p", why),)
    first, last = days[0], days[-1]
    told = (
        f"Ready on {first.day}: {_ready_on(first)}; on {last.day}: {_ready_on(last)}. "
        f"{quantity(len(days), 'day')} with a report."
    )
    rows = [
        (
            one.day,
            Share(one.mail_ready, one.mail).percent,
            f"{one.mail:,}",
            Share(one.domains_ready, one.domains).percent,
            f"{one.domains:,}",
        )
        for one in reversed(days[-MAX_DAYS_SHOWN:])
    ]
    heads = ("day", "mail ready", "recipients", "next hops ready", "next hops")
    return (
        *([_plot(charts.history(days), told)] if len(days) > 1 else [element("p", told)]),
        table("History, the latest day first", heads, rows, numbers=4, has_heading=True),
        *_more(len(days) - len(rows), "earlier day"),
    )


def _ready_on(one: Day) -> str:
    share = Share(one.mail_ready, one.mail) if one.mail else None
    of_mail = f"{share.percent} of the mail, " if share is not None else ""
    return f"{of_mail}{Share(one.domains_ready, one.domains).percent} of the next hops"


def _downgrades(report: Readiness, found: Figures) -> Sequence[Child]:
    now = [one for one in report.destinations if one.downgraded_at]
    rows: list[tuple[str, ...]] = [
        (
            cut(one.nexthop, MAX_NAME),
            "something it offered before",
            day(one.downgraded_at),
            "missing",
        )
        for one in figuring.by_mail(now)
    ]
    rows += [
        (
            cut(one.subject, MAX_NAME),
            one.feature.value,
            words.UNKNOWN_WORD if one.at is None else moment(one.at),
            "" if one.restored_at is None else f"there again since {moment(one.restored_at)}",
        )
        for one in reversed(report.downgrades)
    ]
    if not rows:
        return (element("p", "None is known: nothing that was offered before is missing now."),)
    heads = ("next hop or server", "no longer offered", "since", "now")
    return _bounded("Downgrades", heads, rows, lambda row: row, MAX_DOWNGRADES)


def _own(report: Readiness, found: Figures) -> Sequence[Child]:
    if report.own is None:
        told = "None is configured: list our own domains in the section [watch]."
        return (element("p", told),)
    rows = [row for own in report.own for row in _own_rows(own)]
    heads = ("domain", "server", "severity", "what is wrong")
    return _bounded("Our own domains, as others see them", heads, rows, lambda row: row, MAX_OWN)


_READY = {
    ServerReadiness.READY: "ready",
    ServerReadiness.NOT_READY: "not ready",
    ServerReadiness.UNKNOWN: "not known",
}


def _own_rows(own: InboundReport) -> list[tuple[str, ...]]:
    name = cut(own.domain, MAX_NAME)
    rows: list[tuple[str, ...]] = [
        (name, cut(one.host, 100), _READY[one.readiness], "") for one in own.servers
    ]
    rows += [
        (name, cut(one.host, 100), one.severity.value, cut(one.text, MAX_SAID))
        for one in own.problems
    ]
    if own.unseen:
        rows.append((name, "", "not known", "not all could be seen"))
    return rows or [(name, "", "not known", "no server was seen")]


def _accuracy(report: Readiness, found: Figures) -> Sequence[Child] | None:
    one = report.accuracy
    if one is None:
        return None
    share = Share(one.equal, one.compared)
    rows = [
        ("came true", f"{one.equal:,}"),
        ("different from what Postfix then did", f"{one.different:,}"),
        ("failed later, behind what a forecast covers", f"{one.later:,}"),
        ("not known", f"{one.unknown:,}"),
        ("without a delivery in these logs", f"{one.waiting:,}"),
    ]
    told = f"Of {quantity(one.compared, 'forecast')} that can be compared, {share.percent}"
    return (
        element("p", f"{told} came true. The command audit lists those that did not."),
        table("Forecasts in the log", ("forecast", "number"), rows, numbers=1, has_heading=True),
    )


_Section = Callable[[Readiness, Figures], Sequence[Child] | None]

Sections = tuple[tuple[str, str, _Section], ...]

OF_ANY: Sections = (
    ("History", "history", _history),
    ("Downgrades", "downgrades", _downgrades),
    ("Our own servers", "own", _own),
    ("Accuracy of the forecasts", "accuracy", _accuracy),
)

OF_NEXT_HOPS: Sections = (
    ("What would become of the mail", "outcome", _outcome),
    ("What stands in the way", "reasons", _reasons),
    ("One step is missing", "below", _just_below),
    ("TLS level and policy", "policies", _policies),
    *OF_ANY,
    ("Next hops that are not ready", "not-ready", _not_ready),
)


# ---------------------------------------------------------------- what they share


def _plot(svg: Element, told: str) -> Element:
    svg.set("aria-label", told)
    scroll = element("div", svg, class_="scroll", tabindex="0", role="group", aria_label="plot")
    return element("figure", scroll, element("figcaption", told))


def _heads(found: Figures) -> tuple[str, ...]:
    return ("next hops", "of all", *(("recipients", "of the mail") if found.counts_mail else ()))


def _numbers(count: Count, found: Figures) -> tuple[str, ...]:
    hops = (f"{count.domains:,}", Share(count.domains, found.total.domains).percent)
    if not found.counts_mail:
        return hops
    return (*hops, f"{count.mail:,}", words.share_of(count, found))


def _counts(
    caption: str, head: str, counts: Mapping[Any, Count], texts: Mapping[Any, str], found: Figures
) -> Element:
    rows = [(texts[key], *_numbers(count, found)) for key, count in counts.items()]
    heads = (head, *_heads(found))
    return table(caption, heads, rows, numbers=len(heads) - 1, has_heading=head == "outcome")


def _pairs(
    caption: str, head: str, pairs: Mapping[str, tuple[Count, Count]], found: Figures
) -> Element:
    """A table of next hops, and of mail if that is known: those that are ready, and the others."""
    rows = []
    for key, pair in pairs.items():
        cells = [f"{one.domains:,}" for one in pair]
        if found.counts_mail:
            cells += [words.share_of(one, found) for one in pair]
        rows.append((cut(key, 32) or words.UNKNOWN_WORD, *cells))
    of_mail = ("mail: ready", "not ready") if found.counts_mail else ()
    heads = (head, "next hops: ready", "not ready", *of_mail)
    return table(caption, heads, rows, numbers=len(heads) - 1)


def _both(pair: tuple[Count, Count], found: Figures) -> str:
    ready, others = pair
    return _of_all(ready.plus(others.domains, others.mail), found)


def _of_all(count: Count, found: Figures) -> str:
    if found.counts_mail:
        return f"{words.share_of(count, found)} of the mail"
    return f"{Share(count.domains, found.total.domains).percent} of the next hops"


def _mail_head(found: Figures) -> tuple[str, ...]:
    return ("recipients",) if found.counts_mail else ()


def _mail(one: HopReadiness, found: Figures) -> tuple[str, ...]:
    return (f"{one.mail:,}",) if found.counts_mail else ()


def _bounded(
    caption: str,
    heads: Sequence[str],
    found: Sequence[Any],
    row: Callable[[Any], Sequence[Child]],
    limit: int,
    *,
    has_heading: bool = True,
) -> Sequence[Child]:
    """A table of the first of many, and what is left out."""
    numbers = 1 if "recipients" in heads else 0
    rows = [row(one) for one in found[:limit]]
    made = table(caption, heads, rows, numbers=numbers, has_heading=has_heading)
    return (made, *_more(len(found) - limit, "line"))


def _more(left: int, word: str) -> Sequence[Element]:
    if left <= 0:
        return ()
    told = f"{quantity(left, word)} not shown: report --format json has all."
    return (element("p", told, class_="note"),)
