"""The line of each key in a configuration file, for ``config explain``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"\\]*"|'[^']*')(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*=""")

KeyPath = tuple[str, ...]
"""The names from the top of the file down to a key, in lower case."""


def key_lines(content: str) -> Mapping[KeyPath, int]:
    """The line of each key of a valid TOML file, counted from 1.

    A key in an inline table has no line of its own. A line of a multi-line text that looks like a
    key is taken for one.
    """
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(content.splitlines(), start=1):
        if line.lstrip().startswith("["):
            table = table_path(line.strip()) or table
        elif match := _KEY.match(line):
            lines.setdefault(table + _path(f"{match[1]} = 0"), number)
    return lines


def table_path(header: str) -> KeyPath:
    """The path in the header of a table, ``[rules.recipient."example.org"]``; () if it is none."""
    return _path(header)


def _path(line: str) -> KeyPath:
    try:
        found: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return ()
    path = []
    while isinstance(found, dict) and found:
        name, found = next(iter(found.items()))
        path.append(name.lower())
    return tuple(path)
