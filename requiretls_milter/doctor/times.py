"""Times in the configuration of the two MTAs: a number with a unit, such as ``30s`` or ``5m``."""

from __future__ import annotations

import re

_OF_POSTFIX = re.compile(r"\s*([0-9]+)\s*([smhdw]?)\s*", re.IGNORECASE)
_OF_SENDMAIL = re.compile(r"([0-9]+)\s*([smhdw]?)[a-z]*", re.IGNORECASE)
_SECONDS_IN = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def postfix_seconds(text: str) -> int | None:
    """Read a time limit of Postfix for milters, in seconds without a unit; None if it is none."""
    return _seconds(_OF_POSTFIX.fullmatch(text))


def sendmail_seconds(text: str) -> int | None:
    """Read one of Sendmail, whose unit may be a word (``5minutes``)."""
    return _seconds(_OF_SENDMAIL.fullmatch(text))


def _seconds(match: re.Match[str] | None) -> int | None:
    return int(match[1]) * _SECONDS_IN[match[2].lower()] if match else None
