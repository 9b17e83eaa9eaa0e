"""Lines of the milter's log and of Postfix's, as ``audit`` and ``report`` read them.

:func:`written_line` is what the milter writes today; the others have what a test is about.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from requiretls_milter.config import Config
from requiretls_milter.milter import account
from requiretls_milter.milter.settings import Settings
from requiretls_milter.milter.transaction import SmtpClient, Transaction
from requiretls_milter.model import Capability, Forecast, Outcome, Reason
from requiretls_milter.reports.logs.events import Event, event_of
from requiretls_milter.reports.logs.lines import Line
from requiretls_milter.reports.logs.times import Times
from requiretls_milter.telemetry import log

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


LEFT_OUT = {"sender": "", "tls_version": "", "mx": "", "compliant": "", "text": "", "tls": None}
"""What the line of a recipient leaves out if it is empty."""


def with_what_is_empty(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A line, that of a recipient with what it leaves out because it is empty."""
    return {**LEFT_OUT, **fields} if fields.get("event") == "recipient" else dict(fields)


IN_RELEASE_0_1_0 = (
    "timestamp=2026-11-28T18:14:39.884519Z level=info event=recipient component=milter.account "
    "queue_id=40C15F521A0 sender=<alice@example.net> to=<eve@example.org> client=authenticated "
    "requirement=requiretls source=esmtp carried=requiretls nexthop=example.org transport=smtp "
    "tls_version= forecast=5.7.30 reason=requiretls_not_offered compliant= "
    "tls=dane/!requiretls:none mx=mx1.example.org action=accept why=mode waited=0.013 "
    'text="mx1.example.org[192.0.2.1] does not offer REQUIRETLS" process=worker-1'
)
"""The line of :func:`written_line` as release 0.1.0 wrote it."""


def written_line(format: str = "logfmt") -> str:
    """The line that the milter writes of a recipient: the example of the README."""
    message = Transaction(
        Settings(Config()),
        SmtpClient(authenticated=True, capability=Capability.REQUIRETLS),
        "<alice@example.net>",
        (b"REQUIRETLS",),
    )
    recipient = message.add_recipient("<eve@example.org>", "smtp", "example.org")
    forecast = Forecast(
        "5.7.30",
        Outcome.BOUNCE,
        Reason.REQUIRETLS_NOT_OFFERED,
        text="mx1.example.org[192.0.2.1] does not offer REQUIRETLS",
        mx="mx1.example.org",
        tls="dane/!requiretls:none",
    )
    message.decide(recipient, forecast, LATEST)
    recipient.waited = 0.0132
    with contextlib.redirect_stderr(io.StringIO()) as written:
        log.configure(format)
        account.log_recipients({"queue_id": "40C15F521A0"}, "", message, [recipient])
    return written.getvalue().rstrip("\n")


def _logfmt(fields: dict[str, str]) -> str:
    quoted = {key: value.replace('"', '\\"') for key, value in fields.items()}
    return " ".join(f'{key}="{value}"' for key, value in quoted.items())


def events(lines: Iterable[str]) -> list[Event]:
    """What a report is given of *lines*."""
    times = Times(LATEST)
    found = (event_of(Line(line.encode()), times) for line in lines)
    return [event for event in found if event is not None]
