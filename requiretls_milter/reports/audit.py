"""Compare what was forecast with what Postfix then did, from the logs of both. Pure.

Each accepted recipient has a line of the milter (``event=recipient``) and, some time later, lines
of Postfix's delivery agents with the same queue ID: :mod:`.following` brings them together. If the
milter expanded the recipient, each of what Postfix makes of it has such a line
(``event=expansion``), and counts in its place. The forecast is for the first attempt, so only that
one is compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from requiretls_milter.model import UNKNOWN_STATUS, Action, Outcome, Reason
from requiretls_milter.reports.following import Followed, Following
from requiretls_milter.reports.logs import milter
from requiretls_milter.reports.logs.events import Arrived, Event, Logged, Removed
from requiretls_milter.reports.logs.matching import has_port_of_its_own
from requiretls_milter.reports.logs.milter import LoggedForecast
from requiretls_milter.reports.logs.postfix import LogDelivery
from requiretls_milter.syntax.status import outcome_of
from requiretls_milter.telemetry.labels import AuditResult as Result
from requiretls_milter.telemetry.labels import reason_label

MAX_DIFFERENCES = 1000
"""Differences that are listed; all are counted."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A forecast that did not come true."""

    queue_id: str
    """Of the message that has the forecast: behind a content filter it has another one."""
    recipient: str
    forecast: LoggedForecast
    delivery: LogDelivery


@dataclass(slots=True)
class Audit:
    """The comparison of all recipients."""

    results: Counter[Result] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    """The reasons of the forecasts that did not come true."""
    differences: list[Difference] = field(default_factory=list)

    @property
    def compared(self) -> int:
        """How many forecasts have a delivery in these logs."""
        return self.results.total() - self.results[Result.WAITING]


class Auditor:
    """Compares forecasts with deliveries, event by event.

    Recipients that were refused, or delivered on the host itself, are skipped.

    Args:
        differs: is called with each difference, as soon as it is certain.
    """

    def __init__(self, differs: Callable[[Difference], None] = lambda _: None) -> None:
        self.found = Audit()
        self._differs = differs
        self.following = Following(self._compare)

    def take(self, event: Event) -> None:
        """Note an event."""
        what, time = event.what, event.time
        if isinstance(what, Logged):
            if (forecast := _forecast(what.fields)) is not None:
                fields = what.fields
                self.following.add_forecast(
                    fields["queue_id"],
                    fields.get("to", ""),
                    forecast,
                    time,
                    fields.get("expansion", ""),
                )
        elif isinstance(what, LogDelivery):
            self.following.add_delivery(what, time)
        elif isinstance(what, Arrived):
            self.following.add_arrival(what.queue_id, what.message_id, time)
        elif isinstance(what, Removed):
            self.following.add_removal(what.queue_id, time)

    def finish(self) -> Audit:
        """Compare what is left at the end of the logs."""
        self.following.finish()
        return self.found

    def _compare(self, followed: Followed) -> None:
        found, delivery = self.found, followed.attempt
        if delivery is None:
            found.results[Result.WAITING] += 1
            return
        result = _result(followed.forecast, delivery)
        found.results[result] += 1
        if result is Result.DIFFERENT:
            found.reasons[reason_label(followed.forecast.reason)] += 1
            one = Difference(followed.queue_id, followed.recipient, followed.forecast, delivery)
            self._differs(one)
            if len(found.differences) < MAX_DIFFERENCES:
                found.differences.append(one)


def audit(events: Iterable[Event]) -> Audit:
    """Compare all forecasts among *events* with the deliveries among them."""
    auditor = Auditor()
    for event in events:
        auditor.take(event)
    return auditor.finish()


def _forecast(fields: milter.Fields) -> LoggedForecast | None:
    # A line that was cut may have lost its action: there is a delivery if it was accepted.
    accepted = fields.get("action", "accept") == Action.ACCEPT
    if fields.get("event") not in milter.FORECASTS or not accepted:
        return None
    status, reason = fields.get("forecast", ""), fields.get("reason", "")
    if not fields.get("queue_id") or not status or reason == Reason.LOCAL:
        return None
    tls, mx, nexthop = (fields.get(key, "") for key in ("tls", "mx", "nexthop"))
    return LoggedForecast(status, reason, tls, mx, nexthop)


def _result(forecast: LoggedForecast, delivery: LogDelivery) -> Result:
    if forecast.status == UNKNOWN_STATUS or not delivery.status:
        return Result.UNKNOWN
    same_tls = not forecast.tls or not delivery.tls or forecast.tls == delivery.tls
    if _is_same_status(forecast.status, delivery) and same_tls:
        return Result.EQUAL
    if outcome_of(forecast.status) is Outcome.DELIVER and delivery.later:
        return Result.LATER
    if has_port_of_its_own(delivery.relay, forecast):
        return Result.LATER  # a content filter refused the message, or was not there
    return Result.DIFFERENT


def _is_same_status(forecast: str, delivery: LogDelivery) -> bool:
    if outcome_of(forecast) is Outcome.DELIVER:
        # Which code of class 2 reports a success is the server's choice.
        return outcome_of(delivery.status) is Outcome.DELIVER
    # soft_bounce makes 4.7.30 of 5.7.30, whether or not the forecast knew that.
    hard = f"5{delivery.status[1:]}" if delivery.soft else delivery.status
    return forecast in (delivery.status, hard)
