"""Compare what was forecast with what Postfix then did, from the logs of both. Pure.

Each accepted recipient has a line of the milter (``event=recipient``) and, some time later, lines
of Postfix's delivery agents with the same queue ID: :mod:`.following` brings them together. The
forecast is for the first attempt, so only that one is compared.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from requiretls_milter.model import UNKNOWN_STATUS, Action, Outcome, Reason
from requiretls_milter.reports.following import (
    Followed,
    Following,
    LoggedForecast,
    has_port_of_its_own,
)
from requiretls_milter.reports.logs import milter
from requiretls_milter.reports.logs.events import Arrived, Event, Logged, Removed
from requiretls_milter.reports.logs.postfix import Delivery
from requiretls_milter.syntax.status import outcome_of

MAX_DIFFERENCES = 1000
"""Differences that are listed; all are counted."""


class Result(enum.StrEnum):
    """How a delivery compares with its forecast."""

    EQUAL = "equal"
    LATER = "later"
    """It failed behind all that a probe sees, or at a content filter before the next hop."""
    UNKNOWN = "unknown"
    """The forecast was ``unknown``, or the line of the attempt was cut before its status."""
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Difference:
    """A forecast that did not come true."""

    queue_id: str
    """Of the message that has the forecast: behind a content filter it has another one."""
    recipient: str
    forecast: LoggedForecast
    delivery: Delivery


@dataclass(slots=True)
class Audit:
    """The comparison of all recipients.

    ``waiting`` counts the forecasts without a delivery in these logs.
    """

    results: Counter[Result] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    waiting: int = 0


def audit(events: Iterable[Event]) -> Audit:
    """Compare all forecasts among *events* with the deliveries among them.

    Recipients that were refused, or delivered on the host itself, are skipped.
    """
    found = Audit()
    following = Following(lambda followed: _compare(found, followed))
    for event in events:
        what, time = event.what, event.time
        if isinstance(what, Logged):
            if (forecast := _forecast(what.fields)) is not None:
                following.add_forecast(
                    what.fields["queue_id"], what.fields.get("to", ""), forecast, time
                )
        elif isinstance(what, Delivery):
            following.add_delivery(what, time)
        elif isinstance(what, Arrived):
            following.add_arrival(what.queue_id, what.message_id, time)
        elif isinstance(what, Removed):
            following.add_removal(what.queue_id, time)
    following.finish()
    return found


def _forecast(fields: milter.Fields) -> LoggedForecast | None:
    # A line that was cut may have lost its action: there is a delivery if it was accepted.
    if fields.get("event") != milter.RECIPIENT or fields.get("action", "accept") != Action.ACCEPT:
        return None
    status, reason = fields.get("forecast", ""), fields.get("reason", "")
    if not fields.get("queue_id") or not status or reason == Reason.LOCAL:
        return None
    tls, mx, nexthop = (fields.get(key, "") for key in ("tls", "mx", "nexthop"))
    return LoggedForecast(status, reason, tls, mx, nexthop)


def _compare(found: Audit, followed: Followed) -> None:
    delivery = followed.attempt
    if delivery is None:
        found.waiting += 1
        return
    result = _result(followed.forecast, delivery)
    found.results[result] += 1
    if result is Result.DIFFERENT and len(found.differences) < MAX_DIFFERENCES:
        found.differences.append(
            Difference(followed.queue_id, followed.recipient, followed.forecast, delivery)
        )


def _result(forecast: LoggedForecast, delivery: Delivery) -> Result:
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


def _is_same_status(forecast: str, delivery: Delivery) -> bool:
    if outcome_of(forecast) is Outcome.DELIVER:
        # Which code of class 2 reports a success is the server's choice.
        return outcome_of(delivery.status) is Outcome.DELIVER
    # soft_bounce makes 4.7.30 of 5.7.30, whether or not the forecast knew that.
    hard = f"5{delivery.status[1:]}" if delivery.soft else delivery.status
    return forecast in (delivery.status, hard)
