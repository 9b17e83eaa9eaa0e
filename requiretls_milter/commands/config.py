"""``config check``, ``config show`` and ``config explain``."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import click

from requiretls_milter.commands.common import (
    CONFIG_OPTION,
    USAGE,
    beside_service,
    fail,
    load_or_fail,
    running_service,
    warn,
    write,
)


@click.group()
def config() -> None:
    """Check, show and explain the configuration."""


@config.command()
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@CONFIG_OPTION
def check(file: Path | None, config_path: Path | None) -> int:
    """Read a configuration and list every mistake in it.

    FILE may be /dev/stdin, for what config show writes. --config FILE means the
    same.

    \b
    Exit status: 0 if there is none (there may be warnings), else 2.
    """
    from requiretls_milter.config import DEFAULT_PATH, exposures, places, warnings
    from requiretls_milter.reports import effect
    from requiretls_milter.service.accounts import missing_accounts

    if file is not None and config_path is not None:
        raise click.UsageError("FILE and --config are the same: name one of them.")
    file = file or config_path
    loaded = load_or_fail(file)
    if missing := missing_accounts(loaded.milter):
        where = places(file)
        fail(*(f"{where.get(('milter', key), file)}: milter.{key}: {why}" for key, why in missing))
    if loaded.metrics.tls_certificate:
        from requiretls_milter.engine.web.certificate import CertificateError, tls_context

        try:
            tls_context(loaded.metrics)
        except CertificateError as error:
            fail(str(error))
    warn(*warnings(loaded), *exposures(loaded), *effect.warnings(loaded))
    if file is None and not DEFAULT_PATH.exists():
        click.echo(f"{DEFAULT_PATH} does not exist: all defaults")
    else:
        click.echo(f"{file or DEFAULT_PATH}: good")
        for included in loaded.origin.included:
            click.echo(f"  with {included}")
        for name, listed in loaded.rules.list.items():
            count, path = len(listed.domains_file.domains), listed.domains_file.path
            click.echo(f"  [rules.list.{name}]: {count} domains of {path}")
    return 0


@config.command()
@click.argument("file", metavar="FILE", type=click.File("rb"))
@click.option(
    "--output",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the clean list to FILE, which is replaced when the list is complete; - is standard "
    "output.",
)
def domains(file: BinaryIO, path: Path | None) -> int:
    """Check a list of domains, and clean it.

    FILE is a text file with a domain on each line, as for domains_file of a list
    of rules, or - for standard input. Every line that is no domain is told, with
    its number and what to write instead.

    With --output a clean list is written: what was meant in the place of what is
    wrong, each domain once, and comments as they are. A line that names no domain
    becomes a comment.

    \b
    Exit status: 0 if every line is a domain, or has become one in the output;
    2 if a line is wrong, or names no domain.
    """
    from requiretls_milter.config.domainlist import MAX_DOMAINS, MAX_LIST_BYTES
    from requiretls_milter.config.listcleaning import clean, sentence

    content = file.read(MAX_LIST_BYTES + 1)
    if len(content) > MAX_LIST_BYTES:
        fail(f"{file.name} is larger than {MAX_LIST_BYTES} bytes")
    cleaned = clean(content)
    for one in cleaned.findings:
        click.echo(f"{file.name}:{one.line}:1: {sentence(one)}", err=True)
    repaired = len(cleaned.findings) - cleaned.unusable
    click.echo(
        f"{len(cleaned.domains)} domains; lines that mean a domain, and are written otherwise: "
        f"{repaired}; that name none: {cleaned.unusable}; that repeat one: {cleaned.repeated}",
        err=True,
    )
    if len(cleaned.domains) > MAX_DOMAINS:
        fail(f"a configuration takes {MAX_DOMAINS} domains at most")
    if path is not None:
        write(cleaned.text.removesuffix("\n"), None if str(path) == "-" else path)
    is_wrong = cleaned.unusable if path is not None else cleaned.findings
    return USAGE if is_wrong else 0


@config.command()
@CONFIG_OPTION
@click.option(
    "--defaults", is_flag=True, help="Write every key with its default and its meaning instead."
)
@click.option("--secrets", is_flag=True, help="Show passwords, too.")
def show(config_path: Path | None, defaults: bool, secrets: bool) -> int:
    """Write the configuration in force as TOML, with every key.

    A password in store.url is shown as ***, the settings in the name of a table
    as {...}, which config check accepts but warns of. With --secrets the output
    means the same as the file. Nothing else is masked.
    """
    from requiretls_milter.config import Config
    from requiretls_milter.config.text import render

    if defaults:
        if config_path is not None:
            raise click.UsageError("--defaults shows no file: leave --config out")
        click.echo(render(Config(), annotated=True), nl=False)
    else:
        click.echo(render(load_or_fail(config_path), masked=not secrets), nl=False)
    return 0


@config.command()
@click.argument("sender")
@click.argument("recipient")
@CONFIG_OPTION
@click.option(
    "--nexthop",
    metavar="NEXTHOP",
    help="Next hop of the recipient's mail. By default the recipient's domain.",
)
def explain(sender: str, recipient: str, config_path: Path | None, nexthop: str | None) -> int:
    """Show the rule in force for a message, value by value.

    Each value is shown with the table that it comes from.

    SENDER and RECIPIENT are addresses or domains. A SENDER of '' or '<>' is
    the null reverse-path. If the running service has something else in force than
    the file, the last line says so.
    """
    from requiretls_milter.config import places
    from requiretls_milter.reports import explain as explaining
    from requiretls_milter.syntax.names import DomainNameError
    from requiretls_milter.syntax.nexthop import NextHopError

    loaded = load_or_fail(config_path)
    loaded, notes = beside_service(loaded, config_path, running_service(loaded))
    try:
        explanation = explaining.explain(loaded, sender, recipient, nexthop)
    except (DomainNameError, NextHopError) as error:
        fail(str(error))
    click.echo(explaining.to_text(explanation, places(config_path)))
    if notes:
        click.echo("\n".join(["", *(f"Note: {note}" for note in notes)]))
    return 0
