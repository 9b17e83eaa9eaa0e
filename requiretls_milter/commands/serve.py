"""``serve``."""

from __future__ import annotations

from pathlib import Path

import click

from requiretls_milter.commands.common import CONFIG_OPTION, fail
from requiretls_milter.telemetry.syslog import FACILITIES


@click.command()
@CONFIG_OPTION
@click.option(
    "--user",
    metavar="NAME",
    default="",
    help="If started as root, run as this user. By default, as the user that starts the service.",
)
@click.option(
    "--group",
    metavar="NAME",
    default="",
    help="With --user: run with this group. By default, with that of the user.",
)
@click.option(
    "--log-file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the log to this file, which SIGUSR1 opens anew. By default, to standard error.",
)
@click.option(
    "--syslog",
    metavar="FACILITY",
    type=click.Choice(list(FACILITIES)),
    help="Send the log to the syslog daemon: mail, daemon, user, local0 to local7.",
)
def serve(
    config_path: Path | None, user: str, group: str, log_file: Path | None, syslog: str | None
) -> int:
    """Serve an MTA as a milter until SIGTERM.

    SIGHUP reads the configuration again; if it holds a mistake, the old one
    stays in force. Under systemd the unit does what the options do.

    \b
    Exit status: 0 after SIGTERM, 1 if the service cannot start or cannot go on,
    2 if the configuration or an option cannot be used.
    """
    from requiretls_milter.service.startup import RunAs, StartupError, run

    if group and not user:
        raise click.UsageError("--group needs --user")
    if log_file is not None and syslog is not None:
        raise click.UsageError("--log-file and --syslog exclude each other")
    path = "" if log_file is None else str(log_file.absolute())
    try:
        return run(config_path, RunAs(user, group, path, syslog or ""))
    except StartupError as error:
        fail(str(error))
