"""``doctor``."""

from __future__ import annotations

from pathlib import Path

import click

from requiretls_milter.commands.common import CONFIG_OPTION, FORMAT_OPTION
from requiretls_milter.commands.mta import CONFIG_DIR_OPTION, POSTCONF_OPTION


@click.command()
@CONFIG_OPTION
@CONFIG_DIR_OPTION
@POSTCONF_OPTION
@click.option(
    "--outside",
    metavar="HOST[:PORT]",
    default="",
    help="A mail server elsewhere, to see whether port 25 can be reached.",
)
@FORMAT_OPTION
def doctor(
    config_path: Path | None, config_dir: str, postconf: str, outside: str, output: str
) -> int:
    """Compare configuration, service and MTA, and say what to do.

    Run it as root on the MTA's host, so that it sees what Postfix sees.

    \b
    Exit status:
      0  all is well, or there are warnings only
      1  there is an error
      2  wrong usage or configuration
    """
    from requiretls_milter.config import ConfigError, load
    from requiretls_milter.doctor.finding import exit_status, to_json, to_text
    from requiretls_milter.doctor.round import run

    try:
        config = load(config_path)
    except ConfigError as error:
        for mistake in error.mistakes:
            click.echo(f"error: {mistake}", err=True)
        raise click.exceptions.Exit(2) from None
    findings = run(config, postconf=postconf, config_dir=config_dir, outside=outside)
    click.echo(to_json(findings) if output == "json" else to_text(findings))
    return exit_status(findings)
