"""``mta import``."""

from __future__ import annotations

import click

from requiretls_milter.commands.common import CONFIG_DIR_OPTION, POSTCONF_OPTION, fail, warn


@click.group()
def mta() -> None:
    """Read the settings of the MTA."""


@mta.command("import")
@CONFIG_DIR_OPTION
@POSTCONF_OPTION
def mta_import(config_dir: str, postconf: str) -> int:
    """Write the [mta] section that mirrors this host's Postfix.

    The section, on standard output, is TOML that config check accepts. A
    setting that cannot be mirrored and could make a forecast wrong is a comment
    in it and a warning on standard error.

    \b
    Exit status: 0, or 2 if no Postfix is found or it does not answer.
    """
    from requiretls_milter.mirror.postconf import Postconf, PostconfError
    from requiretls_milter.mirror.section import mirror, to_toml

    try:
        mirrored = mirror(Postconf(postconf, config_dir).read())
    except PostconfError as error:
        fail(str(error))
    warn(*mirrored.warnings)
    click.echo(to_toml(mirrored), nl=False)
    return 0
