"""What an engine's server shows, set by a test."""

from __future__ import annotations

from dataclasses import dataclass, field

from requiretls_milter.engine.assessor import Assessor
from requiretls_milter.engine.server import EngineState, RecipientExpander, ReportParts
from requiretls_milter.ipc.wire import Condition, ServiceStatus
from requiretls_milter.readiness.days import Day, Days, MailSource
from requiretls_milter.telemetry.aggregate import Aggregate
from requiretls_milter.telemetry.counting import Counters

WELL = Condition(
    nameservers=("127.0.0.1",),
    resolver_tested_at=1.0,
    outbound={"smtp": True, "dns": True},
    store="memory",
    store_up=True,
    waits=0,
    waited=0.0,
    waited_long=0,
    limits={},
    domains=(),
    domains_configured=0,
)
"""An engine to which nothing has happened."""


@dataclass
class SetEngine:
    """Implements :class:`requiretls_milter.engine.server.EngineView`."""

    assessor: Assessor
    generation: int = 1
    assessment_digest: str = "digest"
    trust_epoch: int = 0
    entries: dict[str, int] = field(default_factory=lambda: {"host": 3})
    mta_version: str = ""
    suspensions: list[bool] = field(default_factory=list)
    service: ServiceStatus | None = None
    its_condition: Condition = WELL
    counters: Counters = field(default_factory=Counters)
    aggregate: Aggregate = field(default_factory=Aggregate)
    reported: dict[MailSource, tuple[Day, ...]] = field(default_factory=dict)
    mail: dict[str, int] = field(default_factory=dict)
    expander: RecipientExpander | None = None

    def current(self) -> EngineState:
        return EngineState(
            self.assessor,
            self.generation,
            self.assessment_digest,
            self.trust_epoch,
            mta_version=self.mta_version,
        )

    def take_mta_version(self, version: str) -> None:
        self.mta_version = version

    def order_suspension(self, suspended: bool) -> None:
        self.suspensions.append(suspended)

    def service_status(self) -> ServiceStatus | None:
        return self.service

    def condition(self) -> Condition:
        return self.its_condition

    async def report(self, source: MailSource, keep: Day | None) -> ReportParts:
        if keep is not None:
            self.reported[source] = Days(days=self.reported.get(source, ())).with_day(keep).days
        return ReportParts(self.reported.get(source, ()), self.mail)

    def cache_entries(self) -> dict[str, int]:
        return self.entries
