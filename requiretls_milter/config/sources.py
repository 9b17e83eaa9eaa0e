"""The files that a configuration is made of: the main file, included ones, lists of domains.

``include`` stands at the top of the main file and names further files, by name or by pattern.
Their tables are put together as if all stood in one file: a table may be spread over several
files, a key stands in one of them only.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from requiretls_milter.config.domainlist import (
    MAX_DOMAINS,
    MAX_LIST_BYTES,
    DomainList,
    Lines,
    read_lines,
)
from requiretls_milter.config.mistakes import INCLUDE, ConfigError, Mistake
from requiretls_milter.config.places import MAX_DEPTH, KeyPath, Place, scan
from requiretls_milter.config.reading import ConfigReader, is_pattern
from requiretls_milter.config.repair import syntax_mistake
from requiretls_milter.config.values import given
from requiretls_milter.syntax.text import quoted

MAX_FILE_BYTES = 1024 * 1024
"""Bytes of one file: beyond it the path is wrong (a log, a device)."""

MAX_TOTAL_BYTES = 4 * 1024 * 1024
"""Bytes of all files together, without lists of domains."""

MAX_FILES = 100
"""Included files."""

MAX_ENTRIES = 100
"""Entries of ``include``."""

MAX_PATH = 4096
"""Characters of a path or pattern, as PATH_MAX of Linux."""

LISTS = ("rules", "list")
"""The table with the lists of domains."""

_DOMAINS_FILE = "domains_file"


@dataclass(frozen=True)
class SourceFile:
    """One file of TOML; :attr:`places` are found only when they are needed."""

    path: Path
    text: str
    raw: Mapping[str, Any]

    @functools.cached_property
    def places(self) -> Mapping[KeyPath, Place]:
        """Where each key stands."""
        return scan(self.text).places(self.path)


@dataclass(slots=True)
class ListFile:
    """A text file with domains, and the list that names it."""

    name: str
    path: Path
    lines: Lines


@dataclass(slots=True)
class Sources:
    """All files of one configuration.

    Attributes:
        raw: what they say together, as TOML has it; lists of domains are read.
        files: the main one first.
        lists: of domains.
        mistakes: found on the way.
        warnings: what is allowed, but probably not meant.
        is_whole: every file that is included was read; otherwise keys may be missing.
    """

    raw: dict[str, Any] = field(default_factory=dict)
    files: list[SourceFile] = field(default_factory=list)
    lists: list[ListFile] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    is_whole: bool = True

    def place(self, path: KeyPath) -> Place:
        """Where a key stands, or else the table in which it would stand."""
        for length in range(len(path), 0, -1):
            for file in self.files:
                if path[:length] in file.places:
                    return file.places[path[:length]]
        return Place(self.files[0].path)

    def places(self) -> Mapping[KeyPath, Place]:
        """The first place of each key of any file."""
        found: dict[KeyPath, Place] = {}
        for file in reversed(self.files):
            found |= file.places
        return found

    def file_of(self, path: KeyPath) -> Path | None:
        """The file in which a key stands; None if it stands in none."""
        having = (file for file in self.files if path[0] in file.raw)
        return next((file.path for file in having if path in file.places), None)


def read_sources(reading: ConfigReader, main: Path, content: bytes) -> Sources:
    """Put together what the files say.

    Args:
        reading: reads further files.
        main: the path of the main file.
        content: what it holds.

    Raises:
        ConfigError: the main file is not TOML. That a further one cannot be used is one of
            :attr:`Sources.mistakes`.
    """
    sources = Sources()
    sources.files.append(_parsed(main, content))
    sources.raw = dict(sources.files[0].raw)
    if INCLUDE in sources.raw:
        entries = sources.raw.pop(INCLUDE)
        _include(sources, reading, main, entries, len(content))
        sources.is_whole = not sources.mistakes
    _read_lists(sources, reading)
    return sources


def read_whole(reading: ConfigReader, main: Path, content: bytes) -> Sources:
    """As :func:`read_sources`, for those who need every file.

    Raises:
        ConfigError: a file cannot be read, or is not TOML; all such mistakes are told.
    """
    sources = read_sources(reading, main, content)
    if not sources.is_whole:
        raise ConfigError(tuple(map(str, sources.mistakes)))
    return sources


def toml_of(content: bytes, path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a file, and what it says as TOML.

    Raises:
        ConfigError: it is not TOML.
    """
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError((f"{path}: larger than {MAX_FILE_BYTES} bytes",))
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        place = Place(path, line, column)
        raise ConfigError((f"{place}: line {line} is not UTF-8, which TOML has to be",)) from None
    if text.startswith("\N{BYTE ORDER MARK}"):
        raise ConfigError(
            (f"{Place(path, 1, 1)}: begins with a byte order mark: save it without one",)
        )
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line, column, why = syntax_mistake(text.replace("\r\n", "\n"), error)
        raise ConfigError((f"{Place(path, line, column)}: {why}",)) from None
    except RecursionError:
        raise ConfigError((f"{path}: not valid TOML: nested too deeply",)) from None


