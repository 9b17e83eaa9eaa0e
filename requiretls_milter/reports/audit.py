"""What was forecast beside what Postfix then did, from their logs. Pure.

Each accepted recipient has a line of the milter's (``event=recipient``) and, some time later, lines
of Postfix's delivery agents with the same queue ID. The first attempt is what was forecast.
"""

from __future__ import annotations

import enum
import re
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from requiretls_milter.model import UNKNOWN_STATUS, Action, Reason
from requiretls_milter.reports import loglines

MAX_WAITING = 200_000
"""Forecasts without a delivery attempt that are kept, some 100 MiB; the oldest makes room."""

MAX_EARLY = 10_000
"""Attempts that are kept for a forecast that comes later: lines of two programs may cross."""

MAX_TOLD = 1000
"""Differences that are told one by one; all are counted."""

_DELIVERY = re.compile(
    r"/[\w-]+\[\d+\]: (?P<queue_id>[0-9A-Za-z]{5,32}): to=<(?P<to>[^>]*)>, "
    r"(?:orig_to=<(?P<orig_to>[^>]*)>, )?(?P<rest>.*?)status=[a-z]+ \((?P<said>.*)\)\s*$"
)
_DSN = re.compile(r"\bdsn=([245]\.\d{1,3}\.\d{1,3}), ")
_TLS = re.compile(r"\btls=(\S+), ")

_NO_ATTEMPT = "delivery temporarily suspended: "
"""The queue manager keeps away from a next hop that has failed: no attempt of its own."""

_LATER = re.compile(r"\(in reply to (?:MAIL FROM|RCPT TO|DATA|end of DATA)\b")


class Result(enum.StrEnum):
    """How an attempt compares with its forecast."""

    EQUAL = "equal"
    LATER = "later"
    """The server refused at MAIL, RCPT or DATA, which no forecast knows."""
    UNKNOWN = "unknown"
    """The forecast was ``unknown``."""
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Foreseen:
    """A forecast, as the milter's log has it."""

    status: str
    reason: str
    tls: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """The first delivery attempt, as Postfix's log has it; ``tls`` is "" before Postfix 3.11."""

    status: str
    tls: str
    said: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A forecast that did not come true."""

    queue_id: str
    recipient: str
    foreseen: Foreseen
    attempt: Attempt


@dataclass(slots=True)
class Audit:
    """All that was compared; ``waiting`` is how many forecasts had no attempt in these logs."""

    results: Counter[Result] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    waiting: int = 0

    def compare(self, key: tuple[str, str], foreseen: Foreseen, attempt: Attempt) -> None:
        """Count one recipient's attempt."""
        result = _result(foreseen, attempt)
        self.results[result] += 1
        if result is Result.DIFFERENT and len(self.differences) < MAX_TOLD:
            self.differences.append(Difference(*key, foreseen, attempt))


def audit(lines: Iterable[str]) -> Audit:
    """Compare all forecasts in *lines* with the attempts in them.

    The milter's line of a recipient has to come before Postfix's, or not long after it. Recipients
    that were refused, or delivered on the host itself, are passed over.
    """
    found = Audit()
    forecasts: OrderedDict[tuple[str, str], Foreseen] = OrderedDict()
    attempts: OrderedDict[tuple[str, str], Attempt] = OrderedDict()
    for line in lines:
        if len(line) > loglines.MAX_LINE:
            continue
        told = _foreseen(line)
        if told is not None:
            key, foreseen = told
            early = attempts.pop(key, None)
            if early is not None:
                found.compare(key, foreseen, early)
            else:
                forecasts[key] = foreseen
                if len(forecasts) > MAX_WAITING:
                    forecasts.popitem(last=False)
                    found.waiting += 1
            continue
        seen = _attempt(line)
        if seen is None:
            continue
        key, attempt = seen
        waiting = forecasts.pop(key, None)
        if waiting is not None:
            found.compare(key, waiting, attempt)
        else:
            attempts.setdefault(key, attempt)
            if len(attempts) > MAX_EARLY:
                attempts.popitem(last=False)
    found.waiting += len(forecasts)
    return found


def _foreseen(line: str) -> tuple[tuple[str, str], Foreseen] | None:
    fields = loglines.recipient(line)
    if fields is None or fields.get("action") != Action.ACCEPT:
        return None
    queue_id, status, reason = (fields.get(key, "") for key in ("queue_id", "forecast", "reason"))
    if not queue_id or not status or reason == Reason.LOCAL:
        return None
    recipient = fields.get("to", "").removeprefix("<").removesuffix(">")
    return (queue_id, recipient.lower()), Foreseen(status, reason, fields.get("tls", ""))


def _attempt(line: str) -> tuple[tuple[str, str], Attempt] | None:
    match = _DELIVERY.search(line) if ": to=<" in line else None
    if match is None or match["said"].startswith(_NO_ATTEMPT):
        return None
    status = _DSN.search(match["rest"])
    if status is None:
        return None
    tls = _TLS.search(match["rest"])
    recipient = match["orig_to"] or match["to"]
    attempt = Attempt(status[1], tls[1] if tls else "", match["said"])
    return (match["queue_id"], recipient.lower()), attempt


def _result(foreseen: Foreseen, attempt: Attempt) -> Result:
    if foreseen.status == UNKNOWN_STATUS:
        return Result.UNKNOWN
    success = foreseen.status.startswith("2.")
    if success and _LATER.search(attempt.said):
        return Result.LATER
    # What a success is called is the server's affair.
    same_status = attempt.status.startswith("2.") if success else attempt.status == foreseen.status
    same_tls = not foreseen.tls or not attempt.tls or foreseen.tls == attempt.tls
    return Result.EQUAL if same_status and same_tls else Result.DIFFERENT
