"""Parse the milter's own log lines. Pure.

Both formats of :mod:`requiretls_milter.telemetry.log` are understood, after whatever prefix the
journal or syslog puts before a line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

MAX_LINE = 16_384
"""Characters of a line that is parsed; the milter's own are shorter."""

_PAIR = re.compile(r'([A-Za-z_]+)=(?:"((?:[^"\\]|\\.)*)"|(\S*))')
_ESCAPED = re.compile(r"\\(.)")


def recipient_fields(line: str) -> Mapping[str, str] | None:
    """Return the fields of an ``event=recipient`` line, or None for any other line."""
    if len(line) > MAX_LINE or "recipient" not in line:
        return None
    fields = _fields(line)
    return fields if fields.get("event") == "recipient" else None


def _fields(line: str) -> Mapping[str, str]:
    """Return the fields of a line in either format; a prefix is skipped."""
    start = line.find("{")
    if start >= 0 and line.rstrip().endswith("}"):
        try:
            found = json.loads(line[start:])
        except (ValueError, RecursionError):
            return {}
        if not isinstance(found, dict):
            return {}
        return {str(key): "" if value is None else str(value) for key, value in found.items()}
    return {
        match[1]: match[3] if match[2] is None else _ESCAPED.sub(r"\1", match[2])
        for match in _PAIR.finditer(line)
    }
