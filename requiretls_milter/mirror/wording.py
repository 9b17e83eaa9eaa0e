"""How values of Postfix are quoted in a warning or a comment. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from requiretls_milter.syntax.secrecy import without_secrets
from requiretls_milter.syntax.text import escape, escaped

MAX_SHOWN = 120
"""Characters of a value that are shown: one or two lines of a comment."""

MAX_NAME = 60
"""Characters of a name that are shown."""

MAX_NAMED = 5
"""Names that a warning gives as examples."""


def shown(value: str) -> str:
    """Return a value as it may stand in a comment: one bounded line of ASCII (R62)."""
    return escaped(" ".join(without_secrets(value).split()), MAX_SHOWN)


def examples(names: Iterable[str]) -> str:
    """List the first of many names as they may stand in a comment, and how many more there are."""
    listed = [escape(without_secrets(name))[:MAX_NAME] for name in names]
    more = len(listed) - MAX_NAMED
    first = ", ".join(listed[:MAX_NAMED])
    return f"{first} and {more} more" if more > 0 else first
