"""Read the time that stands before a log line, in whatever form it is written.

Forms: ISO 8601 and its relatives (RFC 5424, journald, containers), RFC 3164 (without year and
zone), seconds since the epoch. A time without a zone is local time; a year that is missing is the
latest one that does not lie in the future.
"""

from __future__ import annotations

import calendar
import functools
import re
import time

DAY = 86_400.0

_MONTHS = {name: number for number, name in enumerate(calendar.month_abbr) if name}

_ISO = re.compile(
    r"(?<!\d)(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9})\d*)?"
    r"(?: ?(Z|UTC|GMT|[+-]\d\d:?\d\d)(?![\w:]))?"
)
_MONTH = re.compile(
    r"\b(?:(\d{4}) )?(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +(\d{1,2}) "
    r"(?:(\d{4}) )?(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?"
)
_EPOCH = re.compile(r"(?:^|(?<=[\[ ]))(\d{10}|\d{13}|\d{16}|\d{19})(?:\.(\d{1,9}))?(?=[\] ]|$)")

_SEARCHED = 256
"""Characters at the beginning of a line among which its time stands."""


class Times:
    """Reads times.

    Args:
        latest: seconds since the epoch after which no time lies that has no year.
    """

    def __init__(self, latest: float) -> None:
        self._latest = latest

    def of(self, text: str) -> float | None:
        """The time at the beginning of *text*, in seconds since the epoch."""
        exact = self.exact(text)
        return exact if exact is not None else self.without_year(text)

    def exact(self, text: str) -> float | None:
        """The time at the beginning of *text* if its year is told."""
        text = text[:_SEARCHED]
        if (iso := _ISO.search(text)) is not None:
            whole = _seconds(*(int(part) for part in iso.groups()[:6]), iso[8] or "")
            return None if whole is None else whole + _fraction(iso[7])
        if (epoch := _EPOCH.search(text)) is not None:
            return from_number(float(f"{epoch[1]}.{epoch[2] or 0}"))
        return None

    def without_year(self, text: str) -> float | None:
        """The time at the beginning of *text* as RFC 3164 has it."""
        match = _MONTH.search(text[:_SEARCHED])
        if match is None:
            return None
        whole = _month(match[0].partition(".")[0], self._latest)
        return None if whole is None else whole + _fraction(match[8])


@functools.lru_cache(maxsize=256)
def _month(text: str, latest: float) -> float | None:
    """Seconds since the epoch of what :data:`_MONTH` matches, without a fraction."""
    match = _MONTH.fullmatch(text)
    if match is None:
        return None
    day, hour, minute, second = (int(match[group]) for group in (3, 5, 6, 7))
    month, told = _MONTHS[match[2]], match[1] or match[4]
    if told:
        return _seconds(int(told), month, day, hour, minute, second, "")
    following = time.gmtime(latest).tm_year + 1
    for year in range(following, following - 10, -1):  # 29 February may be 8 years ago
        found = _seconds(year, month, day, hour, minute, second, "")
        if found is not None and found <= latest:
            return found
    return None


def from_number(number: float) -> float | None:
    """Seconds since the epoch of a number that may be of milli-, micro- or nanoseconds."""
    for _ in range(4):
        if 1e9 <= number < 1e11:
            return number
        number /= 1000
    return None


def _fraction(digits: str | None) -> float:
    return float(f"0.{digits}") if digits else 0.0


@functools.lru_cache(maxsize=256)
def _seconds(
    year: int, month: int, day: int, hour: int, minute: int, second: int, zone: str
) -> float | None:
    """Seconds since the epoch; None of a date that there is not. *zone* "" is local time."""
    if not (1970 <= year <= 9999 and 1 <= month <= 12 and hour < 24 and minute < 60):
        return None
    if not 1 <= day <= calendar.monthrange(year, month)[1] or second > 60:
        return None
    if not zone:
        try:
            return time.mktime((year, month, day, hour, minute, second, 0, 0, -1))
        except OverflowError:
            return None
    offset = 0
    if zone[0] in "+-":
        hours, minutes = int(zone[1:3]), int(zone[-2:])
        offset = (hours * 3600 + minutes * 60) * (1 if zone[0] == "+" else -1)
    return calendar.timegm((year, month, day, hour, minute, second)) - float(offset)
