"""What stricter modes would have done to the mail of the last days. Pure.

Each ``event=recipient`` line of the milter's log holds everything that a
decision depends on. The decision is made again with the present rules in a
stricter mode.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from requiretls_milter import rules
from requiretls_milter.bounded import BoundedMap
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
from requiretls_milter.reports.logs import milter
from requiretls_milter.reports.logs.events import Event, Logged
from requiretls_milter.syntax import nexthop
from requiretls_milter.syntax.names import envelope_domain, is_null_sender
from requiretls_milter.syntax.status import outcome_of

STRICTER = (Mode.DEFER, Mode.REJECT)
"""The modes that are tried, the weaker one first."""

MAX_DOMAINS = 10_000
"""Domains that are counted by name; further ones are counted together as :data:`OTHERS`."""

MAX_MESSAGES = 1000
"""Messages of a domain that are listed by their queue ID; all are counted."""

MAX_LISTED = 100_000
"""Messages of all domains that are listed."""

MAX_RECENT = 10_000
"""Messages that are known to be counted when a line of another of their recipients comes."""

MAX_ID = 64
"""Characters of a queue ID or session that are kept."""

MAX_OPEN = 1000
"""Messages that may have lines of further recipients; beyond it the oldest is decided."""

MAX_OPEN_RECIPIENTS = 20_000
"""Recipients of all these messages."""

MAX_DOMAIN = 255
"""Characters of a domain that are kept: as many as a domain has."""

OTHERS = "(others)"
"""The name under which domains beyond :data:`MAX_DOMAINS` are counted."""

_NOW = 2_000_000_000.0
"""Time of every decision, seconds since the epoch: only the age of a downgrade matters."""

_LEFT_OUT = dict.fromkeys(("sender", "nexthop", "compliant"), "")
"""What a line that was not cut leaves out if it is empty; release 0.1.0 wrote it all the same."""

_STRENGTH = {Mode.OFF: 0, Mode.MONITOR: 1, Mode.DEFER: 2, Mode.REJECT: 3}


@dataclass(frozen=True, slots=True)
class LoggedRecipient:
    """One recipient of one message, as the milter logged it."""

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
class DomainTally:
    """What one mode would have done to a domain's mail; ``messages`` by queue ID, in order."""

    deferred: int = 0
    refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    messages: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class ModeTally:
    """What one mode would have done to all logged mail; both counts are of recipients."""

    mode: Mode
    deferred: int = 0
    refused: int = 0
    messages: int = 0
    domains: dict[str, DomainTally] = field(default_factory=dict)
    listed: int = 0
    """Messages that are listed below some domain."""
    recent: BoundedMap[str, bool] = field(default_factory=lambda: BoundedMap(MAX_RECENT))
    """The messages that were counted last."""


# ---------------------------------------------------------------- the log


def read(events: Iterable[Event]) -> Iterator[LoggedRecipient]:
    """Find the recipients among the *events* of logs."""
    for event in events:
        what = event.what
        if not isinstance(what, Logged) or what.fields.get("event") != milter.RECIPIENT:
            continue
        recipient = _recipient(what.fields)
        if recipient is not None:
            yield recipient


def _recipient(fields: Mapping[str, str]) -> LoggedRecipient | None:
    if milter.LAST in fields:
        fields = {**_LEFT_OUT, **fields}
    try:
        return LoggedRecipient(
            message=(fields.get("queue_id") or fields.get("session", ""))[:MAX_ID],
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


# ---------------------------------------------------------------- the decisions


@dataclass(frozen=True, slots=True)
class _Case:
    """A recipient and the rule that is now in force for it."""

    logged: LoggedRecipient
    rule: rules.Rule
    domain: str

    @property
    def at_rcpt(self) -> bool:
        """Whether it is decided at RCPT, because what requires REQUIRETLS is known there."""
        if self.logged.carried is Requirement.TLS_REQUIRED_NO:
            return False
        return self.logged.source is Source.ESMTP or self.rule.require

    def decide(self, mode: Mode) -> Decision:
        """Decide in *mode*, or in the rule's own mode if that is stricter."""
        one, rule = self.logged, self.rule
        return rules.decide(
            replace(rule, mode=mode) if self.is_stricter(mode) else rule,
            one.forecast,
            asked=one.requirement,
            carried=one.carried,
            standing=one.client,
            null_sender=is_null_sender(one.sender),
            domain=self.domain,
            now=_NOW,
        )

    def is_stricter(self, mode: Mode) -> bool:
        """Whether *mode* is stricter than that of the rule."""
        return _STRENGTH[mode] > _STRENGTH[self.rule.mode]


def replay(recipients: Iterable[LoggedRecipient], ruleset: rules.RuleSet) -> tuple[ModeTally, ...]:
    """Decide all *recipients* again in each stricter mode, whatever mode was in force then.

    A recipient whose rule is already as strict is not counted: the mode would change nothing.
    """
    tallies = tuple(ModeTally(mode) for mode in STRICTER)
    unfinished = _Unfinished(tallies)
    for one in recipients:
        domain = envelope_domain(one.recipient)[:MAX_DOMAIN]
        rule = ruleset.find(envelope_domain(one.sender), domain, _host(one.nexthop))
        case = _Case(one, rule, domain)
        if case.at_rcpt:
            for tally in tallies:
                _count(tally, case, case.decide(tally.mode).action)
        else:
            unfinished.add(case)
    unfinished.finish()
    return tallies


class _Unfinished:
    """Messages that are decided at their end, of which further recipients may come."""

    def __init__(self, tallies: Sequence[ModeTally]) -> None:
        self._tallies = tallies
        self._cases: BoundedMap[str, list[_Case]] = BoundedMap()
        self._recipients = 0

    def add(self, case: _Case) -> None:
        cases = self._cases.get(case.logged.message)
        if cases is not None:
            cases.append(case)
        else:
            self._cases.put(case.logged.message, [case])
        self._recipients += 1
        while len(self._cases) > MAX_OPEN or self._recipients > MAX_OPEN_RECIPIENTS:
            self._decide_oldest()

    def finish(self) -> None:
        while len(self._cases) > 0:
            self._decide_oldest()

    def _decide_oldest(self) -> None:
        cases = self._cases.pop_oldest()[1]
        self._recipients -= len(cases)
        _decide_together(self._tallies, cases)


def _decide_together(tallies: Iterable[ModeTally], cases: Sequence[_Case]) -> None:
    """Decide at the end of a message: all its remaining recipients are refused, or none is."""
    for tally in tallies:
        decision = rules.decide_message([case.decide(tally.mode) for case in cases])
        for case in cases:
            _count(tally, case, decision.action)


def _count(tally: ModeTally, case: _Case, action: Action) -> None:
    if action is Action.ACCEPT or not case.is_stricter(tally.mode):
        return
    one, domain = case.logged, case.domain
    known = domain in tally.domains or len(tally.domains) < MAX_DOMAINS
    by_domain = tally.domains.setdefault(domain if known else OTHERS, DomainTally())
    by_domain.reasons[one.forecast.reason.value] += 1
    tally.messages += one.message not in tally.recent
    tally.recent.put(one.message, True)
    is_new = one.message not in by_domain.messages
    if is_new and len(by_domain.messages) < MAX_MESSAGES and tally.listed < MAX_LISTED:
        by_domain.messages[one.message] = None
        tally.listed += 1
    if action is Action.DEFER:
        tally.deferred += 1
        by_domain.deferred += 1
    else:
        tally.refused += 1
        by_domain.refused += 1


def _host(text: str) -> str:
    try:
        return nexthop.parse(text).host
    except nexthop.NextHopError:
        return ""
