"""Times as JSON and people have them: RFC 3339, in UTC, to the second."""

from __future__ import annotations

from datetime import UTC, datetime

_FORM = "%Y-%m-%dT%H:%M:%SZ"


def moment(seconds: float) -> str:
    """Write a time, in seconds since the epoch."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime(_FORM)


def moment_if_any(seconds: float | None) -> str | None:
    """The same; None for 0, which stands for no time, as None does."""
    return moment(seconds) if seconds else None


def day(seconds: float) -> str:
    """Write the day of a time."""
    return moment(seconds).partition("T")[0]


def seconds_of(text: str) -> float:
    """Read a time that :func:`moment` has written.

    Raises:
        ValueError: it is none.
    """
    return datetime.strptime(text, _FORM).replace(tzinfo=UTC).timestamp()
