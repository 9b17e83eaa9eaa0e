"""docs/mta-import.md names everything that is mirrored, and everything that is not."""

from __future__ import annotations

import pytest

from requiretls_milter.config import Mta
from requiretls_milter.mirror.unmirrored import CLIENT, GLOBAL, Unmirrored
from tests.support.paths import REPOSITORY

PAGE = (REPOSITORY / "docs" / "mta-import.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("parameter", [*GLOBAL, *CLIENT], ids=lambda one: one.name)
def test_each_setting_that_is_not_mirrored_is_explained(parameter: Unmirrored) -> None:
    assert f"| `{parameter.name}` |" in PAGE
    assert f"| {parameter.why} |" in PAGE


@pytest.mark.parametrize("key", [key for key in Mta.model_fields if key != "profile"])
def test_each_key_that_is_mirrored_has_its_source(key: str) -> None:
    assert f"`{key}" in PAGE
