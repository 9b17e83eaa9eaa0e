"""Lookup tables of Postfix in text: lists of main.cf, names of tables, and what postmap(1) reads.

A table that Postfix compiles (``hash:``, ``lmdb:``) is made from a text with an entry on each line,
its *source*. :func:`source_entries` reads that text as postmap(1) does, :func:`inline_entries` the
table that stands in main.cf itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

COMPILED = {
    "hash": ".db",
    "btree": ".db",
    "lmdb": ".lmdb",
    "cdb": ".cdb",
    "dbm": ".pag",
    "sdbm": ".pag",
}
"""Types of tables that postmap(1) makes from a source; what it adds to the name of that file."""

TEXTUAL = frozenset({*COMPILED, "texthash", "inline", "static"})
"""Types of tables whose entries stand in a text."""

UNREADABLE = "unreadable"
"""The type of a table that stands for one that cannot be named in ``[mta]``, which is US-ASCII."""

_LIST_SEPARATORS = ", \t\r\n"
_ADAPTERS = re.compile(r"(?:(?:proxy|debug):)*")
_BLANKS = " \t\r\n\v\f"
_PLAIN_ENTRY = re.compile(r'([^\s"\\]+)[ \t\r\n\v\f]+(.*)', re.ASCII | re.DOTALL)
_ENTRY = re.compile(
    r'((?:\\.|"(?:[^"\\]|\\.)*"|[^\s"\\])+)[ \t\r\n\v\f]+(.*)', re.ASCII | re.DOTALL
)
_PAIR = re.compile(r'\s*((?:\\.|"(?:[^"\\]|\\.)*"|[^\s"\\=])+)\s*=(.*)', re.ASCII | re.DOTALL)


# ---------------------------------------------------------------- lists of main.cf


def split_list(text: str) -> list[str]:
    """Split a list of main.cf at commas and blanks, but not within balanced braces.

    This is what Postfix's mystrtokq() does. An item in braces keeps them.
    """
    items: list[str] = []
    item = ""
    depth = 0
    for character in text:
        if depth == 0 and character in _LIST_SEPARATORS:
            if item:
                items.append(item)
            item = ""
            continue
        depth += {"{": 1, "}": -1}.get(character, 0)
        depth = max(depth, 0)
        item += character
    return [*items, item] if item else items


def without_braces(item: str) -> str:
    """Return the content of an item in braces, stripped; any other item as it is."""
    if item.startswith("{") and item.endswith("}"):
        return item[1:-1].strip(_BLANKS)
    return item


def split_table(item: str) -> tuple[str, str]:
    """Split ``type:name``, without the adapters ``proxy:`` and ``debug:`` in front of it."""
    kind, _, name = _ADAPTERS.sub("", item, count=1).partition(":")
    return kind, name


def static_result(item: str) -> str | None:
    """Return what a table of the type ``static`` has for every key; None for any other table."""
    kind, name = split_table(item)
    return without_braces(name) if kind == "static" else None


PATTERNS = frozenset({"regexp", "pcre", "cidr", "tcp", "socketmap", "fail", "randmap"})
"""Types of tables in which Postfix looks up whole addresses only, as they are written
(DICT_FLAG_PATTERN). All others have fixed strings, in lower case (DICT_FLAG_FIXED)."""

_FIRST_DECIDES = ("pipemap", "unionmap")


def is_fixed(item: str) -> bool:
    """Whether a table has fixed strings, so that parts of addresses are looked up in it too."""
    kind, name = split_table(item)
    while kind in _FIRST_DECIDES:
        kind, name = split_table(next(iter(split_list(without_braces(name))), ""))
    return kind not in PATTERNS


def chroot_of(command: Sequence[str]) -> str:
    """The directory that the program of a command line sees as ``/``; "" if that is no other."""
    if command[0].rpartition("/")[2] != "chroot":
        return ""
    return next((word for word in command[1:] if not word.startswith("-")), "").rstrip("/")


def path_within(command: Sequence[str], path: str) -> str:
    """A path of ours as the program of a command line sees it."""
    root = chroot_of(command)
    return path.removeprefix(root) if path.startswith(f"{root}/") else path


# ---------------------------------------------------------------- entries


def logical_lines(text: str) -> Iterator[str]:
    """Yield the lines of a file: no comments, continuations joined (readllines() of Postfix)."""
    joined = ""
    for line in text.split("\n"):
        stripped = line.lstrip(_BLANKS)
        if not stripped or stripped.startswith("#"):
            continue
        if line[0] not in _BLANKS:
            if joined:
                yield joined
            joined = line
        elif joined:  # else nothing is there to be continued: Postfix drops the line
            joined += line
    if joined:
        yield joined


def source_entries(text: str) -> Iterator[tuple[str, str]]:
    """Yield the entries of a source: key, blanks, value, as postmap(1) reads them.

    Keys are as they stand there, with quotes. A line that is no entry has no effect in Postfix, and
    is left out; so is one that is not UTF-8, of which the text has surrogates.
    """
    for line in logical_lines(text):
        match = (_PLAIN_ENTRY if '"' not in line and "\\" not in line else _ENTRY).match(line)
        if match is None or not _is_utf8(line):
            continue
        value = match[2].strip(_BLANKS)
        if value:
            yield match[1], value


def _is_utf8(line: str) -> bool:
    return line.isascii() or not any("\ud800" <= character <= "\udfff" for character in line)


def inline_entries(name: str) -> dict[str, str] | None:
    """Return the entries of ``inline:NAME``; None if Postfix would not take it."""
    if not (name.startswith("{") and name.endswith("}")):
        return None
    entries: dict[str, str] = {}
    for item in split_list(without_braces(name)):
        match = _PAIR.fullmatch(without_braces(item))
        if match is None:
            return None
        entries[match[1]] = match[2].strip(_BLANKS)
    return entries or None
