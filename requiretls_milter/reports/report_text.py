"""What ``report`` prints for people, in colour if the output is a terminal. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from requiretls_milter.reports.check_text import OUTCOME, RESOLVER
from requiretls_milter.reports.printing import BAD, UNSURE, hanging, printed
from requiretls_milter.syntax.text import visible

if TYPE_CHECKING:
    from requiretls_milter.reports.check import NextHopReport, RuleReport
    from requiretls_milter.reports.would_have import DomainTally, ModeTally

SHOWN = 20
"""Domains in the text of each mode."""

SHOWN_MESSAGES = 5
"""Messages in the text of each domain; JSON has more."""


def ready(
    reports: Sequence[NextHopReport], routed: Mapping[str, str], *, width: int | None = None
) -> str:
    """Say how mail to each domain would end: a line for each.

    Args:
        reports: of the domains.
        routed: the next hop of each domain whose mail goes elsewhere than to itself.
        width: columns of the output; None is the terminal's width.
    """
    if not reports:
        return "no domain has a rule of its own in [rules]"
    told = [_domain(report, routed.get(report["nexthop"])) for report in reports]
    if not all(report["resolver_validates"] for report in reports):
        told.insert(0, Text(f"{RESOLVER} (see requiretls-milter doctor).", BAD))
    return printed(*told, width=width)


def _domain(report: NextHopReport, by: str | None) -> RenderableType:
    forecast, rule = report["forecast"], report["rule"]
    verdict = f"{forecast['status']} {forecast['reason']}"
    said = Text(verdict, OUTCOME[forecast["outcome"]][1])
    said.append(f"; mode {rule['mode']}, {_done(rule)}", "default")
    name = report["nexthop"] if by is None else f"{report['nexthop']} by {by}"
    return hanging(f"{name}:", said)


def _done(rule: RuleReport) -> str:
    if rule["reply"] is None:
        return "accepted"
    code, enhanced, _ = rule["reply"].split(" ", 2)
    return f"answered {code} {enhanced}"


def would_have(tallies: Sequence[ModeTally], *, width: int | None = None) -> str:
    """Say what each mode would have done, and to which domains most."""
    parts: list[RenderableType] = []
    for tally in tallies:
        refused = Text(f"{tally.refused} recipients refused", BAD if tally.refused else "")
        deferred = Text(f"{tally.deferred} deferred", UNSURE if tally.deferred else "")
        hit = Text(f"{tally.messages} messages hit")
        parts.append(hanging(f"mode {tally.mode}:", Text(", ").join((refused, deferred, hit))))
        worst = sorted(
            tally.domains.items(), key=lambda item: (-item[1].refused - item[1].deferred, item[0])
        )
        for domain, hits in worst[:SHOWN]:
            name = visible(domain) or "(no domain)"
            parts.append(hanging(f"{name}:", _hits(hits), indent=2))
            parts.append(Padding(_first(list(hits.messages)), (0, 0, 0, 4)))
        if len(worst) > SHOWN:
            parts.append(f"  and {len(worst) - SHOWN} domains more")
    return printed(*parts, width=width)


def _hits(hits: DomainTally) -> str:
    reason = hits.reasons.most_common(1)[0][0]
    return f"{hits.refused} refused, {hits.deferred} deferred, mostly {reason}"


def _first(messages: Sequence[str]) -> str:
    shown = " ".join(visible(message) for message in messages[:SHOWN_MESSAGES])
    return f"{shown} and more" if len(messages) > SHOWN_MESSAGES else shown