def _parsed(path: Path, content: bytes) -> SourceFile:
    return SourceFile(path, *toml_of(content, path))


# ---------------------------------------------------------------- include


def _include(
    sources: Sources, reading: ConfigReader, main: Path, entries: object, total: int
) -> None:
    """Read the included files, and add what they say."""
    mistakes = sources.mistakes
    included: dict[Path, KeyPath] = {}
    for path, file in _included(sources, reading, main, entries):
        included.setdefault(file, path)
    if len(included) > MAX_FILES:
        mistakes.append(
            Mistake(
                (INCLUDE,),
                f"names {len(included)} files: at most {MAX_FILES}",
                sources.place((INCLUDE,)),
            )
        )
        return
    for file, path in included.items():
        where = sources.place(path)
        try:
            content = reading.regular_file(file, MAX_FILE_BYTES)
        except OSError as error:
            why = f"{file} cannot be read: {error.strerror or error}"
            mistakes.append(Mistake(path, why, where))
            continue
        total += len(content)
        if total > MAX_TOTAL_BYTES:
            why = f"with {file} all files have more than {MAX_TOTAL_BYTES} bytes"
            mistakes.append(Mistake(path, why, where))
            return
        try:
            parsed = _parsed(file, content)
        except ConfigError as error:
            mistakes += (Mistake((), text) for text in error.mistakes)  # with their places
            continue
        if INCLUDE in parsed.raw:
            mistakes.append(
                Mistake(
                    (INCLUDE,),
                    f"an included file includes no others: name them all in {main}",
                    parsed.places.get((INCLUDE,)),
                )
            )
            continue
        sources.files.append(parsed)
        _merge(sources, parsed, sources.raw, parsed.raw, ())


def _included(
    sources: Sources, reading: ConfigReader, main: Path, entries: object
) -> Iterator[tuple[KeyPath, Path]]:
    """Yield each entry's place in the list with a file that it names."""
    if not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
        what = given(entries) if not isinstance(entries, list) else f"{len(entries)} entries"
        hint = f"; write {INCLUDE} = [{quoted(entries)}]" if isinstance(entries, str) else ""
        sources.mistakes.append(
            Mistake(
                (INCLUDE,),
                f"expected a list of at most {MAX_ENTRIES} files, got {what}{hint}",
                sources.place((INCLUDE,)),
            )
        )
        return
    for number, entry in enumerate(entries):
        path: KeyPath = (INCLUDE, number)
        try:
            for file in _files_of(sources, reading, main, entry, path):
                if _is_same(file, main):
                    raise ValueError(
                        f"{quoted(entry)} matches this file itself: put included files into a "
                        'directory of their own, such as "conf.d/*.toml"'
                    )
                yield path, file
        except ValueError as error:
            sources.mistakes.append(Mistake(path, str(error), sources.place(path)))


