"""How long ago something was seen, in words. Pure."""

from __future__ import annotations

from requiretls_milter.syntax.moments import seconds_of

JUST_NOW = 10.0
"""Seconds for which what was seen counts as seen now."""

_UNITS = ((86_400, "days"), (3_600, "h"), (60, "min"), (1, "s"))


def seconds_since(observed_at: str | None, now: float) -> float | None:
    """How many seconds ago a time (RFC 3339, UTC) was; None for none."""
    if observed_at is None:
        return None
    return max(0.0, now - seconds_of(observed_at))


def ago(observed_at: str | None, now: float) -> str:
    """Say how long ago something was seen, "" if it was not or if that was just now."""
    seconds = seconds_since(observed_at, now)
    if seconds is None or seconds < JUST_NOW:
        return ""
    unit, name = next(unit for unit in _UNITS if seconds >= 2 * unit[0] or unit[0] == 1)
    return f"{int(seconds // unit)} {name} ago"
