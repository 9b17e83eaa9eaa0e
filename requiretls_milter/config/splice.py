"""Changes one section in the text of a file, and no other octet of it. Pure.

:func:`replaced` changes what differs: a value keeps the comment beside it, a key that is the same
keeps its line. The result is parsed again; if it does not say what it should, nothing is returned.
"""

from __future__ import annotations

import operator
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from requiretls_milter.config.places import KeyPath, Scan, Statement, scan
from requiretls_milter.config.repair import heading, key_text
from requiretls_milter.errors import RequiretlsMilterError

Render = Callable[[Any], str]
"""A value as TOML, on one line or several."""

_REST_OF_LINE = re.compile(r"[^\n]*(?:\n|$)")


class SpliceError(RequiretlsMilterError):
    """The section is written in a way that cannot be changed piece by piece.

    Conclude: the file stays as it is; whoever wants the change makes it by hand.
    """


@dataclass(slots=True)
class _Edits:
    """Pieces of a text and what takes their place."""

    pieces: list[tuple[int, int, str]] = field(default_factory=list)

    def replace(self, begin: int, end: int, text: str) -> None:
        self.pieces.append((begin, end, text))

    def applied(self, text: str) -> str:
        kept: list[str] = []
        at = 0
        for begin, end, new in sorted(self.pieces, key=operator.itemgetter(0)):
            kept += (text[at:begin], new)
            at = max(at, end)
        return "".join([*kept, text[at:]])


def replaced(text: str, section: str, wanted: Mapping[str, Any], render: Render) -> str:
    """Return *text* with *wanted* as the content of ``[section]``.

    Args:
        text: TOML.
        section: the name of a table at the top of the file.
        wanted: what it is to say, in plain values of TOML. A table in it is written with a heading
            of its own.
        render: writes a value.

    Raises:
        SpliceError: that cannot be done without a change of something else.
    """
    before = tomllib.loads(text)
    if before.get(section, {}) == wanted:
        return text
    for change in (_Section.change, _Section.write_anew):
        try:
            after = change(_Section(text, section, render), before.get(section), wanted)
            if tomllib.loads(after) == {**before, section: wanted}:
                return after
        except (SpliceError, tomllib.TOMLDecodeError):
            continue
    raise SpliceError(f"[{section}] is written in a way that cannot be changed in place")


class _Section:
    def __init__(self, text: str, name: str, render: Render) -> None:
        self._newline = "\r\n" if "\r\n" in text else "\n"
        self._text = text if text.endswith("\n") or not text else text + self._newline
        self._path: KeyPath = (name,)
        self._render = render
        self._scan: Scan = scan(self._text)
        self._edits = _Edits()
        self._added: dict[KeyPath, list[str]] = {}
        self._new_tables: list[str] = []

    def change(self, old: Any, new: Mapping[str, Any]) -> str:
        """Change what differs; raises SpliceError."""
        if old is None:
            self._add(self._path, new)
        else:
            self._change(self._path, old, new)
        return self._applied()

    def write_anew(self, _: Any, new: Mapping[str, Any]) -> str:
        """Take the section out, and write it as a whole."""
        self._remove(self._path)
        self._add(self._path, new)
        return self._applied().lstrip("\r\n")

    def _update(self, path: KeyPath, old: Any, new: Any) -> None:
        """Have the table at *path* say *new*."""
        if not isinstance(old, dict) or not isinstance(new, Mapping):
            raise SpliceError(f"{'.'.join(map(str, path))} is no table")
        for name in {**old, **new}:
            below = (*path, name)
            if name not in new:
                self._remove(below)
            elif name not in old:
                self._add(below, new[name])
            elif old[name] != new[name]:
                self._change(below, old[name], new[name])

    def _applied(self) -> str:
        text, newline = self._text, self._newline
        for table, lines in self._added.items():
            at = self._end_of(table)
            self._edits.replace(at, at, "".join(f"{line}{newline}" for line in lines))
        if self._new_tables:
            at = self._end_of_section()
            before = newline if text[:at].strip() else ""
            after = newline if text[at:].partition("\n")[0].strip() else ""
            tables = (newline * 2).join(table.replace("\n", newline) for table in self._new_tables)
            self._edits.replace(at, at, f"{before}{tables}{newline}{after}")
        return self._edits.applied(text)

    def _statements(self, path: KeyPath) -> list[Statement]:
        return [one for one in self._scan.statements if one.path[: len(path)] == path]

    def _headings(self, path: KeyPath) -> list[tuple[KeyPath, int]]:
        return [one for one in self._scan.headings if one[0][: len(path)] == path]

    def _change(self, path: KeyPath, old: Any, new: Any) -> None:
        own = [one for one in self._scan.statements if one.path == path]
        if own and not isinstance(new, Mapping):
            self._edits.replace(own[0].value, own[0].end, self._render(new))
        elif own:
            inline = f"{{ {', '.join(self._pair(key, new[key]) for key in new)} }}" if new else "{}"
            self._edits.replace(own[0].value, own[0].end, inline)
        elif isinstance(old, dict) and isinstance(new, Mapping):
            self._update(path, old, new)
        else:
            self._remove(path)
            self._add(path, new)

    def _pair(self, name: str, value: Any) -> str:
        return f"{key_text(name)} = {self._render(value)}"

    def _remove(self, path: KeyPath) -> None:
        for one in self._statements(path):
            self._edits.replace(*self._lines(one.begin, one.end), "")
        for _, begin in self._headings(path):
            self._edits.replace(*self._lines(begin, begin), "")

    def _lines(self, begin: int, end: int) -> tuple[int, int]:
        """The whole lines from *begin* to *end*."""
        rest = _REST_OF_LINE.match(self._text, end)
        return self._text.rfind("\n", 0, begin) + 1, rest.end() if rest is not None else end

    def _add(self, path: KeyPath, value: Any) -> None:
        if isinstance(value, Mapping):
            self._new_tables.append(self._table(path, value))
        elif any(table == path[:-1] for table, _ in self._scan.headings):
            self._added.setdefault(path[:-1], []).append(self._pair(str(path[-1]), value))
        else:
            raise SpliceError(f"there is no heading {heading(path[:-1])}")

    def _table(self, path: KeyPath, content: Mapping[str, Any]) -> str:
        """A new table, with the tables in it."""
        plain = [
            self._pair(key, value)
            for key, value in content.items()
            if not isinstance(value, Mapping)
        ]
        inner = [
            self._table((*path, key), value)
            for key, value in content.items()
            if isinstance(value, Mapping)
        ]
        own = ["\n".join([heading(path), *plain])] if plain or not inner else []
        return "\n\n".join([*own, *inner])

    def _end_of(self, table: KeyPath) -> int:
        """Where a further line of a table belongs: behind its last one, before any comment."""
        last = max(
            [begin for path, begin in self._scan.headings if path == table]
            + [one.end for one in self._scan.statements if one.table == table]
        )
        return self._lines(last, last)[1]

    def _end_of_section(self) -> int:
        """Where a further table of the section belongs: behind its last line, or at the end."""
        offsets = [one.end for one in self._statements(self._path)]
        offsets += [begin for _, begin in self._headings(self._path)]
        return self._lines(max(offsets), max(offsets))[1] if offsets else len(self._text)
