"""``check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from requiretls_milter.commands.common import (
    CONFIG_DIR_OPTION,
    CONFIG_OPTION,
    POSTCONF_OPTION,
    fail,
    find_mta,
    load_or_fail,
    log_only_warnings,
)

if TYPE_CHECKING:
    from requiretls_milter.config import Config


@click.command()
@click.argument("nexthops", metavar="[NEXTHOP]...", nargs=-1)
@click.option(
    "--from",
    "source",
    metavar="FILE",
    type=click.File(encoding="utf-8", errors="replace"),
    help="Read next hops from FILE, one a line, or from standard input (-). Each gets a line of "
    "text, or with -v all that is known.",
)
@CONFIG_OPTION
@click.option(
    "--requirement",
    type=click.Choice(["requiretls", "tls-required-no", "none"]),
    default="requiretls",
    show_default=True,
    help="What the message asks for.",
)
@click.option(
    "--carried",
    type=click.Choice(["requiretls", "tls-required-no", "none"]),
    help="What the MTA acts on itself. Without it: what the MTA of this host does.",
)
@click.option(
    "--transport",
    metavar="NAME",
    default="",
    help="The MTA's transport, whose [mta.transport.NAME] applies. "
    "Without it: mta.route_transport for requiretls, if there is one, else that of "
    "mta.default_transport.",
)
@POSTCONF_OPTION
@CONFIG_DIR_OPTION
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json", "jsonl"]),
    default="text",
    show_default=True,
    help="Text for people, one JSON array in the order of the next hops, or JSON lines: an object "
    "as soon as it is known.",
)
@click.option(
    "--watch",
    metavar="SECONDS",
    type=click.FloatRange(min=1),
    help="Look anew every SECONDS, and print what has changed, until interrupted.",
)
@click.option(
    "-v",
    "--verbose",
    "detailed",
    is_flag=True,
    help="Show certificates, cipher suites and what was said in the SMTP sessions.",
)
@click.option(
    "--inbound",
    is_flag=True,
    help="Look at domains as those see them that send mail to them: our own servers. Only "
    "--config, --format and, for text, -v apply.",
)
@click.option(
    "--refresh",
    is_flag=True,
    help="Probe again instead of using what a running service already knows.",
)
def check(
    nexthops: tuple[str, ...],
    config_path: Path | None,
    requirement: str,
    carried: str | None,
    transport: str,
    source: TextIO | None,
    postconf: str,
    config_dir: str,
    output: str,
    watch: float | None,
    detailed: bool,
    inbound: bool,
    refresh: bool,
) -> int:
    """Assess next hops now: evidence by server, and forecast.

    NEXTHOP is written as in Postfix: example.org, [mx.example.org] or
    [192.0.2.1], each optionally with :PORT or :SERVICE.

    It is judged for this host: with what its MTA carries, and with the rule of
    the domain. The output says from where it is known what the MTA carries.

    \b
    Exit status; the worst of several next hops counts (1 over 75 over 0):
      0   would be delivered (perhaps not as RFC 8689 requires: see the output)
      1   would fail permanently, or the milter would refuse it
      75  would be deferred, or the forecast is unknown
      2   wrong usage, configuration or next hop

    Text and JSON lines show each next hop as soon as it is known.

    With --inbound, NEXTHOP is a domain of ours, and the status is 0 if nothing
    breaks, 1 if something is broken, 75 if something ends soon or is not known.
    """
    import asyncio

    from requiretls_milter.evidence.authorities import TrustStoreError
    from requiretls_milter.model import Requirement
    from requiretls_milter.reports import assess, live

    if not nexthops and source is None:
        raise click.UsageError("Missing argument 'NEXTHOP...', or --from FILE.")
    if watch is not None and output == "json":
        raise click.UsageError("--watch never ends, and so would the array: use --format jsonl.")
    config = load_or_fail(config_path)
    log_only_warnings(config)
    if inbound:
        if source is not None or watch is not None:
            raise click.UsageError("--inbound goes with neither --from nor --watch.")
        return _inbound(nexthops, config, output, detailed=detailed)
    usual, asked = config.mta.usual_transport, Requirement(requirement)
    try:
        given = assess.parse_all(nexthops, config.mta, transport or usual)
        judging = assess.Judging.of(
            config,
            asked,
            mta=find_mta(config, postconf, config_dir),
            carried=Requirement(carried) if carried is not None else None,
            transport=transport or config.mta.carrier(usual, asked),
            detailed=detailed,
        )
    except assess.MalformedError as error:
        fail(*error.mistakes)
    except TrustStoreError as error:
        fail(str(error))
    return asyncio.run(live.check(given, judging, live.Options(output, source, watch, refresh)))


def _inbound(domains: tuple[str, ...], config: Config, output: str, *, detailed: bool) -> int:
    """Look at our own domains once."""
    from requiretls_milter.evidence.authorities import TrustStoreError
    from requiretls_milter.reports import inbound

    try:
        looked = inbound.look(domains, config)
    except (inbound.NoDomainError, TrustStoreError) as error:
        fail(str(error))
    written = {"json": looked.to_json, "jsonl": looked.to_lines, "text": looked.to_text}[output]()
    if detailed and output == "text":
        written = f"{written}\n\n{looked.details()}"
    click.echo(written)
    return looked.exit_status
