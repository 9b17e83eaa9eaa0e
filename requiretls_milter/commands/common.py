"""What several commands share: options, errors, loading the configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from requiretls_milter.config import Config
    from requiretls_milter.ipc.wire import StatusReply
    from requiretls_milter.mirror.postconf import Postfix
    from requiretls_milter.reports.carrying import HostMta
    from requiretls_milter.reports.logs.events import Event

Result = TypeVar("Result")

USAGE = 2
"""Exit status: a wrong command line, configuration or next hop, or a log that cannot be read."""

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
    help="How many days back to read the journal, and to look for files if no log is named.",
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


def write(text: str, path: Path | None) -> None:
    """Write what a command found, to standard output or to a file.

    A file is replaced by one that is complete, so that nobody reads half of it. What is no file,
    such as ``/dev/stdout``, is written to as it is.

    Args:
        text: without the end of its last line. The colours of a terminal go to no file.
        path: the file, or None.
    """
    if path is None:
        click.echo(text)
        return
    try:
        _replace(path, f"{click.unstyle(text)}\n")
    except OSError as error:
        fail(f"{path}: {error.strerror}")


def _replace(path: Path, text: str) -> None:
    from requiretls_milter.replacing import replace

    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    replace(path, text.encode())


def load_or_fail(path: Path | None, instead: Mapping[Path, bytes] | None = None) -> Config:
    """Load the configuration; print every mistake in it and end if there are any.

    Args:
        path: the file, or None for the default one.
        instead: what is to be taken for the content of some of its files.
    """
    from requiretls_milter.config import ConfigError, load

    try:
        return load(path, instead)
    except ConfigError as error:
        fail(*error.mistakes)


def log_only_warnings(config: Config) -> None:
    """Have the log go to standard error, and tell no more than warnings.

    For commands that look at the network or at tables: what they find out is their output, which
    may be JSON.
    """
    from requiretls_milter.telemetry import log

    log.configure(config.log.format.value, "warning")


def running_service(config: Config) -> StatusReply | None:
    """The status of the service that runs with this configuration's socket; None without one."""
    from requiretls_milter.ipc import query

    try:
        return query.status(config.engine.socket, query.STATUS_TIMEOUT)
    except query.EngineUnavailable:
        return None


def beside_service(
    config: Config, config_path: Path | None, running: StatusReply | None
) -> tuple[Config, list[str]]:
    """The configuration to answer with, and what to say of the one that is in force beside it.

    Rules that were suspended by command stay so, unless another file is tried.

    Args:
        config: the configuration of the file.
        config_path: of the file; None for the usual one.
        running: the status of the service, if one runs.
    """
    if running is None:
        return config, ["no service runs with this configuration's engine.socket"]
    service = running.service
    if service is None:
        return config, []
    notes = []
    same_file = config_path is None or str(config_path.absolute()) == service.config_path
    if same_file and service.suspended and not config.rules.suspended:
        config = config.with_suspension(True)
        notes.append("the rules of the running service are suspended, and so are these")
    if differing := [f"[{one}]" for one in service.differs_in(config)]:
        notes.append(
            f"the running service has another {', '.join(differing)} than this file "
            f"(generation {service.generation} of {service.config_path}): reload, or restart"
        )
    return config, notes


def installed_postfix(postconf: str, config_dir: str) -> Postfix | None:
    """What the Postfix of this host is, and where its queue is; None without one.

    Args:
        postconf: the command line of postconf.
        config_dir: the directory of main.cf, or "".
    """
    from requiretls_milter.mirror.postconf import Postconf, PostconfError

    try:
        return Postconf(postconf, config_dir).basics()
    except PostconfError:
        return None


def mta_of(
    config: Config, service: StatusReply | None, postfix: Callable[[], Postfix | None]
) -> HostMta:
    """Find out what the MTA of this host carries: the running service knows, or postconf.

    Args:
        config: may say it.
        service: the one that runs, if one does.
        postfix: gives the Postfix of this host; is called only if nobody else knows.
    """
    from requiretls_milter.model import Capability
    from requiretls_milter.reports.carrying import host_mta

    told = "" if service is None else service.mta_version
    found = postfix() if not told and config.mta.carries is Capability.AUTO else None
    version = "" if found is None else f"Postfix {found.version}"
    return host_mta(config, service=told, postconf=version)


def find_mta(config: Config, postconf: str, config_dir: str) -> HostMta:
    """Ask the running service, and then postconf; arguments as of :func:`installed_postfix`."""
    service = running_service(config)
    return mta_of(config, service, lambda: installed_postfix(postconf, config_dir))


def from_logs(
    logs: Sequence[str],
    usual: Callable[[int, float], Sequence[str]],
    days: int,
    report: Callable[[Iterable[Event]], Result],
) -> Result:
    """Make *report* of the events in *logs*; if nothing in them was understood, say so and end.

    Args:
        logs: files, or what else :class:`~requiretls_milter.reports.logs.reading.LogReader` reads.
        usual: finds the logs of this host if none is named, given *days* and the time.
        days: how far back to read the journal.
        report: what becomes of the events.
    """
    import time

    from requiretls_milter.reports.logs.reading import LogReader
    from requiretls_milter.reports.logs.sources import LogError

    if not logs:
        logs = usual(days, time.time())
        if not logs:
            fail("no log was found on this host: name the files")
        click.echo(f"reading {' '.join(logs)}", err=True)
    reader = LogReader(logs, days)
    try:
        made = report(reader.events())
    except LogError as error:
        fail(str(error))
    if not reader.is_understood:
        fail(*reader.nothing_understood())
    warn(*reader.not_understood())
    return made
