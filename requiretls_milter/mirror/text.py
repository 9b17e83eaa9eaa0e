"""The mirror of a Postfix written as TOML, or merged with what a file has already."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import tomlkit
from tomlkit.items import Table

from requiretls_milter.config import Config
from requiretls_milter.mirror.parameters import MIRRORED
from requiretls_milter.mirror.section import Mirror
from requiretls_milter.syntax.text import LINE_WIDTH, one_line

_OPTIONAL = (*(key for key in MIRRORED.values() if "." not in key), "relayhost", "transport")
"""Keys that come from Postfix. Most are left out of the mirror if Postfix says nothing: what a
file still says then, of a smart host that is gone, say, is no longer so."""

_ORDER = ("profile", "carries", "mydomain", "tls_security_level", "requiretls_policy", "mta_sts")


def merged(made: Mirror, present: Mapping[str, Any]) -> dict[str, Any]:
    """The content that ``[mta]`` should have, with as little change of the present one as can be.

    A key that means the same already stays as it is written, or away; so does one that does not
    come from Postfix.

    Args:
        made: the mirror.
        present: the section as TOML has it; it is valid.
    """
    full = {key: value for key, value in made.mta.items() if value != {}}
    if not present:
        return _in_order(full)
    old = Config.model_validate({"mta": present}).mta
    new = Config.model_validate({"mta": made.mta}).mta
    content = dict(present)
    for key in dict.fromkeys((*made.mta, *_OPTIONAL)):
        if getattr(old, key) == getattr(new, key):
            continue
        content.pop(key, None)
        if key in full:
            content[key] = full[key]
    return content


def to_toml(made: Mirror) -> str:
    """Write the section as TOML that ``config check`` accepts, warnings and hints as comments."""
    document = tomlkit.document()
    head = f"How Postfix {made.version} delivers, read by requiretls-milter mta import."
    document.add(tomlkit.comment(one_line(head)))
    for warning in made.warnings:
        for line in _wrapped(f"warning: {warning}"):
            document.add(tomlkit.comment(line))
    for note in made.notes:
        for line in _wrapped(f"aliases: {note}"):
            document.add(tomlkit.comment(line))
    document.add(tomlkit.nl())
    document.add("mta", _table({key: value for key, value in made.mta.items() if value != {}}))
    if made.hints:
        document.add(tomlkit.nl())
        lines = ["Settings of Postfix that the probe should share:", "[probe]"]
        lines += (f"{key} = {tomlkit.item(value).as_string()}" for key, value in made.hints.items())
        for line in lines:
            document.add(tomlkit.comment(one_line(line)))
    return re.sub(r"\n{3,}", "\n\n", tomlkit.dumps(document)).rstrip("\n") + "\n"


def _table(values: Mapping[str, Any]) -> Table:
    """Write a table: plain values first, then the tables in it."""
    table = tomlkit.table()
    ordered = _in_order(values)
    for key, value in ordered.items():
        if not isinstance(value, Mapping):
            table.add(key, value)
    for key, value in ordered.items():
        if not isinstance(value, Mapping):
            continue
        if key == "transport":
            inner = tomlkit.table(is_super_table=True)
            for name, overrides in value.items():
                inner.add(tomlkit.key(name), _table(overrides))
            table.add(key, inner)
        else:
            table.add(key, _table(value))
    return table


def _in_order(values: Mapping[str, Any]) -> dict[str, Any]:
    known: Sequence[str] = [key for key in _ORDER if key in values]
    return {key: values[key] for key in (*known, *(k for k in values if k not in known))}


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        one_line(text),
        LINE_WIDTH,
        subsequent_indent="  ",
        break_on_hyphens=False,
        break_long_words=False,
    )
