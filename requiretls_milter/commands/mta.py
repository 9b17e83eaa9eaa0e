"""``mta import``."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from requiretls_milter.commands.common import (
    CONFIG_DIR_OPTION,
    CONFIG_OPTION,
    POSTCONF_OPTION,
    fail,
    load_or_fail,
    warn,
)

if TYPE_CHECKING:
    from requiretls_milter.mirror.section import Mirror

DIFFERS = 1
"""Exit status of ``--diff``: the file says something else than Postfix."""

_SECTION = "mta"


@click.group()
def mta() -> None:
    """Read the settings of the MTA."""


@mta.command("import")
@CONFIG_DIR_OPTION
@POSTCONF_OPTION
@CONFIG_OPTION
@click.option("--diff", is_flag=True, help="Show how [mta] of the configuration would change.")
@click.option("--write", is_flag=True, help="Change [mta] of the configuration, and nothing else.")
def mta_import(
    config_dir: str, postconf: str, config_path: Path | None, diff: bool, write: bool
) -> int:
    """Write the [mta] section that mirrors this host's Postfix.

    The section, on standard output, is TOML that config check accepts. A
    setting that cannot be mirrored and could make a forecast wrong is a comment
    in it and a warning on standard error.

    With --diff or --write the section is compared with that of the
    configuration. Keys that mean the same stay as they are, comments too, and
    keys that do not come from Postfix. --write shows the difference, and keeps
    the former file as FILE.bak. It changes nothing if config check would not
    accept the result.

    \b
    Exit status:
      0  written, or nothing to change
      1  --diff: the configuration would change
      2  no Postfix is found or it does not answer, or the configuration
         cannot be read or written
    """
    from requiretls_milter.config import Config
    from requiretls_milter.mirror.moved import tag_field
    from requiretls_milter.mirror.postconf import Postconf, PostconfError
    from requiretls_milter.mirror.section import mirror
    from requiretls_milter.mirror.text import to_toml

    if diff and write:
        raise click.UsageError("--diff and --write: --write shows the difference, too")
    if config_path is not None and not (diff or write):
        raise click.UsageError("--config goes with --diff or --write")
    try:
        mirrored = mirror(
            Postconf(postconf, config_dir).read(tag_field(Config().milter.header_name))
        )
    except PostconfError as error:
        fail(str(error))
    warn(*mirrored.warnings)
    if not (diff or write):
        click.echo(to_toml(mirrored), nl=False)
        return 0
    path, before, after = _changed(config_path, mirrored)
    if before == after:
        click.echo(f"{path}: [mta] says what Postfix does")
        return 0
    click.echo("".join(_difference(path, before, after)), nl=False)
    if diff:
        return DIFFERS
    _write(config_path, path, before, after)
    return 0


def _changed(config_path: Path | None, mirrored: Mirror) -> tuple[Path, str, str]:
    """The file that has ``[mta]``, its text, and what that should be."""
    from requiretls_milter.config import DEFAULT_PATH, texts
    from requiretls_milter.config.splice import SpliceError, replaced
    from requiretls_milter.config.text import value_text
    from requiretls_milter.mirror.text import merged

    main = config_path or DEFAULT_PATH
    if config_path is None or main.exists():
        load_or_fail(config_path)
    files = texts(main)
    raw = {path: tomllib.loads(text) for path, text in files.items()}
    having = [path for path, said in raw.items() if _SECTION in said]
    if len(having) > 1:
        fail(f"[mta] is spread over {', '.join(map(str, having))}: put it into one of them")
    path = having[0] if having else main
    try:
        wanted = merged(mirrored, raw[path].get(_SECTION, {}))
        return path, files[path], replaced(files[path], _SECTION, wanted, value_text)
    except SpliceError as error:
        fail(f"{path}: {error}: write it by hand, see mta import without --write")


def _difference(path: Path, before: str, after: str) -> Iterator[str]:
    """A unified diff that shows no password."""
    from requiretls_milter.syntax.secrecy import without_secrets

    hidden = _lines_with_secrets(before)
    lines = difflib.unified_diff(
        before.splitlines(keepends=True),
        after.splitlines(keepends=True),
        str(path),
        f"{path} (as Postfix delivers)",
    )
    for line in lines:
        shown = f"{line[0]}...\n" if _bare(line[1:]) in hidden else without_secrets(line)
        yield shown if shown.endswith("\n") else f"{shown}\n\\ No newline at end of file\n"


def _lines_with_secrets(text: str) -> frozenset[str]:
    """The lines of texts with line ends in them that have a password on any line."""
    from requiretls_milter.syntax.secrecy import has_secrets

    texts = [value for value in _texts(tomllib.loads(text)) if "\n" in value and has_secrets(value)]
    return frozenset(_bare(line) for value in texts for line in value.splitlines()) - {""}


def _bare(line: str) -> str:
    return line.strip().strip("\"'").strip()


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _write(config_path: Path | None, path: Path, before: str, after: str) -> None:
    from requiretls_milter.config import texts
    from requiretls_milter.config.writing import write

    content = after.encode()
    load_or_fail(config_path, {path: content})
    if texts(config_path).get(path) != before:
        fail(f"{path} was changed meanwhile: nothing is written")
    try:
        backup = write(path, content)
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror or error}")
    kept = f"; the former one is {backup}" if backup is not None else ""
    click.echo(f"{path}: written{kept}. Reload the service (SIGHUP).", err=True)
