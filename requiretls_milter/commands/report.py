"""``report``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

import click

from requiretls_milter.commands.common import CONFIG_OPTION, FORMAT_OPTION

if TYPE_CHECKING:
    from requiretls_milter.config import Config
    from requiretls_milter.reports.would_have import Verdicts

UNIT = "requiretls-milter"

SHOWN = 20
"""Domains that are shown of each mode."""

SHOWN_MESSAGES = 5
"""Messages that are shown of each domain; JSON has more."""


@click.command()
@click.option(
    "--would-have",
    is_flag=True,
    help="Tell instead what the modes defer and reject would have done to the logged mail.",
)
@click.argument("logs", metavar="[LOGFILE]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--days",
    type=click.IntRange(1, 3660),
    default=7,
    show_default=True,
    help="How far back, where the log is the journal's.",
)
@CONFIG_OPTION
@FORMAT_OPTION
def report(
    would_have: bool,
    logs: Sequence[Path],
    days: int,
    config_path: Path | None,
    output: str,
) -> int:
    """Report which of the configured domains could take REQUIRETLS mail now.

    These are the domains with a table of their own in [rules.recipient] and
    [rules.nexthop].

    With --would-have, report on the mail of the last days: LOGFILE is a log of
    the milter's ("-" for standard input), logfmt or JSON; without one the
    journal of unit requiretls-milter is read. The rules are those of the
    configuration as it is now.

    \b
    Exit status: 0, or 2 where the log or the configuration cannot be read.
    """
    from requiretls_milter import config
    from requiretls_milter.forecast.pkix import TrustStoreError

    try:
        loaded = config.load(config_path)
        told = _would_have(loaded, logs, days, output) if would_have else _ready(loaded, output)
    except config.ConfigError as error:
        _fail(*error.mistakes)
    except TrustStoreError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename or 'log'}: {error.strerror}")
    click.echo(told)
    return 0


def _fail(*mistakes: str) -> NoReturn:
    for mistake in mistakes:
        click.echo(f"error: {mistake}", err=True)
    raise click.exceptions.Exit(2)


# ---------------------------------------------------------------- who is ready


def _ready(loaded: Config, output: str) -> str:
    from requiretls_milter.model import Requirement
    from requiretls_milter.reports import assess as check

    tables = (*loaded.rules.recipient, *loaded.rules.nexthop)
    domains = sorted({name for name in tables if not name.startswith(".")})
    reports = check.run(
        check.parse_all(domains),
        loaded,
        Requirement.REQUIRETLS,
        transport="smtp",
        refresh=False,
    )
    if output == "json":
        return check.to_json(reports)
    lines = [
        f"{one['nexthop']}: {one['forecast']['status']} {one['forecast']['reason']}"
        for one in reports
    ]
    return "\n".join(lines) if lines else "no domain has a table of its own in [rules]"


# ---------------------------------------------------------------- what would have been


def _would_have(loaded: Config, logs: Sequence[Path], days: int, output: str) -> str:
    from requiretls_milter.reports.would_have import judge, read
    from requiretls_milter.rules import RuleSet

    verdicts = judge(read(_lines(logs, days)), RuleSet(loaded.rules))
    return _json(verdicts) if output == "json" else _text(verdicts)


def _lines(logs: Sequence[Path], days: int) -> Iterator[str]:
    if not logs:
        yield from _journal(days)
    for path in logs:
        if str(path) == "-":
            yield from sys.stdin
        else:
            with path.open(encoding="utf-8", errors="replace") as log:
                yield from log


def _journal(days: int) -> Iterator[str]:
    """The journal's lines; raises OSError where there is no journalctl, or it fails."""
    command = ["journalctl", "--unit", UNIT, "--since", f"-{days}d", "--output", "cat", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as journal:
        lines: IO[str] | None = journal.stdout
        if lines is not None:
            yield from lines
        if journal.wait() != 0:
            raise OSError(0, f"journalctl ended with status {journal.returncode}", "journal")


def _text(verdicts: Sequence[Verdicts]) -> str:
    lines = []
    for verdict in verdicts:
        lines.append(
            f"mode {verdict.mode}: {verdict.refused} recipients refused, {verdict.deferred} "
            f"deferred, {len(verdict.messages)} messages hit"
        )
        worst = sorted(
            verdict.domains.items(), key=lambda item: (-item[1].refused - item[1].deferred, item[0])
        )
        for domain, hits in worst[:SHOWN]:
            reason = hits.reasons.most_common(1)[0][0]
            lines.append(
                f"  {domain or '(no domain)'}: {hits.refused} refused, {hits.deferred} deferred, "
                f"mostly {reason}"
            )
            lines.append(f"    {_first(list(hits.messages))}")
        if len(worst) > SHOWN:
            lines.append(f"  and {len(worst) - SHOWN} domains more")
    return "\n".join(lines)


def _first(messages: Sequence[str]) -> str:
    shown = " ".join(messages[:SHOWN_MESSAGES])
    return f"{shown} and more" if len(messages) > SHOWN_MESSAGES else shown


def _json(verdicts: Sequence[Verdicts]) -> str:
    return json.dumps(
        [
            {
                "mode": verdict.mode.value,
                "refused": verdict.refused,
                "deferred": verdict.deferred,
                "messages": len(verdict.messages),
                "domains": {
                    domain: {
                        "refused": hits.refused,
                        "deferred": hits.deferred,
                        "reasons": dict(hits.reasons),
                        "messages": list(hits.messages),
                    }
                    for domain, hits in sorted(verdict.domains.items())
                },
            }
            for verdict in verdicts
        ],
        indent=2,
    )
