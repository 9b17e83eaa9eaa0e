"""``report``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from requiretls_milter.commands.common import (
    CONFIG_OPTION,
    DAYS_OPTION,
    USAGE,
    fail,
    find_mta,
    from_logs,
    load_or_fail,
    log_only_warnings,
    write,
)

if TYPE_CHECKING:
    from requiretls_milter.config import Config
    from requiretls_milter.readiness.values import Readiness
    from requiretls_milter.reports.readiness import MailFound
    from requiretls_milter.reports.would_have import ModeTally


COUNTERS = "counters:"
"""In the place of a log: the counters of the running service."""


@click.command()
@click.option(
    "--would-have",
    is_flag=True,
    help="Report instead what the modes defer and reject would have done to the logged mail.",
)
@click.option(
    "--from",
    "listed",
    metavar="FILE",
    type=click.File(encoding="utf-8", errors="replace"),
    help="Report on the next hops in FILE, one a line, or from standard input (-).",
)
@click.argument("logs", metavar="[LOGFILE]...", nargs=-1)
@DAYS_OPTION
@CONFIG_OPTION
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json", "html"]),
    default="text",
    show_default=True,
    help="Text for people, JSON for scripts, or one HTML page that needs nothing else.",
)
@click.option(
    "--output",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to FILE instead of standard output; FILE is replaced when the report is complete.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 1_000_000),
    default=5_000,
    show_default=True,
    help="Assess so many next hops at most, those with most mail; nothing is known of the others.",
)
@click.option(
    "--no-history",
    is_flag=True,
    help="Do not have the running service keep the figures of this report.",
)
def report(
    would_have: bool,
    listed: TextIO | None,
    logs: Sequence[str],
    days: int,
    config_path: Path | None,
    output: str,
    path: Path | None,
    limit: int,
    no_history: bool,
) -> int:
    """Report whether REQUIRETLS can be switched on.

    Without LOGFILE and --from: which domains could receive REQUIRETLS mail now,
    of those with a rule by recipient or next hop, in a table or a list.

    With LOGFILE or --from: what would become of all the mail if it asked for
    REQUIRETLS, by the next hops to which mail went or that FILE lists: the
    shares that would be delivered, what stands in the way, and what lacks only
    one step. LOGFILE is a log of Postfix or of the milter: a file, also a
    compressed one, "-" for standard input, "journal:" for the journal of unit
    requiretls-milter; or it is "counters:" for the configured domains and the
    counters of the running service, which --format html takes by default.

    With --would-have, report on past mail, by the milter's log; by default that
    of this host: the journal, and files of /var/log. The configuration's present
    rules are applied.

    \b
    Exit status: 0, or 2 if a log, FILE or the configuration cannot be read or
    nothing in the log was understood, or if a line of FILE is no next hop.
    """
    if would_have and (output == "html" or listed is not None):
        raise click.UsageError("--would-have goes with neither --format html nor --from.")
    if listed is not None and logs:
        raise click.UsageError("--from goes with no LOGFILE.")
    if COUNTERS in logs and (would_have or len(logs) > 1):
        raise click.UsageError(f"{COUNTERS} goes with nothing else.")
    loaded = load_or_fail(config_path)
    log_only_warnings(loaded)
    if would_have:
        write(_would_have(loaded, logs, days, output), path)
        return 0
    if not logs and listed is None and output != "html":
        write(_ready(loaded, output), path)
        return 0
    found = _found(loaded, logs, listed, days)
    write(_readiness(loaded, found, output, limit, keeps_history=not no_history), path)
    for mistake in found.mistakes:
        click.echo(f"error: {mistake}", err=True)
    return USAGE if found.mistakes else 0


# ---------------------------------------------------------------- can it be switched on


def _found(loaded: Config, logs: Sequence[str], listed: TextIO | None, days: int) -> MailFound:
    """Find out where mail goes."""
    from requiretls_milter.reports import readiness
    from requiretls_milter.reports.logs.usual import all_logs

    if listed is not None:
        return readiness.in_list(listed, loaded)
    if not logs or COUNTERS in logs:
        return readiness.in_counters(loaded)
    return from_logs(logs, all_logs, days, lambda events: readiness.in_logs(events, loaded))


def _readiness(
    loaded: Config, found: MailFound, output: str, limit: int, *, keeps_history: bool
) -> str:
    from requiretls_milter.evidence.authorities import TrustStoreError
    from requiretls_milter.reports import readiness, readiness_text

    if output == "html":
        make = _page_maker()
    else:
        make = {"json": readiness_text.to_json, "text": readiness_text.to_text}[output]
    try:
        mta = find_mta(loaded, "postconf", "")
        made = readiness.report(found, loaded, mta, limit=limit, keeps_history=keeps_history)
    except TrustStoreError as error:
        fail(str(error))
    return make(made)


def _page_maker() -> Callable[[Readiness], str]:
    """Import what makes the page, before anything is assessed."""
    try:
        from requiretls_milter.readiness.page import page
    except ImportError as error:
        fail(
            '--format html needs the extra "report" '
            f"(pip install requiretls-milter[report]): {error}"
        )
    return page


# ---------------------------------------------------------------- which domains are ready


def _ready(loaded: Config, output: str) -> str:
    from requiretls_milter.engine.domains.configured import ways
    from requiretls_milter.evidence.authorities import TrustStoreError
    from requiretls_milter.model import Requirement
    from requiretls_milter.reports import assess, report_text

    asked, mta = Requirement.REQUIRETLS, find_mta(loaded, "postconf", "")
    by_transport: dict[str, list[assess.GivenHop]] = {}
    for domain, way in sorted(ways(loaded), key=lambda one: one[0]):
        given = assess.GivenHop(domain, way.nexthop, domain)
        by_transport.setdefault(way.transport, []).append(given)
    reports = []
    try:
        for transport, hops in by_transport.items():
            reports += assess.run(
                hops,
                loaded,
                asked,
                mta=mta,
                carried=None,
                transport=loaded.mta.carrier(transport, asked),
                refresh=False,
            )
    except TrustStoreError as error:
        fail(str(error))
    reports.sort(key=lambda one: one["nexthop"])
    if output == "json":
        return assess.to_json(reports)
    routed = {
        one.given: str(one.nexthop)
        for hops in by_transport.values()
        for one in hops
        if str(one.nexthop) != one.given
    }
    return report_text.ready(reports, routed)


# ---------------------------------------------------------------- what would have happened


def _would_have(loaded: Config, logs: Sequence[str], days: int, output: str) -> str:
    from requiretls_milter.reports import report_text
    from requiretls_milter.reports.logs.usual import milter_logs
    from requiretls_milter.reports.would_have import read, replay
    from requiretls_milter.rules import RuleSet

    ruleset = RuleSet(loaded.rules)
    tallies = from_logs(logs, milter_logs, days, lambda events: replay(read(events), ruleset))
    return _as_json(tallies) if output == "json" else report_text.would_have(tallies)


def _as_json(tallies: Sequence[ModeTally]) -> str:
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
