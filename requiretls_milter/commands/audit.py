"""``audit``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from requiretls_milter.commands.common import DAYS_OPTION, FORMAT_OPTION, from_logs, warn

if TYPE_CHECKING:
    from requiretls_milter.reports.audit import Audit

SHOWN = 20
"""Differences in the text; JSON has more."""

MAX_SAID = 200
"""Characters shown of the text that Postfix logged for an attempt."""

DIFFERENT = 1
"""Exit status: at least one forecast differs from the delivery."""


@click.command()
@click.argument("logs", metavar="LOGFILE...", nargs=-1, required=True)
@DAYS_OPTION
@FORMAT_OPTION
def audit(logs: Sequence[str], days: int, output: str) -> int:
    """Compare the forecasts in logs with what Postfix then did.

    LOGFILE holds lines of the milter, of Postfix, or of both: a file, also a
    compressed one, "-" for standard input, or "journal:" for the journal of
    unit requiretls-milter. Name several in any order: lines are sorted by
    time. Only first delivery attempts are compared: their enhanced status code
    and, since Postfix 3.11, the value of tls=.

    \b
    Exit status: 0 if none differs, 1 if one differs, 2 if a log cannot be
    read or nothing in it was understood.
    """
    from requiretls_milter.reports import audit as auditing

    found = from_logs(logs, days, auditing.audit)
    if found.results.total() == 0:
        warn("no forecast was found")
    click.echo(_as_json(found) if output == "json" else _as_text(found))
    return DIFFERENT if found.results[auditing.Result.DIFFERENT] else 0


def _as_text(found: Audit) -> str:
    from requiretls_milter.telemetry.labels import AuditResult as Result
    from requiretls_milter.telemetry.log import loggable

    results = found.results
    lines = [
        f"{found.compared} forecasts with a delivery attempt, {results[Result.WAITING]} without one",
        f"  equal      {results[Result.EQUAL]}",
        f"  different  {results[Result.DIFFERENT]}",
        f"  later      {results[Result.LATER]}  failed behind what a forecast covers",
        f"  unknown    {results[Result.UNKNOWN]}  no forecast, or the line of the attempt was cut",
    ]
    for one in found.differences[:SHOWN]:
        delivered = " ".join(filter(None, (one.delivery.status, one.delivery.tls)))
        forecast = " ".join(
            filter(None, (one.forecast.status, one.forecast.reason, one.forecast.tls))
        )
        lines.append(loggable(f"{one.queue_id} to=<{one.recipient}>: forecast {forecast}"))
        lines.append(loggable(f"    was {delivered}: {one.delivery.said[:MAX_SAID]}"))
    more = results[Result.DIFFERENT] - SHOWN
    if more > 0:
        lines.append(f"and {more} more")
    return "\n".join(lines)


def _as_json(found: Audit) -> str:
    from requiretls_milter.telemetry.labels import AuditResult as Result

    return json.dumps(
        {
            **{result.value: found.results[result] for result in Result},
            "differences": [
                {
                    "queue_id": one.queue_id,
                    "recipient": one.recipient,
                    "forecast": {
                        "status": one.forecast.status,
                        "reason": one.forecast.reason,
                        "tls": one.forecast.tls or None,
                    },
                    "delivery": {
                        "status": one.delivery.status,
                        "tls": one.delivery.tls or None,
                        "text": one.delivery.said,
                    },
                }
                for one in found.differences
            ],
        },
        indent=2,
    )
