"""What may be told of a text that an operator wrote: all but the passwords in it.

Tables of Postfix may have their settings in their name (``mysql:{ password = … }``), and a URL may
have a password. Whatever names a table passes through here before anybody sees it: a log line, a
finding, a mistake, a difference.
"""

from __future__ import annotations

import re

from requiretls_milter.syntax.tables import TEXTUAL
from requiretls_milter.syntax.text import one_line

MAX_TABLE_NAME = 200
"""Characters of a table's name in a sentence: one of type inline has its entries in it."""

_PUBLIC = frozenset(
    {*TEXTUAL, "regexp", "pcre", "cidr", "pipemap", "unionmap", "randmap", "sqlite"}
)
"""Types of tables without a password: in braces they have entries, tables, or (sqlite) a query."""

_SERVERS = frozenset({"ldap", "mysql", "pgsql", "memcache", "mongodb"})
"""Types of tables whose settings may stand in braces, a password among them (Postfix 3.8)."""

MASK = "***"
"""What is shown in the place of a password."""

HIDDEN = "{...}"
"""What is shown in the place of the settings of a table."""

_BRACE = re.compile(r"(?:(?<![A-Za-z0-9])([A-Za-z0-9]+):\s*)?([{}])")
_WORD = re.compile(r"[^\s\"']+")
_USER = re.compile(r"://[^:@/]*:")
_PASSWORD = re.compile(
    r"""(\b(?:\w*passw(?:or)?d|\w*_pw)\s*=\s*)(?:(\\?["'])(?:(?!\2).)*|[^\s{}&"']+)""",
    re.IGNORECASE,
)
"""A password: to the quotes that close it, else to the next blank."""


def without_secrets(text: str) -> str:
    """A table, a list of them, or a text that quotes one, as it may be told to anybody.

    The settings of a table that stand in its name (``mysql:{...}``) are left out, and the password
    of a URL.
    """
    told: list[str] = []
    place = depth = 0
    while match := _BRACE.search(text, place):
        kind, brace = match.groups()
        kind = kind.lower() if kind else ""
        told.append(text[place : match.end()])
        place = match.end()
        if brace == "}":
            depth = max(0, depth - 1)
        elif kind in _SERVERS or (kind and depth == 0 and kind not in _PUBLIC):
            place = _behind(text, place)
            told.append("...}")
        else:
            depth += 1
    shown = "".join([*told, text[place:]])
    if "@" in shown:
        shown = _WORD.sub(lambda found: _without_password(found[0]), shown)
    return _PASSWORD.sub(lambda found: f"{found[1]}{found[2] or ''}{MASK}", shown)


def _without_password(word: str) -> str:
    """A word without the password of the URL in it, which may have any character but a blank."""
    user = _USER.search(word)
    at = word.rfind("@")
    return word if user is None or at < user.end() else f"{word[: user.end()]}{MASK}{word[at:]}"


def has_secrets(text: str) -> bool:
    """Whether :func:`without_secrets` leaves something out."""
    return without_secrets(text) != text


def table_name(item: str) -> str:
    """The name of a table, fit for a sentence: bounded, on one line, without a password."""
    return one_line(without_secrets(item)[:MAX_TABLE_NAME])


def _behind(text: str, place: int) -> int:
    """The place behind the brace that closes one before *place*; the end if none does."""
    depth = 1
    for match in _BRACE.finditer(text, place):
        depth += 1 if match[2] == "{" else -1
        if depth == 0:
            return match.end()
    return len(text)
