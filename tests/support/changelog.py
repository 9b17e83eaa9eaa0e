"""What CHANGELOG.md says of releases."""

from __future__ import annotations

import re

from tests.support.paths import REPOSITORY


def released() -> str:
    """The date of the newest release, ISO 8601."""
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(r"^## \[[0-9][^]]*\] - (\d{4}-\d{2}-\d{2})$", text, re.MULTILINE)
    assert found is not None
    return found[1]
