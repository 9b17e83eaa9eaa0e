"""Lines of the milter's log and of Postfix's, as ``audit`` and ``report`` read them."""

from __future__ import annotations

import json
from collections.abc import Iterable

from requiretls_milter.reports.logs.events import Event, event_of
from requiretls_milter.reports.logs.lines import Line
from requiretls_milter.reports.logs.times import Times

LATEST = 1_800_000_000.0
"""Times without a year are before this: January 2027."""

QUEUE_ID = "4dBGwW2XvVz1Kb"


def forecast_line(
    status: str, reason: str = "ok", tls: str = "", *, form: str = "logfmt", **other: str
) -> str:
    """The milter's line of an accepted recipient, as ``audit`` needs it."""
    fields: dict[str, str | None] = {
        "event": "recipient",
        "queue_id": QUEUE_ID,
        "to": "<u@example.org>",
        "requirement": "requiretls",
        "forecast": status,
        "reason": reason,
        "tls": tls or None,
        "action": "accept",
        "text": 'mx1 said "no", and so on',
        **other,
    }
    if form == "json":
        return json.dumps(fields)
    line = _logfmt({key: value or "" for key, value in fields.items()})
    return f"Nov 24 19:00:00 mta requiretls-milter[38]: {line}"


def delivery_line(
    status: str, tls: str = "", said: str = "250 Ok", *, to: str = "u@example.org", extra: str = ""
) -> str:
    """Postfix's line of a delivery attempt."""
    word = {"2": "sent", "4": "deferred", "5": "bounced"}[status[0]]
    token = f"tls={tls}, " if tls else ""
    return (
        f"Nov 24 19:00:01 mta postfix/smtp[204]: {QUEUE_ID}: to=<{to}>, {extra}"
        f"relay=mx1.example.org[192.0.2.1]:25, delay=0.02, delays=0.01/0.01/0/0, {token}"
        f"dsn={status}, status={word} ({said})"
    )


def recipient_line(form: str = "json", **fields: str) -> str:
    """The milter's line of a recipient with all that a decision depends on."""
    values = {
        "event": "recipient",
        "queue_id": "4A",
        "sender": "<s@own.example>",
        "to": "<u@example.org>",
        "client": "trusted",
        "requirement": "requiretls",
        "source": "esmtp",
        "carried": "requiretls",
        "nexthop": "example.org",
        "forecast": "5.7.30",
        "reason": "requiretls_not_offered",
        "compliant": "",
        "text": 'mx1 said "no", and so on',
        **fields,
    }
    return json.dumps(values) if form == "json" else _logfmt(values)


def _logfmt(fields: dict[str, str]) -> str:
    quoted = {key: value.replace('"', '\\"') for key, value in fields.items()}
    return " ".join(f'{key}="{value}"' for key, value in quoted.items())


def events(lines: Iterable[str]) -> list[Event]:
    """What a report is given of *lines*."""
    times = Times(LATEST)
    found = (event_of(Line(line.encode()), times) for line in lines)
    return [event for event in found if event is not None]
