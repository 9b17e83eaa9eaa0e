"""The history of reports, in the store: one record for each source, of at most so many days.

The engine makes the figures of what its counters say, once an hour. The command ``report`` makes
those of a log or a list; only the engine may open its store, so the command hands them to it. Each
host of a fleet has mail of its own, and so a history of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from requiretls_milter.clocks import SYSTEM_CLOCKS, Clocks
from requiretls_milter.engine.records import RecordError
from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.ipc.wire import MAX_NAME
from requiretls_milter.readiness.days import Day, Days, MailSource
from requiretls_milter.store.base import LONGEST, StoreKind
from requiretls_milter.syntax.strict import decoded
from requiretls_milter.telemetry.counting import CounterTotal

MAX_MAIL = 2_500
"""Domains of which mail is told: with the longest names they still fit into a frame."""


class ReportDays:
    """Keeps the figures of reports.

    Args:
        records: where.
        node: this host.
        clocks: only the wall clock counts.
    """

    def __init__(self, records: RecordStore, node: str, clocks: Clocks = SYSTEM_CLOCKS) -> None:
        self._records = records
        self._node = node
        self.latest: tuple[Day, ...] = ()
        """The days of the counters, as they were read or kept last."""
        self._wall = clocks.wall

    async def read(self, source: MailSource) -> tuple[Day, ...]:
        """The days that are kept, the oldest first."""
        return self._seen(source, await self._read(source))

    async def keep(self, source: MailSource, day: Day) -> tuple[Day, ...]:
        """Keep the figures of a day; returns all that are kept now."""
        days = (await self._read(source)).with_day(day)
        now = self._wall()
        value = days.model_dump_json().encode()
        await self._records.write(StoreKind.REPORT, self._key(source), value, now + LONGEST, now)
        return self._seen(source, days)

    def _seen(self, source: MailSource, found: Days) -> tuple[Day, ...]:
        if source is MailSource.COUNTERS:
            self.latest = found.days
        return found.days

    async def _read(self, source: MailSource) -> Days:
        key = self._key(source)
        found = await self._records.read(StoreKind.REPORT, key, decode, self._wall())
        return found or Days()

    def _key(self, source: MailSource) -> str:
        return f"{source}@{self._node}"


def decode(value: bytes) -> Days:
    """Decode a record.

    Raises:
        RecordError: the bytes are no record of ours.
    """
    return decoded(Days.model_validate_json, value, RecordError, "record")


def mail_by_domain(counters: Iterable[CounterTotal]) -> dict[str, int]:
    """Recipients for whom there was a forecast, by configured domain: those with most."""
    mail: dict[str, int] = {}
    for name, labels, value in counters:
        if name == "domain_forecasts_total" and len(labels[0]) <= MAX_NAME:
            mail[labels[0]] = mail.get(labels[0], 0) + int(value)
    most = sorted(mail.items(), key=lambda item: (-item[1], item[0]))
    return {domain: count for domain, count in most[:MAX_MAIL] if count}
