"""What the output of a parser must be like, whatever its input was."""

from __future__ import annotations


def one_line(text: str, limit: int) -> None:
    """Text that may stand in a reply, a header field or a log line (R62)."""
    assert len(text) <= limit, f"{len(text)} characters, at most {limit}"
    assert all(" " <= character <= "~" for character in text), f"not printable: {text[:200]!a}"
