"""``check``."""

from __future__ import annotations

from pathlib import Path

import click

from requiretls_milter.commands.common import (
    CONFIG_DIR_OPTION,
    CONFIG_OPTION,
    FORMAT_OPTION,
    POSTCONF_OPTION,
    fail,
    find_mta,
    load_or_fail,
)


@click.command()
@click.argument("nexthops", metavar="NEXTHOP...", nargs=-1, required=True)
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
    "Without it: that of mta.default_transport.",
)
@POSTCONF_OPTION
@CONFIG_DIR_OPTION
@FORMAT_OPTION
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
    postconf: str,
    config_dir: str,
    output: str,
    refresh: bool,
) -> int:
    """Assess next hops now: evidence by server, and forecast.

    NEXTHOP is written as in Postfix: example.org, [mx.example.org] or
    [192.0.2.1], each optionally with :PORT or :SERVICE.

    It is judged for this host: with what its MTA carries, and with the rule of
    the domain. The output says who told what the MTA carries.

    \b
    Exit status; the worst of several next hops counts (1 over 75 over 0):
      0   would be delivered (perhaps not as RFC 8689 requires: see the output)
      1   would fail permanently, or the milter would refuse it
      75  would be deferred, or the forecast is unknown
      2   wrong usage, configuration or next hop
    """
    from requiretls_milter.evidence.authorities import TrustStoreError
    from requiretls_milter.model import Requirement
    from requiretls_milter.reports import assess

    config = load_or_fail(config_path)
    transport = transport or config.mta.usual_transport
    try:
        reports = assess.run(
            assess.parse_all(nexthops, config.mta, transport),
            config,
            Requirement(requirement),
            mta=find_mta(config, postconf, config_dir),
            carried=Requirement(carried) if carried is not None else None,
            transport=transport,
            refresh=refresh,
        )
    except assess.MalformedError as error:
        fail(*error.mistakes)
    except TrustStoreError as error:
        fail(str(error))
    click.echo(assess.to_json(reports) if output == "json" else assess.to_text(reports))
    return assess.exit_status(reports)
