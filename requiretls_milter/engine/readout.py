"""What is read of the engine: its condition, its metrics, the report, and the two pages.

All of it lives on the loop, where it changes. So what is read is copied on the loop, quickly, and
put together from the copy in a thread: with thousands of domains that takes milliseconds or more,
in which the loop answers others.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Protocol

from requiretls_milter.engine.condition import Watching, reading
from requiretls_milter.engine.domains.servedmta import ServedMta
from requiretls_milter.engine.overview import FileState, Overview
from requiretls_milter.engine.parts import Parts, PartsBuilder
from requiretls_milter.engine.reportdays import mail_by_domain
from requiretls_milter.engine.server import ReportParts
from requiretls_milter.engine.watched.ownservers import Domains, OwnServers
from requiretls_milter.engine.web import reportpage, statuspage
from requiretls_milter.engine.web.exposition import Readings
from requiretls_milter.engine.web.page import Page, Rendering, beside_the_loop
from requiretls_milter.ipc.wire import Condition, ServiceStatus, StatusReply
from requiretls_milter.readiness.days import Day, MailSource
from requiretls_milter.readiness.figures import figures, today
from requiretls_milter.readiness.values import Readiness
from requiretls_milter.readiness.words import mta_in_words
from requiretls_milter.telemetry.aggregate import Aggregate
from requiretls_milter.telemetry.counting import Gauges


class ReadEngine(Protocol):
    """What is read of the engine; each value is that of the moment."""

    @property
    def parts(self) -> Parts:
        """Those of the configuration in force."""
        ...

    @property
    def builder(self) -> PartsBuilder:
        """What outlives a configuration, of what parts are made of."""
        ...

    @property
    def domains(self) -> Domains:
        """The domains that the configuration names."""
        ...

    @property
    def own(self) -> OwnServers:
        """What was seen of the watched domains."""
        ...

    @property
    def mta(self) -> ServedMta:
        """The MTA of this host."""
        ...

    @property
    def gauges(self) -> Gauges:
        """All gauges but those of other processes."""
        ...

    def counted(self) -> Aggregate:
        """A copy of the counters of all processes, this one included."""
        ...

    def cache_entries(self) -> dict[str, int]:
        """The sizes of the caches, by layer."""
        ...

    @property
    def longest_turn(self) -> float:
        """Seconds of the longest turn of the loop in the last minute or two."""
        ...

    def watching(self) -> Watching:
        """How the watch of domains is."""
        ...

    def service_status(self) -> ServiceStatus | None:
        """What the supervisor told last; None if it has told nothing yet."""
        ...

    def status(self) -> StatusReply:
        """What the engine reports of itself, but for its condition."""
        ...


class Readout:
    """Copies what is read, on the loop; what a method returns is made from the copy.

    Args:
        engine: what is copied.
    """

    def __init__(self, engine: ReadEngine) -> None:
        self._engine = engine

    def condition(self, most: int | None) -> Callable[[], Condition]:
        """Copy the condition, with *most* domains, None for all; for any thread to put together."""
        engine = self._engine
        return reading(
            engine.parts,
            engine.builder.record,
            engine.gauges,
            engine.counted().totals,
            engine.watching(),
            time.time(),
            most=most,
        )

    def metrics(self) -> Readings:
        """Copy what the metrics show."""
        engine = self._engine
        gauges, resolver, service = engine.gauges, engine.parts.resolver, engine.service_status()
        for layer, count in engine.cache_entries().items():
            gauges.set("cache_entries", count, (layer,))
        gauges.set("engine_longest_turn_seconds", engine.longest_turn)
        engine.parts.shares.show(gauges)
        gauges.set("resolver_validates", float(resolver.validates))
        gauges.set("resolver_selftest_last_success_timestamp_seconds", resolver.last_passed)
        processes = () if service is None else service.processes
        return Readings(
            engine.counted().totals,
            gauges,
            engine.domains.shown,
            {one.name: one.pid for one in processes if one.pid},
        )

    def status_page(self) -> Rendering:
        """Copy what the status page shows."""
        host, service = socket.gethostname(), self._engine.service_status()
        if service is None:
            return lambda: statuspage.starting(host)
        reply, condition, now = self._engine.status(), self.condition(None), time.time()
        file = FileState.told_by(service)

        def render() -> Page:
            with beside_the_loop():
                overview = Overview(reply, service, condition(), now, file)
                return statuspage.render(overview, host)

        return render

    def report_page(self) -> Rendering:
        """Copy what the page of the report shows."""
        made = self._readiness()

        def render() -> Page:
            with beside_the_loop():
                return reportpage.render(made())

        return render

    async def report(self, source: MailSource, keep: Day | None) -> ReportParts:
        """Keep the figures of a report, if there are any, and give what the engine has of it."""
        kept = self._engine.builder.report_days
        days = await (kept.read(source) if keep is None else kept.keep(source, keep))
        totals = await asyncio.to_thread(self._engine.counted().totals)
        return ReportParts(days, mail_by_domain(totals.counters))

    async def keep_figures(self) -> None:
        """Keep the figures of each day, for the trend; to be cancelled."""
        kept = self._engine.builder.report_days
        await kept.read(MailSource.COUNTERS)
        while True:
            await asyncio.sleep(reportpage.REPORT_INTERVAL)
            made = self._readiness()

            def day(made: Callable[[], Readiness] = made) -> Day | None:
                report = made()
                return today(report, figures(report)) if report.destinations else None

            found = await asyncio.to_thread(day)
            if found is not None:
                await kept.keep(MailSource.COUNTERS, found)

    def _readiness(self) -> Callable[[], Readiness]:
        """Copy what the report rests on; for any thread to put together."""
        engine = self._engine
        parts, builder, mta = engine.parts, engine.builder, engine.mta
        totals, found = engine.counted().totals, builder.record.destinations()
        own, days, now = engine.own.reports(), builder.report_days.latest, time.time()
        carries = mta_in_words(mta.version, mta.carries(parts.config))
        validates = parts.resolver.validates

        def made() -> Readiness:
            mail = mail_by_domain(totals().counters)
            return reportpage.readiness(
                found, mail, own, days, mta=carries, validates=validates, now=now
            )

        return made
