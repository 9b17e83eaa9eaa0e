"""Read the events of several logs in order of time.

A file's place is the time of its first line, whatever order the names are given in: a shell gives
``mail.log`` before ``mail.log.1``. Files are opened when their time has come and closed at their
end, so that of rotated files one is open at a time. Events of logs that overlap, such as those of
the milter and of Postfix, are merged by time. A log whose lines have no time comes before all
others: it should be the milter's.
"""

from __future__ import annotations

import heapq
import itertools
import re
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from requiretls_milter.reports.logs import sources
from requiretls_milter.reports.logs.events import Event, Logged, Other, event_of, time_of
from requiretls_milter.reports.logs.lines import Line, lines
from requiretls_milter.reports.logs.sources import LogError
from requiretls_milter.reports.logs.times import DAY, Times
from requiretls_milter.syntax.text import quoted, visible

MAX_OPEN = 100
"""Logs that are open at a time: so many may overlap. Each takes a descriptor and a buffer."""

MAX_HEAD = 1_000
"""Lines at the beginning of a log among which one with a time is looked for."""

MAX_QUOTED = 160
"""Characters of a line that is shown as an example."""

_ALWAYS = float("-inf")
"""The time of what has none."""

_EXACT = Times(0.0)
"""Reads only times that have a year."""

_HALF_YEAR = 183 * DAY

_ROTATION = re.compile(r"[.-](\d+)(?:\.[a-z0-9]+)?$")
"""The number or date that logrotate appends to a name."""

_SHORTEST_DATE = 6
"""Digits of a date; a number of rotation has fewer."""


_Timed = tuple[float, Event]


class _Next(NamedTuple):
    """The next event of a log that is open; of one log there is never more than one."""

    when: float
    rank: int
    number: int
    event: Event
    events: Iterator[_Timed]


class LogReader:
    """Reads logs, once.

    Args:
        logs: files in any order, :data:`~.sources.STDIN`, :data:`~.sources.JOURNAL`,
            :data:`~.sources.MAIL_JOURNAL`.
        days: how far back to read the journal.
        now: the time, in seconds since the epoch.
    """

    def __init__(self, logs: Sequence[str], days: int, now: float | None = None) -> None:
        self._logs = tuple(dict.fromkeys(logs))
        self._days = days
        self._now = time.time() if now is None else now
        self._first: dict[str, bytes] = {}
        self._understood: set[str] = set()

    def events(self) -> Iterator[Event]:
        """All events that a report needs, in order of time as far as they have one.

        Raises:
            LogError: a log cannot be read.
        """
        times, heads = self._heads()
        waiting = sorted(
            range(len(self._logs)),
            key=lambda number: (heads[number], _rotation(self._logs[number]), number),
            reverse=True,
        )
        heap: list[_Next] = []

        def push(number: int, events: Iterator[_Timed]) -> None:
            for when, event in events:
                # What was forecast comes before what was done in the same second.
                rank = 0 if isinstance(event.what, Logged) else 1
                heapq.heappush(heap, _Next(when, rank, number, event, events))
                return

        while waiting or heap:
            while waiting and _is_due(heads[waiting[-1]], heap):
                if len(heap) >= MAX_OPEN:
                    raise LogError(f"more than {MAX_OPEN} logs overlap in time")
                number = waiting.pop()
                push(number, self._events(self._logs[number], times, heads[number]))
            if heap:
                first = heapq.heappop(heap)
                yield first.event
                push(first.number, first.events)

    @property
    def is_understood(self) -> bool:
        """Whether a line of the milter or of Postfix was found in any log."""
        return bool(self._understood)

    def not_understood(self) -> list[str]:
        """A sentence for each log with lines, of which none was understood."""
        return [
            f"{visible(log)}: no line of the milter or of Postfix was found; the first line is "
            + quoted(first.decode("utf-8", "backslashreplace"), MAX_QUOTED)
            for log, first in self._first.items()
            if log not in self._understood
        ]

    def nothing_understood(self) -> list[str]:
        """What to tell an operator if no log was understood."""
        return self.not_understood() or [
            f"{', '.join(visible(log) for log in self._logs)}: there is no line to read"
        ]

    def _heads(self) -> tuple[Times, list[float]]:
        """How to read times, and when each log begins.

        If one log tells the year, those that do not are of about the same time.
        """
        latest = self._now + DAY
        first = [self._first_with_time(log, Times(latest)) for log in self._logs]
        exact = [found for line in first if line and (found := time_of(line, _EXACT)) is not None]
        times = Times(min(latest, max(exact) + _HALF_YEAR) if exact else latest)
        heads = [time_of(line, times) if line else None for line in first]
        return times, [_ALWAYS if head is None else head for head in heads]

    def _first_with_time(self, log: str, times: Times) -> Line | None:
        if not sources.can_reopen(log):
            return None
        with sources.opened(log, self._days) as stream:
            for line in itertools.islice(lines(stream), MAX_HEAD):
                if time_of(line, times) is not None:
                    return line
        return None

    def _events(self, log: str, times: Times, latest: float) -> Iterator[_Timed]:
        """The events of one log, each with its time or, if it has none, that of the one before."""
        with sources.opened(log, self._days) as stream:
            for line in lines(stream):
                if log not in self._understood:
                    if line.text.strip():
                        self._first.setdefault(log, line.text)
                    event = event_of(line, times, any_line=True)
                    if event is not None:
                        self._understood.add(log)
                else:
                    event = event_of(line, times)
                if event is None or isinstance(event.what, Other):
                    continue
                if event.time is not None:
                    latest = event.time
                yield latest, event


def _is_due(head: float, heap: Sequence[_Next]) -> bool:
    """Whether a log that begins at *head* has to be opened now."""
    if not heap:
        return True
    # Logs without times are read one after the other.
    return head <= heap[0].when and not head == heap[0].when == _ALWAYS


def _rotation(log: str) -> tuple[int, int]:
    """The place of a log without times among others: mail.log.2, mail.log.1, mail.log."""
    match = _ROTATION.search(log)
    if match is None:
        return (1, 0)
    number = int(match[1])
    return (0, number if len(match[1]) >= _SHORTEST_DATE else -number)
