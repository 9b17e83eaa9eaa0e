"""``audit``."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from requiretls_milter.commands.common import FORMAT_OPTION

if TYPE_CHECKING:
    from requiretls_milter.reports.audit import Audit

SHOWN = 20
"""Differences that are shown; JSON has more."""

MAX_SAID = 200
"""Characters of Postfix's own words that are shown."""


@click.command()
@click.argument(
    "logs", metavar="LOGFILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@FORMAT_OPTION
def audit(logs: Sequence[Path], output: str) -> int:
    """Compare the forecasts in logs with what Postfix then did.

    LOGFILE is a log with the milter's lines and those of Postfix ("-" for
    standard input; .gz is unpacked). Where they are in different files, name
    the milter's first. Only first delivery attempts are compared: enhanced
    status code and, from Postfix 3.11 on, the word behind tls=.

    \b
    Exit status: 0 where all are equal, 1 where one is different, 2 where a log
    cannot be read.
    """
    from requiretls_milter.reports import audit as auditing

    try:
        found = auditing.audit(_lines(logs))
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        click.echo(f"error: {getattr(error, 'filename', None) or 'log'}: {reason}", err=True)
        raise click.exceptions.Exit(2) from None
    click.echo(_json(found) if output == "json" else _text(found))
    return 1 if found.results[auditing.Result.DIFFERENT] else 0


def _lines(logs: Sequence[Path]) -> Iterator[str]:
    for path in logs:
        if str(path) == "-":
            yield from sys.stdin
        elif path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8", errors="replace") as log:
                yield from log
        else:
            with path.open(encoding="utf-8", errors="replace") as log:
                yield from log


def _text(found: Audit) -> str:
    from requiretls_milter.reports.audit import Result
    from requiretls_milter.telemetry.log import printable

    results = found.results
    lines = [
        f"{results.total()} forecasts with a delivery attempt, {found.waiting} without one",
        f"  equal      {results[Result.EQUAL]}",
        f"  different  {results[Result.DIFFERENT]}",
        f"  later      {results[Result.LATER]}  refused at MAIL, RCPT or DATA: no forecast knows",
        f"  unknown    {results[Result.UNKNOWN]}  no forecast could be made",
    ]
    for one in found.differences[:SHOWN]:
        was = " ".join(filter(None, (one.attempt.status, one.attempt.tls)))
        foreseen = " ".join(
            filter(None, (one.foreseen.status, one.foreseen.reason, one.foreseen.tls))
        )
        lines.append(printable(f"{one.queue_id} to=<{one.recipient}>: forecast {foreseen}"))
        lines.append(printable(f"    was {was}: {one.attempt.said[:MAX_SAID]}"))
    more = results[Result.DIFFERENT] - SHOWN
    if more > 0:
        lines.append(f"and {more} more")
    return "\n".join(lines)


def _json(found: Audit) -> str:
    from requiretls_milter.reports.audit import Result

    return json.dumps(
        {
            **{result.value: found.results[result] for result in Result},
            "waiting": found.waiting,
            "differences": [
                {
                    "queue_id": one.queue_id,
                    "recipient": one.recipient,
                    "forecast": {
                        "status": one.foreseen.status,
                        "reason": one.foreseen.reason,
                        "tls": one.foreseen.tls or None,
                    },
                    "delivery": {
                        "status": one.attempt.status,
                        "tls": one.attempt.tls or None,
                        "text": one.attempt.said,
                    },
                }
                for one in found.differences
            ],
        },
        indent=2,
    )
