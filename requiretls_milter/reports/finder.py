"""Where ``check`` gets evidence: the engine of a running service, or this process itself.

A running engine is used if its ``[mta]``, ``[dns]`` and ``[probe]`` are those of this
configuration, and its certification authorities those that the file has now. If it gives no
evidence of a next hop (it has ended, or is busy), this process gathers it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import TracebackType

from requiretls_milter.config import Config
from requiretls_milter.engine.assessor import Assessor
from requiretls_milter.engine.cache.reachability import RECHECK_TICK
from requiretls_milter.engine.cache.source import CachedSource
from requiretls_milter.engine.turns.shares import AllShares
from requiretls_milter.evidence.collector import Collector
from requiretls_milter.evidence.gathering import LATE
from requiretls_milter.evidence.selftest import ResolverWatch
from requiretls_milter.evidence.turns import BusyError
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.ipc import query
from requiretls_milter.model import (
    DnsOutcome,
    DomainEvidence,
    Forecast,
    MxEvidence,
    NextHop,
    Question,
)
from requiretls_milter.reports.observation import Observation, ObservedBy
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.counting import Counters, Gauges
from requiretls_milter.telemetry.labels import OutboundService

AT_ONCE = 16
"""Next hops that are worked on at the same time: most of their time is waiting."""

KEPT = 400
"""Entries of each layer, and records, that this process keeps: enough to probe a server that many
domains share once, and few enough that a long list takes no more memory than a short one."""


LOOK_AGAIN = 5.0
"""Seconds between two lookups while no name server answers us. What is not looked up meanwhile is
not known: with thousands of next hops, each would wait for as long as a lookup may take."""

_SILENT = "not looked up: no name server answers us"


class Finder:
    """Finds evidence; to be used as an async context manager, on one loop.

    Args:
        config: the configuration in force.
        trust: the certification authorities that count.
        refresh: look anew, whatever a running engine knows already.
    """

    def __init__(self, config: Config, trust: TrustStore, *, refresh: bool) -> None:
        self._config = config
        self._trust = trust
        self._refresh = refresh
        self._service_validates: bool | None = None
        self._here: _Here | None = None

    async def __aenter__(self) -> Finder:
        await self.begin_round(anew=False)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._here is not None:
            await self._here.close()

    async def begin_round(self, *, anew: bool) -> None:
        """See whether a service runs; with *anew* kept evidence is too old from now on."""
        self._refresh = self._refresh or anew
        self._service_validates = None
        with contextlib.suppress(query.EngineUnavailable):
            status = await asyncio.to_thread(
                query.status, self._config.engine.socket, query.STATUS_TIMEOUT
            )
            if status.assessment_digest == self._config.assessment_digest(self._trust.digest):
                self._service_validates = status.resolver_validates

    async def find(self, nexthop: NextHop) -> Observation:
        """Find the evidence of a next hop; it says what is not known."""
        validates = self._service_validates
        if validates is not None:
            with contextlib.suppress(query.EngineUnavailable):
                evidence = await query.evidence(
                    self._config.engine.socket, str(nexthop), refresh=self._refresh
                )
                return Observation(evidence, ObservedBy.SERVICE, validates)
        return await self._own().find(nexthop, refresh=self._refresh)

    async def answer(self, question: Question, nexthop: NextHop) -> tuple[Forecast, Observation]:
        """Answer a question about a next hop as a worker gets it, and find the evidence."""
        if self._service_validates is not None:
            with contextlib.suppress(query.EngineUnavailable):
                path = self._config.engine.socket
                forecast = await asyncio.to_thread(query.forecast, path, question)
                return forecast, await self.find(nexthop)
        found = await self._own().find(nexthop, refresh=self._refresh)
        return await self._own().assess(question), found

    def _own(self) -> _Here:
        if self._here is None:
            self._here = _Here(self._config, self._trust)
        return self._here


class _Here:
    """Gathers evidence in this process; hosts that several next hops share are probed once."""

    def __init__(self, config: Config, trust: TrustStore) -> None:
        limits = config.limits
        kept = {
            "host_cache": min(KEPT, limits.host_cache),
            "domain_cache": min(KEPT, limits.domain_cache),
        }
        self._config = config.model_copy(update={"limits": limits.model_copy(update=kept)})
        self._trust = trust
        self._counters = Counters()
        shares = AllShares.of(limits, self._counters)
        self._live = Collector(config, trust, limiters=shares.limiters())
        self._store = MemoryStore(KEPT)
        self._watch = ResolverWatch(self._live.resolver, config)
        self._tasks = [
            asyncio.create_task(self._watch.test_now()),
            asyncio.create_task(self._watch.prove()),
            asyncio.create_task(self._watch_reachability()),
        ]
        self._look_again_at = float("-inf")
        self._begin()

    def _begin(self) -> None:
        self._source = CachedSource(
            self._live, self._store, self._config, self._counters, authorities=self._trust.digest
        )
        self._assessor = Assessor(self._config, self._source, self._trust, self._counters, Gauges())
        self._believed: bool | None = None

    async def find(self, nexthop: NextHop, *, refresh: bool) -> Observation:
        """Gather; and gather again if the resolver turned out to be another than was believed."""
        await self._live.resolver.tested.wait()
        if not self._may_look():
            return Observation(_unseen(nexthop, _SILENT), ObservedBy.COMMAND, self._watch.validates)
        while True:
            if self._believed not in (None, self._watch.validates):
                self._begin()
            self._believed = believed = self._watch.validates
            evidence = await self._gathered(nexthop, refresh)
            if believed is self._watch.validates:
                return Observation(evidence, ObservedBy.COMMAND, believed)

    async def assess(self, question: Question) -> Forecast:
        """Answer a question about a next hop of which the evidence was found."""
        return await self._assessor.assess(question)

    async def _gathered(self, nexthop: NextHop, refresh: bool) -> DomainEvidence:
        try:
            return await self._assessor.evidence(nexthop, refresh)
        except (BusyError, TimeoutError) as error:
            return _unseen(nexthop, str(error) or LATE)

    def _may_look(self) -> bool:
        """Whether a lookup may have an answer; one each while finds out if it has none."""
        now = time.monotonic()
        if self._source.outage.is_out(OutboundService.DNS) and now < self._look_again_at:
            return False
        self._look_again_at = now + LOOK_AGAIN
        return True

    async def _watch_reachability(self) -> None:
        """Find out whether an outage is our own, and when it has ended."""
        while True:
            await asyncio.sleep(RECHECK_TICK)
            await self._source.recheck_reachability()

    async def close(self) -> None:
        """Give up what is under way, the rest of the test too: it holds nothing up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._assessor.close()
        await self._source.close()
        await self._live.close()


def _unseen(nexthop: NextHop, why: str) -> DomainEvidence:
    """The evidence of a next hop of which nothing is known."""
    mx = MxEvidence(DnsOutcome.ERROR, error=why, unasked=True)
    return DomainEvidence(nexthop, mx, gathered_at=time.time())
