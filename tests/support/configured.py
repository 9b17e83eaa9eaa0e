"""A configuration from the text of its file, or the mistakes in it."""

from __future__ import annotations

import pytest

from requiretls_milter.config import Config, ConfigError, parse
from tests.support.mistakes import without_place


def configured(text: str) -> Config:
    """Read *text* as a file of the name "test" would be read.

    Raises:
        ConfigError: it has mistakes.
    """
    return parse(text.encode(), "test")


def mistakes_in(text: str) -> tuple[str, ...]:
    """The mistakes of a text that is no configuration, without the place of each."""
    with pytest.raises(ConfigError) as caught:
        configured(text)
    return tuple(map(without_place, caught.value.mistakes))
