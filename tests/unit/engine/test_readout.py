"""What is read of the engine is what it was when it was copied."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from requiretls_milter.config import Config
from requiretls_milter.engine.condition import Watching
from requiretls_milter.engine.domains.servedmta import ServedMta
from requiretls_milter.engine.parts import Parts, PartsBuilder
from requiretls_milter.engine.readout import Readout
from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.engine.watched.ownservers import Domains, OwnServers
from requiretls_milter.ipc.wire import ServiceStatus, StatusReply
from requiretls_milter.readiness.days import MailSource
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.aggregate import Aggregate
from requiretls_milter.telemetry.counting import Counters, Gauges
from tests.support.overviews import service_status, status_reply
from tests.support.readinesses import days

CONFIG = Config.model_validate(
    {
        "dns": {"nameservers": ["127.0.0.1:9"], "timeout": 0.1},
        "rules": {"recipient": {"example.org": {"mode": "reject"}}},
    }
)


@dataclass
class ReadEngine:
    """Implements :class:`requiretls_milter.engine.readout.ReadEngine`."""

    builder: PartsBuilder
    parts: Parts
    own: OwnServers
    gauges: Gauges
    counters: Counters
    mta: ServedMta
    domains: Domains = field(default_factory=lambda: Domains.of(CONFIG))
    service: ServiceStatus | None = None
    longest_turn: float = 0.25
    entries: dict[str, int] = field(default_factory=lambda: {"host": 3})

    def counted(self) -> Aggregate:
        aggregate = Aggregate()
        aggregate.update("engine", 1, self.counters.totals())
        return aggregate

    def cache_entries(self) -> dict[str, int]:
        return self.entries

    def watching(self) -> Watching:
        return Watching()

    def service_status(self) -> ServiceStatus | None:
        return self.service

    def status(self) -> StatusReply:
        return status_reply(service=self.service)


@pytest.fixture
async def engine() -> AsyncIterator[ReadEngine]:
    store, counters, gauges, mta = MemoryStore(), Counters(), Gauges(), ServedMta()
    counters.configure(frozenset({"example.org"}))
    builder = PartsBuilder(store, counters, gauges, mta)
    parts = builder.build(CONFIG, 1)
    own = OwnServers(lambda: parts, gauges, lambda _: None, RecordStore(store, counters))
    yield ReadEngine(builder, parts, own, gauges, counters, mta)
    await parts.close()


async def test_the_status_page_says_that_the_service_starts_until_the_supervisor_has_told_of_it(
    engine: ReadEngine,
) -> None:
    assert b"Starting" in Readout(engine).status_page()().body
    engine.service = service_status()
    assert b"/etc/x.toml" in Readout(engine).status_page()().body


async def test_a_page_shows_what_was_when_it_was_copied(engine: ReadEngine) -> None:
    engine.service = service_status(config_path="/etc/before.toml")
    render = Readout(engine).status_page()
    engine.service = service_status(config_path="/etc/after.toml")
    assert b"/etc/before.toml" in render().body


async def test_a_process_that_is_being_replaced_has_no_metrics(engine: ReadEngine) -> None:
    assert Readout(engine).metrics().processes == {}
    engine.service = service_status()
    assert Readout(engine).metrics().processes == {"supervisor": 1, "engine": 2, "worker-2": 3}


async def test_the_metrics_have_the_gauges_of_the_moment(engine: ReadEngine) -> None:
    gauges = Readout(engine).metrics().gauges.by_metric()
    assert gauges["cache_entries"][("host",)] == 3
    assert gauges["engine_longest_turn_seconds"][()] == 0.25
    assert gauges["resolver_validates"][()] == 0.0


async def test_counters_are_those_of_the_copy(engine: ReadEngine) -> None:
    read = Readout(engine).metrics()
    engine.counters.inc("requirement_lost_total")
    before = read.totals().counters
    after = Readout(engine).metrics().totals().counters
    assert ("requirement_lost_total", (), 1.0) in after
    assert ("requirement_lost_total", (), 1.0) not in before


async def test_a_report_has_the_days_that_are_kept_and_the_mail_that_was_counted(
    engine: ReadEngine,
) -> None:
    engine.counters.inc("domain_forecasts_total", ("example.org", "5.7.30"), by=2)
    (day,) = days(1)
    found = await Readout(engine).report(MailSource.COUNTERS, day)
    assert (found.days, found.mail) == ((day,), {"example.org": 2})
    assert (await Readout(engine).report(MailSource.COUNTERS, None)).days == (day,)
    assert (await Readout(engine).report(MailSource.LOG, None)).days == ()
