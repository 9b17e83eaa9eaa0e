"""How values of Postfix are quoted in a warning or a comment. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from requiretls_milter.syntax.tables import TEXTUAL
from requiretls_milter.syntax.text import escape, escaped

MAX_SHOWN = 120
"""Characters of a value that are shown: one or two lines of a comment."""

MAX_NAME = 60
"""Characters of a name that are shown."""

MAX_NAMED = 5
"""Names that a warning gives as examples."""


_PUBLIC = frozenset({*TEXTUAL, "regexp", "pcre", "cidr", "pipemap", "unionmap", "randmap"})
"""Types of tables that have no settings: in braces they have entries or tables."""

_SERVERS = frozenset({"ldap", "mysql", "pgsql", "sqlite", "memcache", "mongodb"})
"""Types of tables whose settings may stand in braces in main.cf, a password among them."""

_BRACE = re.compile(r"(?:(?<![a-z0-9])([a-z0-9]+):\s*)?([{}])")


def without_settings(value: str) -> str:
    """Leave out the settings of tables that stand in a value of main.cf: ``ldap:{...}``.

    They may have a password among them, which is not told to anybody else (Postfix 3.8 and later
    take settings there).
    """
    told: list[str] = []
    place = depth = 0
    while match := _BRACE.search(value, place):
        kind, brace = match.groups()
        told.append(value[place : match.end()])
        place = match.end()
        if brace == "}":
            depth = max(0, depth - 1)
        elif kind in _SERVERS or (kind and depth == 0 and kind not in _PUBLIC):
            place = _behind(value, place)
            told.append("...}")
        else:
            depth += 1
    return "".join([*told, value[place:]])


def _behind(value: str, place: int) -> int:
    """The place behind the brace that closes one before *place*; the end if none does."""
    depth = 1
    for match in _BRACE.finditer(value, place):
        depth += 1 if match[2] == "{" else -1
        if depth == 0:
            return match.end()
    return len(value)


def shown(value: str) -> str:
    """Return a value as it may stand in a comment: one bounded line of ASCII (R62)."""
    return escaped(" ".join(without_settings(value).split()), MAX_SHOWN)


def examples(names: Iterable[str]) -> str:
    """List the first of many names as they may stand in a comment, and how many more there are."""
    listed = [escape(without_settings(name))[:MAX_NAME] for name in names]
    more = len(listed) - MAX_NAMED
    first = ", ".join(listed[:MAX_NAMED])
    return f"{first} and {more} more" if more > 0 else first
