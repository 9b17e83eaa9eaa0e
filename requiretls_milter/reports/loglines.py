"""The milter's own log lines, read back. Pure.

Either format of :mod:`requiretls_milter.telemetry.log`, behind whatever a journal or syslog writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

MAX_LINE = 16_384
"""Characters of a log line that is looked at; our own are shorter."""

_PAIR = re.compile(r'([A-Za-z_]+)=(?:"((?:[^"\\]|\\.)*)"|(\S*))')
_ESCAPED = re.compile(r"\\(.)")


def recipient(line: str) -> Mapping[str, str] | None:
    """The fields of an ``event=recipient`` line; None where it is none, or too long."""
    if len(line) > MAX_LINE or "recipient" not in line:
        return None
    fields = _fields(line)
    return fields if fields.get("event") == "recipient" else None


def _fields(line: str) -> Mapping[str, str]:
    """The fields of a line; what stands before them (a journal's own prefix) does no harm."""
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
