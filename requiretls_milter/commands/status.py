"""``status``, ``suspend`` and ``resume``: the running service."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from requiretls_milter.commands.common import (
    CONFIG_OPTION,
    FORMAT_OPTION,
    USAGE,
    fail,
    warn,
)

PATIENCE = 20.0
"""Seconds for every process to have taken an order; one that is stuck is replaced after 15."""

POLL = 0.1
"""Seconds between two looks whether an order was carried out."""


@click.command()
@CONFIG_OPTION
@FORMAT_OPTION
def status(config_path: Path | None, output: str) -> int:
    """Show how the running service is.

    It shows what is wrong first, then configuration, processes, MTA, resolver,
    network, store, waits, limits that were met, and each configured domain.

    \b
    Exit status, for monitoring:
      0  the service is well
      1  it is degraded: the output says why
      2  it is not running, or cannot be asked
    """
    from requiretls_milter.config import Config, ConfigError, load
    from requiretls_milter.ipc import query
    from requiretls_milter.reports import status as report

    socket_path, mistakes = _socket(config_path)
    try:
        reply = query.status(socket_path, whole=True)
        if reply.service is None or reply.condition is None:
            raise query.EngineUnavailable("the service is only just starting")
    except query.EngineUnavailable as error:
        text = f"no service answers on {socket_path}: {error}"
        if output == "json":
            click.echo(json.dumps(report.not_running((text, *mistakes)), indent=2))
            return USAGE
        fail(text, *mistakes)
    file: Config | None = None
    mistakes = ()
    try:
        file = load(Path(reply.service.config_path) if _exists(reply.service.config_path) else None)
    except ConfigError as error:
        mistakes = error.mistakes
    found = report.StatusFound(reply, reply.service, reply.condition, file, mistakes, time.time())
    click.echo(
        json.dumps(report.as_json(found), indent=2) if output == "json" else report.as_text(found)
    )
    return report.exit_status(found)


def _socket(config_path: Path | None) -> tuple[str, tuple[str, ...]]:
    """The engine's socket, and the mistakes in the file."""
    from requiretls_milter.config import Config, ConfigError, load
    from requiretls_milter.config.salvage import engine_socket_in

    try:
        return load(config_path).engine.socket, ()
    except ConfigError as error:
        return engine_socket_in(config_path) or Config().engine.socket, error.mistakes


def _exists(path: str) -> bool:
    """Whether a file is there. That of the usual place need not be: all defaults."""
    from requiretls_milter.config import DEFAULT_PATH

    return Path(path) != DEFAULT_PATH or DEFAULT_PATH.exists()


@click.command()
@CONFIG_OPTION
def suspend(config_path: Path | None) -> int:
    """Suspend all rules of the running service.

    Every rule acts as "monitor", so that nothing is deferred or refused, until
    the next reload or restart, or until resume. To suspend them for longer, write
    suspended = true into [rules].

    \b
    Exit status: 0, or 2 if the service is not running or does not obey.
    """
    return _order(config_path, suspended=True)


@click.command()
@CONFIG_OPTION
def resume(config_path: Path | None) -> int:
    """Have the rules of the running service act again, after suspend.

    \b
    Exit status: 0, or 2 if the service is not running or does not obey.
    """
    return _order(config_path, suspended=False)


def _order(config_path: Path | None, *, suspended: bool) -> int:
    from requiretls_milter.ipc import query

    path, mistakes = _socket(config_path)
    warn(*mistakes)
    deadline = time.monotonic() + PATIENCE
    try:
        before = query.suspend(path, suspended).service
        if before is not None and before.suspended is suspended:
            click.echo("rules are suspended already" if suspended else "rules act already")
            return 0
        while time.monotonic() < deadline:
            service = query.status(path).service
            if service is not None and service.suspended is suspended:
                break
            time.sleep(POLL)
        else:
            fail(f"not every process has obeyed within {PATIENCE:g} s: see the service's log")
    except query.EngineUnavailable as error:
        advice = "to have the rules suspended when it starts, write suspended = true into [rules]"
        fail(
            f"no service answers on {path}: {error}",
            *((advice,) if suspended and not error.denied else ()),
        )
    if suspended:
        click.echo(
            "rules are suspended: nothing is deferred or refused until resume, the next reload or "
            "a restart\nto keep it so, write suspended = true into [rules]; what the MTA itself "
            "does with REQUIRETLS goes on,\nand what a strict transport or a ruleset does with "
            "marked mail (docs/status.md)"
        )
    else:
        click.echo("rules act again")
    return 0
