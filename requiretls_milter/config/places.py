"""The place of each key in a file: for mistakes, and for ``config explain``.

tomllib tells values, but not where they stand. :func:`scan` walks through the same text once more
and notes where each key and each entry of a list begins. It is meant for text that tomllib accepts;
in any other text it stops at the first thing that it does not understand.
"""

from __future__ import annotations

import bisect
import contextlib
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

KeyPath = tuple[str | int, ...]
"""The names from the top of the file down to a key, and numbers for the entries of lists."""

MAX_DEPTH = 40
"""Lists and tables inside each other: what lies deeper has no place of its own."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_TEXT = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\[\]{}\r\n#\"']*[^,\[\]{}\r\n#\"' \t]")


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a file; line and column count from 1, and are 0 for the file as a whole."""

    file: Path
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else str(self.file)


@dataclass(frozen=True, slots=True)
class Statement:
    """A key with its value, on lines of its own.

    Attributes:
        path: of the key.
        table: the path in the heading above it.
        begin: offset of the key.
        value: offset of the value.
        end: offset behind the value.
    """

    path: KeyPath
    table: KeyPath
    begin: int
    value: int
    end: int


@dataclass(slots=True)
class Scan:
    """Where the keys of a text stand, as offsets.

    Attributes:
        keys: the first place of each key, each table and each entry of a list.
        headings: the heading of each table, in order.
        statements: the keys that are not inside of a value, in order.
        begun: where the last heading or statement begins, be it understood or not.
    """

    text: str
    keys: dict[KeyPath, int] = field(default_factory=dict)
    headings: list[tuple[KeyPath, int]] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    begun: int = 0

    def line_of(self, offset: int) -> int:
        """The line of an offset."""
        return self.text.count("\n", 0, offset) + 1

    def places(self, file: Path) -> dict[KeyPath, Place]:
        """The place of each key, if *file* holds the text."""
        starts = [0, *(match.end() for match in re.finditer("\n", self.text))]
        places = {}
        for path, offset in self.keys.items():
            line = bisect.bisect_right(starts, offset)
            places[path] = Place(file, line, offset - starts[line - 1] + 1)
        return places


def heading_path(text: str) -> KeyPath:
    """The path in the heading of a table, ``[rules.recipient."example.org"]``; () if it is none."""
    return next((path for path, _ in scan(text).headings), ())


def scan(text: str) -> Scan:
    """Find the keys of a TOML file."""
    found = Scan(text)
    scanner = _Scanner(found)
    with contextlib.suppress(_Unreadable):
        scanner.document()
    return found


class _Unreadable(Exception):
    """The text goes on with something that is no TOML, or is nested too deeply."""


class _Scanner:
    def __init__(self, found: Scan) -> None:
        self._found = found
        self._text = found.text
        self._at = 0
        self._entries: dict[KeyPath, int] = {}  # of lists of tables

    def document(self) -> None:
        table: KeyPath = ()
        while self._skip(_BLANK) < len(self._text):
            begin = self._found.begun = self._at
            if self._takes("["):
                in_list = self._takes("[")
                table = self._in_lists(self._key())
                self._expect("]]" if in_list else "]")
                if in_list:
                    number = self._entries[table] = self._entries.get(table, -1) + 1
                    self._note(table, begin)
                    table += (number,)
                self._note(table, begin)
                self._found.headings.append((table, begin))
            else:
                path, value = self._entry(table, 0)
                self._found.statements.append(Statement(path, table, begin, value, self._at))

    def _in_lists(self, names: KeyPath) -> KeyPath:
        """The path of a table whose names lead through lists of tables: into the last of each."""
        path: KeyPath = ()
        for name in names[:-1]:
            path += (name,)
            if path in self._entries:
                path += (self._entries[path],)
        return path + names[-1:]

    def _entry(self, table: KeyPath, depth: int) -> tuple[KeyPath, int]:
        """A key and its value; returns its path, and where the value begins."""
        begin = self._at
        path = table + self._key()
        self._note(path, begin)
        self._skip(_SPACE)
        self._expect("=")
        value = self._skip(_SPACE)
        self._value(path, depth)
        return path, value

    def _note(self, path: KeyPath, offset: int) -> None:
        """Note a key, and the tables that it implies."""
        for length in range(min(len(path), MAX_DEPTH), 0, -1):
            if path[:length] in self._found.keys:
                return
            self._found.keys[path[:length]] = offset

    def _key(self) -> KeyPath:
        names: list[str] = []
        while True:
            self._skip(_SPACE)
            if match := _BARE.match(self._text, self._at):
                names.append(match[0])
            elif match := _TEXT.match(self._text, self._at):
                names.append(_unquoted(match[0]))
            else:
                raise _Unreadable
            self._at = match.end()
            self._skip(_SPACE)
            if not self._takes("."):
                return tuple(names)

    def _value(self, path: KeyPath, depth: int) -> None:
        self._skip(_SPACE)
        if depth > MAX_DEPTH:
            raise _Unreadable
        if self._takes("["):
            self._list(path, depth)
        elif self._takes("{"):
            self._inline(path, depth)
        else:
            match = _TEXT.match(self._text, self._at) or _SCALAR.match(self._text, self._at)
            if match is None:
                raise _Unreadable
            self._at = match.end()

    def _list(self, path: KeyPath, depth: int) -> None:
        number = 0
        self._skip(_BLANK)
        while not self._takes("]"):
            self._note((*path, number), self._at)
            self._value((*path, number), depth + 1)
            number += 1
            self._skip(_BLANK)
            if not self._takes(","):
                self._expect("]")
                return
            self._skip(_BLANK)

    def _inline(self, path: KeyPath, depth: int) -> None:
        self._skip(_BLANK)
        while not self._takes("}"):
            self._entry(path, depth + 1)
            self._skip(_BLANK)
            if not self._takes(","):
                self._expect("}")
                return
            self._skip(_BLANK)

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
        return self._at

    def _takes(self, text: str) -> bool:
        """Whether *text* comes next; if so, it is passed."""
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _expect(self, text: str) -> None:
        if not self._takes(text):
            raise _Unreadable


def _unquoted(token: str) -> str:
    """The name that a quoted key stands for."""
    if "\\" not in token:
        return token[1:-1]
    try:
        return str(tomllib.loads(f"x = {token}")["x"])
    except tomllib.TOMLDecodeError:
        raise _Unreadable from None
