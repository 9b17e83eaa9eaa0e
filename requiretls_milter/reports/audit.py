"""Compare what was forecast with what Postfix then did, from the logs of both. Pure.

Each accepted recipient has a line of the milter (``event=recipient``) and, some time later, lines
of Postfix's delivery agents with the same queue ID. The forecast is for the first attempt, so only
that one is compared.
"""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from requiretls_milter.bounded import BoundedMap
from requiretls_milter.model import UNKNOWN_STATUS, Action, Outcome, Reason
from requiretls_milter.reports import loglines
from requiretls_milter.syntax.status import outcome_of

MAX_WAITING = 200_000
"""Forecasts kept until their delivery is found, about 100 MiB; the oldest is dropped first."""

MAX_EARLY = 10_000
"""Deliveries kept until their forecast is found: the lines of two programs may cross."""

MAX_DIFFERENCES = 1000
"""Differences that are listed; all are counted."""

_DELIVERY = re.compile(
    r"/[\w-]+\[\d+\]: (?P<queue_id>[0-9A-Za-z]{5,32}): to=<(?P<to>[^>]*)>, "
    r"(?:orig_to=<(?P<orig_to>[^>]*)>, )?(?P<rest>.*?)status=[a-z]+ \((?P<said>.*)\)\s*$"
)
_DSN = re.compile(r"\bdsn=([245]\.\d{1,3}\.\d{1,3}), ")
_TLS = re.compile(r"\btls=(\S+), ")

_NO_ATTEMPT = "delivery temporarily suspended: "
"""The queue manager avoids a next hop that has failed: the line is no attempt of its own."""

_LATER = re.compile(r"\(in reply to (?:MAIL FROM|RCPT TO|DATA|end of DATA)\b")

Key = tuple[str, str]
"""What a forecast and its delivery share: queue ID and recipient, in lower case."""


class Result(enum.StrEnum):
    """How a delivery compares with its forecast."""

    EQUAL = "equal"
    LATER = "later"
    """The server refused at MAIL, RCPT or DATA, which no forecast covers."""
    UNKNOWN = "unknown"
    """The forecast was ``unknown``."""
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class LoggedForecast:
    """A forecast as the milter logged it."""

    status: str
    reason: str
    tls: str


@dataclass(frozen=True, slots=True)
class LoggedDelivery:
    """A first delivery attempt as Postfix logged it; ``tls`` is "" before Postfix 3.11."""

    status: str
    tls: str
    said: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A forecast that did not come true."""

    queue_id: str
    recipient: str
    forecast: LoggedForecast
    delivery: LoggedDelivery


@dataclass(slots=True)
class Audit:
    """The comparison of all recipients.

    ``waiting`` counts the forecasts without a delivery in these logs.
    """

    results: Counter[Result] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    waiting: int = 0


def audit(lines: Iterable[str]) -> Audit:
    """Compare all forecasts in *lines* with the deliveries in them.

    The milter's line of a recipient must come before Postfix's, or shortly after it. Recipients
    that were refused, or delivered on the host itself, are skipped.
    """
    matching = _Matching()
    for line in lines:
        if len(line) > loglines.MAX_LINE:
            continue
        if (logged := _forecast(line)) is not None:
            matching.add_forecast(*logged)
        elif (attempted := _delivery(line)) is not None:
            matching.add_delivery(*attempted)
    return matching.finish()


class _Matching:
    """Brings each forecast together with the first delivery of the same recipient."""

    def __init__(self) -> None:
        self._found = Audit()
        self._forecasts: BoundedMap[Key, LoggedForecast] = BoundedMap(MAX_WAITING)
        self._deliveries: BoundedMap[Key, LoggedDelivery] = BoundedMap(MAX_EARLY)

    def add_forecast(self, key: Key, forecast: LoggedForecast) -> None:
        early = self._deliveries.pop(key)
        if early is not None:
            self._compare(key, forecast, early)
        else:
            self._found.waiting += self._forecasts.put(key, forecast)

    def add_delivery(self, key: Key, delivery: LoggedDelivery) -> None:
        forecast = self._forecasts.pop(key)
        if forecast is not None:
            self._compare(key, forecast, delivery)
        elif key not in self._deliveries:
            self._deliveries.put(key, delivery)

    def finish(self) -> Audit:
        self._found.waiting += len(self._forecasts)
        return self._found

    def _compare(self, key: Key, forecast: LoggedForecast, delivery: LoggedDelivery) -> None:
        result = _result(forecast, delivery)
        self._found.results[result] += 1
        if result is Result.DIFFERENT and len(self._found.differences) < MAX_DIFFERENCES:
            self._found.differences.append(Difference(*key, forecast, delivery))


def _forecast(line: str) -> tuple[Key, LoggedForecast] | None:
    fields = loglines.recipient_fields(line)
    if fields is None or fields.get("action") != Action.ACCEPT:
        return None
    queue_id, status, reason = (fields.get(key, "") for key in ("queue_id", "forecast", "reason"))
    if not queue_id or not status or reason == Reason.LOCAL:
        return None
    recipient = fields.get("to", "").removeprefix("<").removesuffix(">")
    return (queue_id, recipient.lower()), LoggedForecast(status, reason, fields.get("tls", ""))


def _delivery(line: str) -> tuple[Key, LoggedDelivery] | None:
    match = _DELIVERY.search(line) if ": to=<" in line else None
    if match is None or match["said"].startswith(_NO_ATTEMPT):
        return None
    status = _DSN.search(match["rest"])
    if status is None:
        return None
    tls = _TLS.search(match["rest"])
    # The milter saw the address before Postfix expanded an alias.
    recipient = match["orig_to"] or match["to"]
    delivery = LoggedDelivery(status[1], tls[1] if tls else "", match["said"])
    return (match["queue_id"], recipient.lower()), delivery


def _result(forecast: LoggedForecast, delivery: LoggedDelivery) -> Result:
    if forecast.status == UNKNOWN_STATUS:
        return Result.UNKNOWN
    success = outcome_of(forecast.status) is Outcome.DELIVER
    if success and _LATER.search(delivery.said):
        return Result.LATER
    # Which code of class 2 reports a success is the server's choice.
    same_status = (
        outcome_of(delivery.status) is Outcome.DELIVER
        if success
        else delivery.status == forecast.status
    )
    same_tls = not forecast.tls or not delivery.tls or forecast.tls == delivery.tls
    return Result.EQUAL if same_status and same_tls else Result.DIFFERENT
