"""``doctor``."""

from __future__ import annotations

from pathlib import Path

import click

from requiretls_milter.commands.common import (
    CONFIG_DIR_OPTION,
    CONFIG_OPTION,
    FORMAT_OPTION,
    POSTCONF_OPTION,
    load_or_fail,
    log_only_warnings,
)


@click.command()
@CONFIG_OPTION
@CONFIG_DIR_OPTION
@POSTCONF_OPTION
@click.option(
    "--sendmail-cf",
    metavar="FILE",
    type=click.Path(path_type=Path),
    default="/etc/mail/sendmail.cf",
    show_default=True,
    help='Configuration of Sendmail, which is examined if mta.profile is "rfc8689".',
)
@click.option(
    "--outside",
    metavar="HOST[:PORT]",
    default="",
    help="Mail server on another network, to test whether port 25 can be reached.",
)
@FORMAT_OPTION
def doctor(
    config_path: Path | None,
    config_dir: str,
    postconf: str,
    sendmail_cf: Path,
    outside: str,
    output: str,
) -> int:
    """Find mistakes in configuration, service and MTA.

    The output says what to do about each of them. Run it as root on the MTA's
    host, so that it sees what Postfix sees.

    \b
    Exit status:
      0  no error; there may be warnings
      1  at least one error
      2  wrong usage or configuration
    """
    from requiretls_milter.doctor.finding import exit_status, to_json, to_text
    from requiretls_milter.doctor.run import Where, run

    config = load_or_fail(config_path)
    log_only_warnings(config)
    where = Where(postconf, config_dir, sendmail_cf)
    findings = run(config, where, outside=outside)
    click.echo(to_json(findings) if output == "json" else to_text(findings))
    return exit_status(findings)
