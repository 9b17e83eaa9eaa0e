"""docs/mta-import.md has the source of each key; docs/postfix-parameters.md has every parameter."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from requiretls_milter.config import Mta
from requiretls_milter.mirror import manual
from requiretls_milter.mirror.parameters import MIRRORED, accounted
from tests.support.paths import REPOSITORY

PAGE = (REPOSITORY / "docs" / "mta-import.md").read_text(encoding="utf-8")
PARAMETERS = (REPOSITORY / "docs" / "postfix-parameters.md").read_text(encoding="utf-8")


def test_the_page_of_parameters_is_current() -> None:
    """``make docs`` writes it."""
    assert manual.page() == PARAMETERS


def test_the_page_of_parameters_has_each_once() -> None:
    reasons = ("**", "As the")
    lines = [line for line in PARAMETERS.splitlines() if not line.startswith(reasons)]
    named = Counter(name for line in lines for name in re.findall(r"(?:^|, |\| )`(\w+)`", line))
    for name in accounted():
        assert named[name] == 1 + list(MIRRORED.values()).count(name), name


@pytest.mark.parametrize("key", [key for key in Mta.model_fields if key != "profile"])
def test_each_key_that_is_mirrored_has_its_source(key: str) -> None:
    assert f"`{key}" in PAGE
