"""The command line: ``requiretls-milter``, or ``python -m requiretls_milter``.

Each command imports what it needs when it runs: ``--help`` costs click alone.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from requiretls_milter import __version__
from requiretls_milter.commands.audit import audit
from requiretls_milter.commands.common import CONFIG_OPTION, FORMAT_OPTION
from requiretls_milter.commands.doctor import doctor
from requiretls_milter.commands.export import export
from requiretls_milter.commands.mta import mta
from requiretls_milter.commands.report import report

if TYPE_CHECKING:
    from requiretls_milter.config import Config

USAGE = 2
"""Exit status: a wrong command line, configuration or next hop."""

SOFTWARE = 70
"""Exit status: a fault of ours (EX_SOFTWARE of sysexits.h), which must not look like a verdict."""

INTERRUPTED = 130
"""Exit status: ended by Ctrl-C, as shells have it (128 + SIGINT)."""

BROKEN_PIPE = 141
"""Exit status: nobody reads our output any more (128 + SIGPIPE)."""


class NobodyReadsError(Exception):
    """Standard output is a pipe, and its other end is closed."""


class _Commands(click.Group):
    """Takes a closed pipe from click, which would end with status 1: a verdict of ours."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise NobodyReadsError from error


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="requiretls-milter", message="%(prog)s %(version)s")
def commands() -> None:
    """Forecast whether REQUIRETLS mail (RFC 8689) can be delivered, before it is accepted."""


@commands.command()
@CONFIG_OPTION
def serve(config_path: Path | None) -> int:
    """Serve an MTA as a milter, until SIGTERM.

    SIGHUP reads the configuration again; a bad one changes nothing.
    """
    from requiretls_milter.service.supervisor import run

    return run(config_path)


@commands.command()
@click.argument("nexthops", metavar="NEXTHOP...", nargs=-1, required=True)
@CONFIG_OPTION
@click.option(
    "--requirement",
    type=click.Choice(["requiretls", "tls-required-no", "none"]),
    default="requiretls",
    show_default=True,
    help="What the message asks for, and the MTA keeps.",
)
@click.option(
    "--transport",
    metavar="NAME",
    default="smtp",
    show_default=True,
    help="The MTA's transport, for the overrides of [mta.transport.NAME].",
)
@FORMAT_OPTION
@click.option("--refresh", is_flag=True, help="Look again, whatever a running service knows.")
def check(
    nexthops: tuple[str, ...],
    config_path: Path | None,
    requirement: str,
    transport: str,
    output: str,
    refresh: bool,
) -> int:
    """Assess next hops now: the evidence MX by MX, and the forecast.

    NEXTHOP is what Postfix calls one: example.org, [mx.example.org],
    [192.0.2.1], each with :PORT if need be.

    \b
    Exit status, of several the worst (1 over 75 over 0):
      0   would be delivered (perhaps not as RFC 8689 wants: see the output)
      1   would fail for good
      75  would be deferred, or is unknown
      2   wrong usage, configuration or next hop
    """
    from requiretls_milter.model import Requirement
    from requiretls_milter.reports import assess as checking

    config = _load(config_path)
    try:
        parsed = checking.parse_all(nexthops)
    except checking.MalformedError as error:
        _fail(*error.mistakes)
    reports = checking.run(
        parsed, config, Requirement(requirement), transport=transport, refresh=refresh
    )
    click.echo(checking.to_json(reports) if output == "json" else checking.to_text(reports))
    return checking.exit_status(reports)


@commands.group()
def config() -> None:
    """Check, show and explain the configuration."""


@config.command("check")
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
def config_check(file: Path | None) -> int:
    """Read a configuration and tell every mistake in it.

    \b
    Exit status: 0 good (there may be warnings), 2 not good.
    """
    from requiretls_milter.config import DEFAULT_PATH, warnings

    loaded = _load(file)
    if loaded.metrics.tls_certificate:
        from requiretls_milter.engine.scrape import CertificateError, tls_context

        try:
            tls_context(loaded.metrics)
        except CertificateError as error:
            _fail(str(error))
    for warning in warnings(loaded):
        click.echo(f"warning: {warning}", err=True)
    if file is None and not DEFAULT_PATH.exists():
        click.echo(f"{DEFAULT_PATH} does not exist: all defaults")
    else:
        click.echo(f"{file or DEFAULT_PATH}: good")
    return 0


@config.command("show")
@CONFIG_OPTION
@click.option(
    "--defaults", is_flag=True, help="Every key with its default and what it means, as comments."
)
def config_show(config_path: Path | None, defaults: bool) -> int:
    """Write the configuration in force, every key of it, as TOML.

    A password in store.url is part of it.
    """
    from requiretls_milter.config import Config
    from requiretls_milter.config.text import render

    if defaults:
        if config_path is not None:
            raise click.UsageError("--defaults shows no file: leave --config out")
        click.echo(render(Config(), annotated=True), nl=False)
    else:
        click.echo(render(_load(config_path)), nl=False)
    return 0


@config.command("explain")
@click.argument("sender")
@click.argument("recipient")
@CONFIG_OPTION
@click.option(
    "--nexthop",
    metavar="NEXTHOP",
    help="Where the MTA sends the recipient's mail; else the recipient's domain.",
)
def config_explain(
    sender: str, recipient: str, config_path: Path | None, nexthop: str | None
) -> int:
    """Tell which rule is in force for a message, and which table each value comes from.

    SENDER and RECIPIENT are addresses or domains; a SENDER of '' or '<>' is the
    null reverse-path.
    """
    from requiretls_milter.config import DEFAULT_PATH, read
    from requiretls_milter.config.lines import key_lines
    from requiretls_milter.reports import explain
    from requiretls_milter.syntax.names import DomainNameError
    from requiretls_milter.syntax.nexthop import NextHopError

    loaded = _load(config_path)
    path = config_path or DEFAULT_PATH
    lines = key_lines(read(path).decode()) if path.exists() else {}
    try:
        explanation = explain.explain(loaded, sender, recipient, nexthop)
    except (DomainNameError, NextHopError) as error:
        _fail(str(error))
    click.echo(explain.to_text(explanation, lines))
    return 0


def _load(path: Path | None) -> Config:
    """The configuration, or the end with every mistake told."""
    from requiretls_milter.config import ConfigError, load

    try:
        return load(path)
    except ConfigError as error:
        _fail(*error.mistakes)


def _fail(*mistakes: str) -> NoReturn:
    for mistake in mistakes:
        click.echo(f"error: {mistake}", err=True)
    raise click.exceptions.Exit(USAGE)


commands.add_command(audit)
commands.add_command(doctor)
commands.add_command(export)
commands.add_command(mta)
commands.add_command(report)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and end with its exit status: a crash never looks like a verdict."""
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        status = commands.main(arguments, "requiretls-milter", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except NobodyReadsError:
        # what is left in the buffer would raise again when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception:  # noqa: BLE001 - told in full; a traceback's own status 1 is a verdict here
        traceback.print_exc()
        return SOFTWARE
    return status if isinstance(status, int) else 0
