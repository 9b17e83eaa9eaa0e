"""``export``."""

from __future__ import annotations

from pathlib import Path

import click

from requiretls_milter.commands.common import CONFIG_OPTION


@click.group()
def export() -> None:
    """Write the rules as tables of the MTA."""


@export.command("postfix-requiretls-policy")
@CONFIG_OPTION
def postfix_requiretls_policy(config_path: Path | None) -> int:
    """Write a table for Postfix's smtp_requiretls_policy.

    "enforce" for each domain whose rule wants REQUIRETLS kept, nothing for the
    others: no policy is relaxed. It goes to standard output; what a table by
    next hop cannot say is told as a comment in it and on standard error.

    \b
    Exit status: 0, or 2 where the configuration is not good.
    """
    from requiretls_milter.config import ConfigError, load
    from requiretls_milter.reports import export as exporting

    try:
        table = exporting.postfix_requiretls_policy(load(config_path))
    except ConfigError as error:
        for mistake in error.mistakes:
            click.echo(f"error: {mistake}", err=True)
        raise click.exceptions.Exit(2) from None
    for warning in table.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(exporting.to_text(table), nl=False)
    return 0
