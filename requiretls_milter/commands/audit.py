"""``audit``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from requiretls_milter.commands.common import (
    DAYS_OPTION,
    FORMAT_OPTION,
    fail,
    from_logs,
    warn,
)

if TYPE_CHECKING:
    from requiretls_milter.reports.audit import Audit

SHOWN = 20
"""Differences in the text; JSON has more."""

MAX_SAID = 200
"""Characters shown of the text that Postfix logged for an attempt."""

DIFFERENT = 1
"""Exit status: at least one forecast differs from the delivery."""


@click.command()
@click.argument("logs", metavar="[LOGFILE]...", nargs=-1)
@click.option(
    "--follow",
    is_flag=True,
    help="Compare what is logged from now on, over rotations of the logs, until SIGTERM.",
)
@click.option(
    "--textfile",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="With --follow: write metrics to FILE, for node_exporter's textfile collector.",
)
@click.option(
    "--listen",
    metavar="ADDRESS:PORT",
    help="With --follow: serve metrics for Prometheus over HTTP.",
)
@DAYS_OPTION
@FORMAT_OPTION
def audit(
    logs: Sequence[str],
    follow: bool,
    textfile: Path | None,
    listen: str | None,
    days: int,
    output: str,
) -> int:
    """Compare the forecasts in logs with what Postfix then did.

    LOGFILE holds lines of the milter, of Postfix, or of both: a file, also a
    compressed one, "-" for standard input, "journal:" for the journal of unit
    requiretls-milter, or "journal:mail" for all mail in the journal. Name
    several in any order: lines are sorted by time. By default they are the
    logs of this host: the journal, and what /var/log has of milter and mail.
    Only first delivery attempts are compared: their enhanced status code and,
    since Postfix 3.11, the value of tls=.

    With --follow the command does not end. It logs each difference, in the
    format of the service's log, and counts how forecasts came true. A log that
    is not there is waited for. By default it follows the journal alone.

    \b
    Exit status: 0 if none differs, 1 if one differs, 2 if a log cannot be
    read or nothing in it was understood. With --follow: 0 when the command was
    told to end, 2 if FILE cannot be written or ADDRESS:PORT cannot be had.
    """
    if follow:
        _follow(logs, textfile, listen, output)
        return 0
    if textfile is not None or listen is not None:
        raise click.UsageError("--textfile and --listen go with --follow.")
    from requiretls_milter.reports import audit as auditing
    from requiretls_milter.reports.logs.usual import all_logs
    from requiretls_milter.telemetry.labels import AuditResult

    found = from_logs(logs, all_logs, days, auditing.audit)
    if found.results.total() == 0:
        warn("no forecast was found")
    click.echo(_as_json(found) if output == "json" else _as_text(found))
    return DIFFERENT if found.results[AuditResult.DIFFERENT] else 0


def _follow(logs: Sequence[str], textfile: Path | None, listen: str | None, output: str) -> None:
    from requiretls_milter.reports import audit_follow
    from requiretls_milter.reports.logs.sources import JOURNAL, MAIL_JOURNAL, LogError
    from requiretls_milter.syntax.endpoint import EndpointError, parse_endpoint

    for log in logs:
        if any(log.startswith((f"{other}.", f"{other}-")) for other in logs):
            raise click.UsageError(f"{log} is a rotated log: --follow finds rotations by itself.")
    if textfile is not None and textfile.suffix != ".prom":
        raise click.UsageError("--textfile: node_exporter reads only files that end in .prom.")
    try:
        endpoint = parse_endpoint(listen) if listen is not None else None
    except EndpointError as error:
        fail(f"--listen: {error}")
    try:
        audit_follow.follow(
            logs or (JOURNAL, MAIL_JOURNAL),
            textfile=textfile,
            listen=endpoint,
            form="json" if output == "json" else "logfmt",
        )
    except LogError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or listen}: {error.strerror}")


def _as_text(found: Audit) -> str:
    from requiretls_milter.telemetry.labels import AuditResult as Result
    from requiretls_milter.telemetry.log import loggable

    results = found.results
    lines = [
        f"{found.compared} forecasts with a delivery attempt, "
        f"{results[Result.WAITING]} without one",
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
