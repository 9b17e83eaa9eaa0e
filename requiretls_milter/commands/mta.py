"""``mta import``."""

from __future__ import annotations

import click

POSTCONF_OPTION = click.option(
    "--postconf",
    metavar="COMMAND",
    default="postconf",
    show_default=True,
    help=(
        "Postfix's postconf: a program, or a command line such as "
        "'chroot /srv/mta /usr/sbin/postconf'."
    ),
)

CONFIG_DIR_OPTION = click.option(
    "--config-dir",
    metavar="DIR",
    default="",
    help="Directory of main.cf and master.cf; else Postfix's own default.",
)


@click.group()
def mta() -> None:
    """Look at the MTA that we serve."""


@mta.command("import")
@CONFIG_DIR_OPTION
@POSTCONF_OPTION
def mta_import(config_dir: str, postconf: str) -> int:
    """Write the [mta] section that mirrors the running Postfix.

    It goes to standard output, as TOML that config check accepts; what cannot
    be mirrored and could make a forecast wrong is told as a comment in it and
    on standard error.

    \b
    Exit status: 0, or 2 where there is no Postfix.
    """
    from requiretls_milter.mirror.postconf import Postconf, PostconfError
    from requiretls_milter.mirror.section import mirror, to_toml

    try:
        made = mirror(Postconf(postconf, config_dir).read())
    except PostconfError as error:
        click.echo(f"error: {error}", err=True)
        raise click.exceptions.Exit(2) from None
    for warning in made.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(to_toml(made), nl=False)
    return 0
