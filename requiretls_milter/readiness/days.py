"""The history of reports: the figures of one report for each day, for each source. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from requiretls_milter.syntax.strict import StrictModel

MAX_DAYS = 400
"""Days that are kept of each source: a year can be compared with the one before."""

MAX_COUNT = (1 << 53) - 1
"""The largest number that JSON keeps exactly."""


class MailSource(enum.StrEnum):
    """Where it is known from that mail goes to a next hop."""

    LOG = "log"  # of the milter or of Postfix: each recipient counts
    LIST = "list"  # a file: each next hop counts, how much mail it gets is not known
    COUNTERS = "counters"  # of the running service: mail that asked, by configured domain


_Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]


class Day(StrictModel):
    """The figures of the last report of a day.

    Attributes:
        day: such as ``2026-11-29``, in UTC.
        mail, domains: recipients and next hops, all of them.
        mail_ready, domains_ready: those that would be delivered with REQUIRETLS.
    """

    day: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
    mail: _Count
    mail_ready: _Count
    domains: _Count
    domains_ready: _Count


class Days(StrictModel):
    """The history of one source as it is stored, the oldest day first."""

    v: Annotated[int, Field(ge=1, le=1)] = 1
    days: Annotated[tuple[Day, ...], Field(max_length=MAX_DAYS)] = ()

    def with_day(self, day: Day) -> Days:
        """Put *day* in the place of an earlier report of the same day; the oldest day goes."""
        others = (one for one in self.days if one.day != day.day)
        return Days(days=in_order((*others, day))[-MAX_DAYS:])


def in_order(days: Iterable[Day]) -> tuple[Day, ...]:
    """The oldest first."""
    return tuple(sorted(days, key=lambda one: one.day))
