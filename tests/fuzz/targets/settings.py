"""The configuration: its files, and lists of domains."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

from requiretls_milter import config
from requiretls_milter.config import checks, reading
from requiretls_milter.config.domainlist import read_lines
from requiretls_milter.config.patterns import domain_pattern
from requiretls_milter.config.text import render
from tests.fuzz import expect

MAX_MISTAKE = 1000
"""Characters of what is said of one mistake."""

BETWEEN_FILES = b"\0"
"""Behind it stands what an included file, or a list of domains, holds."""

MAIN, OTHER = Path("config.toml"), Path("other")


def configuration(data: bytes) -> None:
    """A configuration file, and one that it may include as "*" or as "other"."""
    main, _, other = data.partition(BETWEEN_FILES)
    # No input names a file of this machine, such as one that never ends.
    with (
        mock.patch.object(checks, "_read", _no_file),
        mock.patch.object(reading.ConfigReader, "_read", _or_no_file),
        mock.patch.object(reading, "matching", _one_file),
    ):
        files = {MAIN: main, OTHER: other}
        try:
            found = config.load(MAIN, files)
        except config.ConfigError as error:
            _check(error.mistakes)
            return
        for warning in config.warnings(found):
            expect.one_line(warning, MAX_MISTAKE)
        files = {MAIN: render(found).encode(), OTHER.absolute(): other}
        again = config.load(MAIN, files)
        assert again.model_dump() == found.model_dump()  # keys that went are not written


def domain_list(data: bytes) -> None:
    """A text file with domains."""
    found = read_lines(data)
    lines = data.count(b"\n") + 1
    assert len(found.domains) + found.repeated + found.wrong <= lines
    assert len(found.mistakes) <= found.wrong
    for line, why in found.mistakes:
        assert 1 <= line <= lines
        expect.one_line(why, MAX_MISTAKE)
    for domain in found.domains:
        assert domain_pattern(domain) == domain
        expect.one_line(domain, MAX_MISTAKE)


def _check(mistakes: tuple[str, ...]) -> None:
    assert mistakes
    for mistake in mistakes:
        expect.one_line(mistake, MAX_MISTAKE)


def _no_file(*_: object) -> bytes:
    raise FileNotFoundError(2, "No such file or directory")


_read = reading.ConfigReader._read


def _or_no_file(
    self: reading.ConfigReader, path: Path, limit: int, flags: int, *, only_regular: bool
) -> bytes:
    if path not in self.instead:
        return _no_file()
    return _read(self, path, limit, flags, only_regular=only_regular)


def _one_file(directory: Path, _: str) -> tuple[Path, ...]:
    return (directory / OTHER,)
