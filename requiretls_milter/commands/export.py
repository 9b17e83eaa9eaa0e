"""``export``."""

from __future__ import annotations

from pathlib import Path

import click

from requiretls_milter.commands.common import CONFIG_OPTION, load_or_fail, warn


@click.group()
def export() -> None:
    """Write the rules as lookup tables of the MTA."""


@export.command()
@CONFIG_OPTION
def postfix_requiretls_policy(config_path: Path | None) -> int:
    """Write a table for smtp_requiretls_policy.

    The table, on standard output, says "enforce" for each domain whose rule
    requires REQUIRETLS, and nothing for other domains: it relaxes no policy.
    What a table by next hop cannot express is a comment in it and a warning on
    standard error.

    \b
    Exit status: 0, or 2 if the configuration holds a mistake.
    """
    from requiretls_milter.reports import export as exporting

    table = exporting.postfix_requiretls_policy(load_or_fail(config_path))
    warn(*table.warnings)
    click.echo(exporting.to_text(table), nl=False)
    return 0
