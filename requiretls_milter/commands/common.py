"""What several commands share: options, errors, loading the configuration."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from requiretls_milter.config import Config
    from requiretls_milter.reports.carrying import HostMta
    from requiretls_milter.reports.logs.events import Event

Result = TypeVar("Result")

USAGE = 2
"""Exit status: a wrong command line, configuration or next hop, or a log that cannot be read."""

STATUS_TIMEOUT = 2.0
"""Seconds for a running engine's status, which a healthy engine sends in milliseconds."""

CONFIG_OPTION = click.option(
    "--config",
    "config_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Configuration file. By default /etc/requiretls-milter/config.toml, if it exists.",
)

FORMAT_OPTION = click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Text for people or JSON for scripts.",
)

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
    help="Directory of main.cf and master.cf. By default Postfix's own.",
)

DAYS_OPTION = click.option(
    "--days",
    type=click.IntRange(1, 3660),
    default=7,
    show_default=True,
    help="How many days of the journal to read.",
)


# ---------------------------------------------------------------- errors


def fail(*mistakes: str) -> NoReturn:
    """Print each mistake as an error and end with status :data:`USAGE`."""
    for mistake in mistakes:
        click.echo(f"error: {mistake}", err=True)
    raise click.exceptions.Exit(USAGE)


def warn(*warnings: str) -> None:
    """Print each warning to standard error."""
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


def load_or_fail(path: Path | None) -> Config:
    """Load the configuration; print every mistake in it and end if there are any.

    Args:
        path: the file, or None for the default one.
    """
    from requiretls_milter.config import ConfigError, load

    try:
        return load(path)
    except ConfigError as error:
        fail(*error.mistakes)


def find_mta(config: Config, postconf: str, config_dir: str) -> HostMta:
    """Find out what the MTA of this host carries: the running service knows, or postconf.

    Args:
        config: names the service's socket; may say what the MTA carries.
        postconf: the command line of postconf.
        config_dir: the directory of main.cf, or "".
    """
    from requiretls_milter.ipc import query
    from requiretls_milter.mirror.postconf import Postconf, PostconfError
    from requiretls_milter.model import Capability
    from requiretls_milter.reports.carrying import host_mta

    told = version = ""
    with contextlib.suppress(query.EngineUnavailable):
        told = query.status(config.engine.socket, STATUS_TIMEOUT).mta_version
    if not told and config.mta.carries is Capability.AUTO:
        with contextlib.suppress(PostconfError):
            version = f"Postfix {Postconf(postconf, config_dir).basics().version}"
    return host_mta(config, service=told, postconf=version)


def from_logs(
    logs: Sequence[str], days: int, report: Callable[[Iterable[Event]], Result]
) -> Result:
    """Make *report* of the events in *logs*; if nothing in them was understood, say so and end.

    Args:
        logs: files, or what else :class:`~requiretls_milter.reports.logs.reading.LogReader` reads.
        days: how far back to read the journal.
        report: what becomes of the events.
    """
    from requiretls_milter.reports.logs.reading import LogReader
    from requiretls_milter.reports.logs.sources import LogError

    reader = LogReader(logs, days)
    try:
        made = report(reader.events())
    except LogError as error:
        fail(str(error))
    if not reader.is_understood:
        fail(*reader.nothing_understood())
    warn(*reader.not_understood())
    return made
