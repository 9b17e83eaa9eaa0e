"""What stricter modes would have done to the mail of the last days. Pure.

Read from the milter's own log: each ``event=recipient`` line holds all that a
decision depends on, so that it is made again with the rules as they are now
and another mode.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from requiretls_milter import rules
from requiretls_milter.model import (
    LOCAL_FORECAST,
    Action,
    Decision,
    Forecast,
    Mode,
    Reason,
    Requirement,
    Source,
    Standing,
)
from requiretls_milter.reports import loglines
from requiretls_milter.syntax import nexthop
from requiretls_milter.syntax.names import envelope_domain, is_null_sender
from requiretls_milter.syntax.status import outcome_of

STRICTER = (Mode.DEFER, Mode.REJECT)
"""The modes that are tried, the milder first."""

MAX_DOMAINS = 10_000
"""Domains that are counted by name; what comes after them is counted together."""

MAX_MESSAGES = 1000
"""Messages of a domain that are told by their queue ID; all are counted."""

MAX_OPEN = 1000
"""Messages that wait for lines of further recipients; then the oldest is decided."""

OTHERS = "(others)"

_NOW = 2_000_000_000.0
"""The moment of every decision, in seconds: only how long ago a downgrade was matters."""

_STRENGTH = {Mode.OFF: 0, Mode.MONITOR: 1, Mode.DEFER: 2, Mode.REJECT: 3}


@dataclass(frozen=True, slots=True)
class Seen:
    """One recipient of one message, as the log tells of it."""

    message: str
    sender: str
    recipient: str
    client: Standing
    requirement: Requirement
    source: Source
    carried: Requirement
    nexthop: str
    forecast: Forecast


@dataclass(slots=True)
class Hits:
    """What one mode would have done to a domain's mail; ``messages`` by queue ID, in order."""

    deferred: int = 0
    refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    messages: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class Verdicts:
    """What one mode would have done to all of it."""

    mode: Mode
    deferred: int = 0
    refused: int = 0
    messages: set[str] = field(default_factory=set)
    domains: dict[str, Hits] = field(default_factory=dict)


# ---------------------------------------------------------------- the log


def read(lines: Iterable[str]) -> Iterator[Seen]:
    """The recipients in a log, logfmt or JSON; lines of others are passed over."""
    for line in lines:
        fields = loglines.recipient(line)
        seen = _seen(fields) if fields is not None else None
        if seen is not None:
            yield seen


def _seen(fields: Mapping[str, str]) -> Seen | None:
    try:
        return Seen(
            message=fields.get("queue_id") or fields.get("session", ""),
            sender=fields["sender"],
            recipient=fields["to"],
            client=Standing(fields["client"]),
            requirement=Requirement(fields["requirement"]),
            source=Source(fields["source"]),
            carried=Requirement(fields["carried"]),
            nexthop=fields["nexthop"],
            forecast=_forecast(fields),
        )
    except (KeyError, ValueError):
        return None


def _forecast(fields: Mapping[str, str]) -> Forecast:
    reason = Reason(fields["reason"])
    if reason is Reason.LOCAL:
        return LOCAL_FORECAST
    return Forecast(
        status=fields["forecast"],
        outcome=outcome_of(fields["forecast"]),
        reason=reason,
        compliant={"true": True, "false": False}.get(fields["compliant"]),
        mx=fields.get("mx", ""),
        downgraded_at=_NOW - float(fields["downgraded"]) if "downgraded" in fields else 0.0,
    )


# ---------------------------------------------------------------- the verdicts


@dataclass(frozen=True, slots=True)
class _Case:
    """A recipient, and the rule that is in force for it now."""

    seen: Seen
    rule: rules.Rule
    domain: str

    @property
    def at_rcpt(self) -> bool:
        """Whether it is decided at RCPT: what asks is known there."""
        if self.seen.carried is Requirement.TLS_REQUIRED_NO:
            return False
        return self.seen.source is Source.ESMTP or self.rule.require

    def decide(self, mode: Mode) -> Decision:
        """What would be done with it in *mode*, or in its rule's own if that is stricter."""
        one, rule = self.seen, self.rule
        return rules.decide(
            replace(rule, mode=mode) if self.is_news(mode) else rule,
            one.forecast,
            asked=one.requirement,
            carried=one.carried,
            standing=one.client,
            null_sender=is_null_sender(one.sender),
            domain=self.domain,
            now=_NOW,
        )

    def is_news(self, mode: Mode) -> bool:
        """Whether *mode* is stricter than the one that its rule has."""
        return _STRENGTH[mode] > _STRENGTH[self.rule.mode]


def judge(seen: Iterable[Seen], ruleset: rules.RuleSet) -> tuple[Verdicts, ...]:
    """What each stricter mode would have done, whether or not it was in force then.

    Where a rule is as strict already, nothing is counted: there the mode is no news.
    """
    verdicts = tuple(Verdicts(mode) for mode in STRICTER)
    unfinished: OrderedDict[str, list[_Case]] = OrderedDict()
    for one in seen:
        domain = envelope_domain(one.recipient)
        rule = ruleset.find(envelope_domain(one.sender), domain, _host(one.nexthop))
        case = _Case(one, rule, domain)
        if case.at_rcpt:
            for verdict in verdicts:
                _count(verdict, case, case.decide(verdict.mode).action)
            continue
        unfinished.setdefault(one.message, []).append(case)
        if len(unfinished) > MAX_OPEN:
            _, cases = unfinished.popitem(last=False)
            _decide_together(verdicts, cases)
    for cases in unfinished.values():
        _decide_together(verdicts, cases)
    return verdicts


def _decide_together(verdicts: Iterable[Verdicts], cases: Sequence[_Case]) -> None:
    """The end of a message: all recipients that it still has are refused, or none is."""
    for verdict in verdicts:
        decision = rules.decide_message([case.decide(verdict.mode) for case in cases])
        for case in cases:
            _count(verdict, case, decision.action)


def _count(verdict: Verdicts, case: _Case, action: Action) -> None:
    if action is Action.ACCEPT or not case.is_news(verdict.mode):
        return
    one, domain = case.seen, case.domain
    known = domain in verdict.domains or len(verdict.domains) < MAX_DOMAINS
    hits = verdict.domains.setdefault(domain if known else OTHERS, Hits())
    hits.reasons[one.forecast.reason.value] += 1
    verdict.messages.add(one.message)
    if len(hits.messages) < MAX_MESSAGES:
        hits.messages[one.message] = None
    if action is Action.DEFER:
        verdict.deferred += 1
        hits.deferred += 1
    else:
        verdict.refused += 1
        hits.refused += 1


def _host(text: str) -> str:
    try:
        return nexthop.parse(text).host
    except nexthop.NextHopError:
        return ""
