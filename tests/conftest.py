"""What all tests share: rule numbers that exist, and property tests that repeat in CI."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

LAST_RULE = 63
"""The semantic rules are R1 to R63."""

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")


@pytest.fixture(autouse=True)
def logging_as_at_the_start() -> Iterator[None]:
    """No test hears less because an earlier one told the log to be quiet."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("rule"):
            if not (mark.args and all(1 <= number <= LAST_RULE for number in mark.args)):
                raise pytest.UsageError(f"{item.nodeid}: no such rule: {mark.args}")