def _files_of(
    sources: Sources, reading: ConfigReader, main: Path, entry: object, path: KeyPath
) -> tuple[Path, ...]:
    if not _is_path(entry):
        raise ValueError(f"expected the name of a file, or a pattern, got {given(entry)}")
    if not is_pattern(str(entry)):
        return (main.parent / str(entry),)
    if "**" in str(entry):
        raise ValueError(f'{quoted(str(entry))}: "**" is not known: name each directory')
    try:
        found = reading.matching(main.parent, str(entry))
    except OSError as error:
        raise ValueError(
            f"{error.filename or main.parent} cannot be listed: {error.strerror}"
        ) from None
    directory = (main.parent / str(entry)).parent
    if not found and not is_pattern(str(directory)) and not directory.is_dir():
        sources.warnings.append(
            f"{sources.place(path)}: {path[0]}[{path[1]}]: there is no directory {directory}, so "
            "that nothing is included"
        )
    return found


def _is_path(entry: object) -> bool:
    return isinstance(entry, str) and 0 < len(entry) <= MAX_PATH and "\0" not in entry


def _is_same(file: Path, main: Path) -> bool:
    try:
        return file.samefile(main)
    except OSError:
        return False


def _merge(
    sources: Sources,
    file: SourceFile,
    into: dict[str, Any],
    new: Mapping[str, Any],
    above: KeyPath,
) -> None:
    """Add what *file* says below *above*; a key that is there already is a mistake."""
    for key, value in new.items():
        path = (*above, key)
        if key not in into:
            into[key] = value
        elif isinstance(into[key], dict) and isinstance(value, dict) and len(path) < MAX_DEPTH:
            into[key] = dict(into[key])
            _merge(sources, file, into[key], value, path)
        else:
            others = [other for other in sources.files if other is not file]
            first = next((o.places[path] for o in others if path in o.places), None)
            where = f" at {first}" if first is not None else ""
            sources.mistakes.append(
                Mistake(path, f"stands{where} already: keep one of the two", file.places.get(path))
            )


# ---------------------------------------------------------------- lists of domains


def _read_lists(sources: Sources, reading: ConfigReader) -> None:
    """Put the domains of each list in the place of its file's name."""
    tables: Any = sources.raw
    for step in LISTS:
        tables = tables.get(step) if isinstance(tables, dict) else None
    if not isinstance(tables, dict):
        return
    total = 0
    for name, table in tables.items():
        if not isinstance(table, dict) or _DOMAINS_FILE not in table:
            continue
        path: KeyPath = (*LISTS, name, _DOMAINS_FILE)
        where = sources.place(path)
        try:
            lines, file = _list_of(sources, reading, where, table[_DOMAINS_FILE])
        except ValueError as error:
            sources.mistakes.append(Mistake(path, str(error), where))
            table[_DOMAINS_FILE] = DomainList("", ())
            continue
        sources.lists.append(ListFile(name, file, lines))
        sources.mistakes += _wrong_lines(file, lines)
        total += len(lines.domains)
        if total > MAX_DOMAINS:
            why = f"{total} domains in all lists together: at most {MAX_DOMAINS}"
            sources.mistakes.append(Mistake(path, why, where))
        if lines.repeated:
            has = "line has" if lines.repeated == 1 else "lines have"
            sources.warnings.append(
                f"{file}: {lines.repeated} {has} a domain that stands on an earlier line too"
            )
        if lines.dotless:
            sources.warnings.append(
                f"{Place(file, lines.domains[lines.dotless], 1)}: {quoted(lines.dotless)} has no "
                "dot: is it the heading of a column?"
            )
        table[_DOMAINS_FILE] = DomainList(str(file), tuple(lines.domains))


def _list_of(
    sources: Sources, reading: ConfigReader, where: Place, written: object
) -> tuple[Lines, Path]:
    if not _is_path(written):
        raise ValueError(f"expected the name of a text file, got {given(written)}")
    file = where.file.parent / str(written)
    try:
        content = reading.regular_file(file, MAX_LIST_BYTES)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror or error}") from None
    if len(content) > MAX_LIST_BYTES:
        raise ValueError(f"{file} is larger than {MAX_LIST_BYTES} bytes")
    return read_lines(content), file.absolute()


def _wrong_lines(file: Path, lines: Lines) -> Iterator[Mistake]:
    for line, why in lines.mistakes:
        yield Mistake((), why, Place(file, line, 1))
    if more := lines.wrong - len(lines.mistakes):
        hint = "requiretls-milter config domains FILE tells each, and writes a clean list"
        yield Mistake((), f"{more} more lines are not domain names; {hint}", Place(file))
