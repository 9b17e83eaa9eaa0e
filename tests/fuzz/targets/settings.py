"""The configuration file."""

from __future__ import annotations

from unittest import mock

from requiretls_milter import config
from requiretls_milter.config import loading
from requiretls_milter.config.text import render
from tests.fuzz import expect

MAX_MISTAKE = 1000
"""Characters of what is said of one mistake."""


def configuration(data: bytes) -> None:
    """A configuration file."""
    # No input names a file of this machine, such as one that never ends.
    with mock.patch.object(loading, "_read", _no_file):
        try:
            found = config.parse(data, "config.toml")
        except config.ConfigError as error:
            _check(error.mistakes)
            return
        for warning in config.warnings(found):
            expect.one_line(warning, MAX_MISTAKE)
        again = config.parse(render(found).encode(), "config.toml")
        assert again.model_dump() == found.model_dump()  # keys that went are not written


def _check(mistakes: tuple[str, ...]) -> None:
    assert mistakes
    for mistake in mistakes:
        expect.one_line(mistake, MAX_MISTAKE)


def _no_file(*_: object) -> bytes:
    raise FileNotFoundError(2, "No such file or directory")
