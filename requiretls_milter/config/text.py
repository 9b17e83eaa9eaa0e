"""A configuration written as TOML, which reads back as the same configuration."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from typing import Any

import tomlkit
from pydantic import BaseModel
from tomlkit.container import Container
from tomlkit.items import AbstractTable, Item, Table

from requiretls_milter.config.domainlist import DomainList
from requiretls_milter.config.mistakes import tables_of
from requiretls_milter.config.schema.section import needs_restart
from requiretls_milter.config.schema.whole import Config
from requiretls_milter.syntax.endpoint import StoreUrl
from requiretls_milter.syntax.secrecy import without_secrets
from requiretls_milter.syntax.text import LINE_WIDTH

_BLANK_LINES = re.compile(r"\n{3,}")


EXAMPLES: Mapping[tuple[str, str], str] = {
    ("mta", "transport"): '[mta.transport."smtp-strict"]\ntls_security_level = "dane-only"',
    ("rules", "recipient"): '[rules.recipient."example.org"]\nmode = "reject"',
    ("rules", "nexthop"): '[rules.nexthop.".example.net"]\nrequire = true\nmode = "defer"',
    ("rules", "sender"): '[rules.sender."bank.example"]\nrequire = true\nmode = "reject"',
    ("rules", "list"): '[rules.list.partners]\ndomains_file = "partners.txt"\nmode = "defer"',
}
"""An example for each kind of table by domain or transport, for the manual."""


def render(config: Config, *, annotated: bool = False, masked: bool = False) -> str:
    """Write *config* as TOML, in the order of the schema, with every key that has a value.

    Args:
        config: what to write.
        annotated: put the description of each key before it, as a comment.
        masked: put :data:`~requiretls_milter.syntax.secrecy.MASK` in the place of passwords, and
            leave out the settings in the names of tables.
            Without this, the text reads back as the same configuration.
    """
    document = tomlkit.document()
    if annotated:
        document.add(tomlkit.comment("requiretls-milter: every key, with its default."))
        document.add(tomlkit.comment("Further files, each key once over all of them:"))
        document.add(tomlkit.comment('include = ["conf.d/*.toml"]'))
    for name in Config.model_fields:
        if document.body:
            document.add(tomlkit.nl())
        document.add(name, _section(getattr(config, name), (name,), annotated, masked))
    return _BLANK_LINES.sub("\n\n", tomlkit.dumps(document)).rstrip("\n") + "\n"


def value_text(value: object) -> str:
    """Write one value as TOML."""
    return _item(_plain(value)).as_string()


def _section(
    section: BaseModel, path: tuple[str, ...], annotated: bool, masked: bool = False
) -> Table:
    table = tomlkit.table()
    if annotated:
        _comment(table, str(type(section).__doc__))
        table.add(tomlkit.nl())
    plain = {
        key: value for key, value in section.model_dump(mode="json").items() if value is not None
    }
    plain |= {key: value.path for key, value in section if isinstance(value, DomainList)}
    if masked:
        plain |= {key: _masked(value) for key, value in plain.items()}
        plain |= {key: value.masked for key, value in section if isinstance(value, StoreUrl)}
    keyed = {key for key, (_, by_operator) in tables_of(type(section)).items() if by_operator}
    for key, field in type(section).model_fields.items():
        if key in keyed or key not in plain:
            continue
        if annotated:
            restart = " Takes effect at a restart." if needs_restart(field) else ""
            _comment(table, f"{field.description}{restart}")
        table.add(key, _item(_plain(plain[key])))
        if annotated:
            table.add(tomlkit.nl())
    for key in type(section).model_fields:
        if key in keyed:
            _tables(table, section, (*path, key), annotated)
    return table


def _tables(table: Table, section: BaseModel, path: tuple[str, ...], annotated: bool) -> None:
    """Add the tables that the operator named, each in full below its own heading."""
    key = path[-1]
    if annotated:
        _comment(table, str(type(section).model_fields[key].description))
        for line in EXAMPLES[path[0], key].splitlines():
            table.add(tomlkit.comment(line))
        table.add(tomlkit.nl())
    chosen = getattr(section, key)
    if chosen:
        outer = tomlkit.table(is_super_table=True)
        for name, inner in chosen.items():
            outer.add(name, _section(inner, (*path, name), annotated=False))
        table.add(key, outer)


def _comment(where: Container | AbstractTable, text: str) -> None:
    for line in textwrap.wrap(text, LINE_WIDTH, break_on_hyphens=False):
        where.add(tomlkit.comment(line))


def shown_text(value: object) -> str:
    """Write one value as TOML, without a password in it."""
    return value_text(_masked(value))


def _masked(value: Any) -> Any:
    """A plain value without the passwords in its texts."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, list):
        return [_masked(item) for item in value]
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items()}
    return value


def _plain(value: Any) -> Any:
    """The value as the file had it: 10 of 10.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _item(value: Any) -> Item:
    if isinstance(value, dict):
        inline = tomlkit.inline_table()
        inline.update(value)
        return inline
    item: Item = tomlkit.item(value)
    return item
