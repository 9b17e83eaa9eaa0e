"""docs/doctor.md explains each word that a finding may carry, and what is tested by default."""

from __future__ import annotations

import re

import pytest

from requiretls_milter.doctor.calling import DEFAULT_ACTIONS
from requiretls_milter.evidence.selftest import BOGUS_NAMES, INSECURE_NAMES
from tests.support.paths import REPOSITORY

PAGE = (REPOSITORY / "docs" / "doctor.md").read_text(encoding="utf-8")
CODE = "".join(
    path.read_text() for path in (REPOSITORY / "requiretls_milter" / "doctor").glob("*.py")
)


def test_each_check_is_in_the_table_and_no_other() -> None:
    raised = set(re.findall(r'\b(?:ok|warning|error|_tested)\(\s*"(\w+)"', CODE))
    raised |= {"command_timeout", "content_timeout"}  # from a loop
    listed = re.findall(r"^\| `(\w+)` \| [^|]*\?", PAGE, re.MULTILINE)
    assert raised | {"configuration"} == set(listed) | {"configuration"}
    assert "| `configuration` |" in PAGE


@pytest.mark.parametrize("action", DEFAULT_ACTIONS)
def test_each_default_action_is_explained(action: str) -> None:
    (row,) = re.findall(rf"^\| `{action}`.*$", PAGE, re.MULTILINE)
    for code in re.findall(r"\b[45]\d\d\b", DEFAULT_ACTIONS[action]):
        assert code in row


@pytest.mark.parametrize("name", [*BOGUS_NAMES, *INSECURE_NAMES])
def test_each_name_that_is_asked_for_by_default_is_told(name: str) -> None:
    assert f"`{name}`" in PAGE
