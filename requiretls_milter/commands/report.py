"""``report``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from requiretls_milter.commands.common import (
    CONFIG_OPTION,
    DAYS_OPTION,
    FORMAT_OPTION,
    fail,
    find_mta,
    from_logs,
    load_or_fail,
)
from requiretls_milter.syntax.text import visible

if TYPE_CHECKING:
    from requiretls_milter.config import Config
    from requiretls_milter.reports.check import RuleReport
    from requiretls_milter.reports.would_have import Tally

SHOWN = 20
"""Domains in the text of each mode."""

SHOWN_MESSAGES = 5
"""Messages in the text of each domain; JSON has more."""


@click.command()
@click.option(
    "--would-have",
    is_flag=True,
    help="Report instead what the modes defer and reject would have done to the logged mail.",
)
@click.argument("logs", metavar="[LOGFILE]...", nargs=-1)
@DAYS_OPTION
@CONFIG_OPTION
@FORMAT_OPTION
def report(
    would_have: bool, logs: Sequence[str], days: int, config_path: Path | None, output: str
) -> int:
    """Report which domains could receive REQUIRETLS mail now.

    They are those with a table of their own in [rules.recipient] or
    [rules.nexthop].

    With --would-have, report on past mail. LOGFILE is a log of the milter: a
    file, also a compressed one, "-" for standard input, or "journal:" for the
    journal of unit requiretls-milter, which is the default. The configuration's
    present rules are applied.

    \b
    Exit status: 0, or 2 if the log or the configuration cannot be read, or
    nothing in the log was understood.
    """
    loaded = load_or_fail(config_path)
    if would_have:
        click.echo(_would_have(loaded, logs, days, output))
    else:
        click.echo(_ready(loaded, output))
    return 0


# ---------------------------------------------------------------- which domains are ready


def _ready(loaded: Config, output: str) -> str:
    from requiretls_milter.evidence.authorities import TrustStoreError
    from requiretls_milter.model import Requirement
    from requiretls_milter.reports import assess

    tables = (*loaded.rules.recipient, *loaded.rules.nexthop)
    domains = sorted({name for name in tables if not name.startswith(".")})
    try:
        reports = assess.run(
            assess.parse_all(domains, loaded.mta, loaded.mta.usual_transport),
            loaded,
            Requirement.REQUIRETLS,
            mta=find_mta(loaded, "postconf", ""),
            carried=None,
            transport=loaded.mta.usual_transport,
            refresh=False,
        )
    except TrustStoreError as error:
        fail(str(error))
    if output == "json":
        return assess.to_json(reports)
    lines = [
        f"{one['nexthop']}: {one['forecast']['status']} {one['forecast']['reason']}; "
        f"mode {one['rule']['mode']}, {_done(one['rule'])}"
        for one in reports
    ]
    return "\n".join(lines) if lines else "no domain has a table of its own in [rules]"


def _done(rule: RuleReport) -> str:
    if rule["reply"] is None:
        return "accepted"
    code, enhanced, _ = rule["reply"].split(" ", 2)
    return f"answered {code} {enhanced}"


# ---------------------------------------------------------------- what would have happened


def _would_have(loaded: Config, logs: Sequence[str], days: int, output: str) -> str:
    from requiretls_milter.reports.logs.sources import JOURNAL
    from requiretls_milter.reports.would_have import read, replay
    from requiretls_milter.rules import RuleSet

    ruleset = RuleSet(loaded.rules)
    tallies = from_logs(logs or (JOURNAL,), days, lambda events: replay(read(events), ruleset))
    return _as_json(tallies) if output == "json" else _as_text(tallies)


def _as_text(tallies: Sequence[Tally]) -> str:
    lines = []
    for tally in tallies:
        lines.append(
            f"mode {tally.mode}: {tally.refused} recipients refused, {tally.deferred} "
            f"deferred, {tally.messages} messages hit"
        )
        worst = sorted(
            tally.domains.items(), key=lambda item: (-item[1].refused - item[1].deferred, item[0])
        )
        for domain, hits in worst[:SHOWN]:
            reason = hits.reasons.most_common(1)[0][0]
            name = visible(domain) or "(no domain)"
            lines.append(
                f"  {name}: {hits.refused} refused, {hits.deferred} deferred, mostly {reason}"
            )
            lines.append(f"    {_first(list(hits.messages))}")
        if len(worst) > SHOWN:
            lines.append(f"  and {len(worst) - SHOWN} domains more")
    return "\n".join(lines)


def _first(messages: Sequence[str]) -> str:
    shown = " ".join(visible(message) for message in messages[:SHOWN_MESSAGES])
    return f"{shown} and more" if len(messages) > SHOWN_MESSAGES else shown


def _as_json(tallies: Sequence[Tally]) -> str:
    return json.dumps(
        [
            {
                "mode": tally.mode.value,
                "refused": tally.refused,
                "deferred": tally.deferred,
                "messages": tally.messages,
                "domains": {
                    domain: {
                        "refused": hits.refused,
                        "deferred": hits.deferred,
                        "reasons": dict(hits.reasons),
                        "messages": list(hits.messages),
                    }
                    for domain, hits in sorted(tally.domains.items())
                },
            }
            for tally in tallies
        ],
        indent=2,
    )
