"""A configuration from the text of its file."""

from __future__ import annotations

from requiretls_milter.config import Config, parse


def configured(text: str) -> Config:
    """Read *text* as a file of the name "test" would be read.

    Raises:
        ConfigError: it has mistakes.
    """
    return parse(text.encode(), "test")
