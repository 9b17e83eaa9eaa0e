"""Everything in the engine that belongs to one configuration, and how a reload replaces it.

A reload that changes only rules keeps the resolver, the cache and the trust store; one that
changes how evidence is found begins with new ones. What is under way under the old configuration
gets time to end (:meth:`Parts.retire`).
"""

from __future__ import annotations

import itertools
import socket
import ssl
from dataclasses import dataclass, replace

from requiretls_milter.config import Config, Limits
from requiretls_milter.engine.answers import ANSWERS, Answers
from requiretls_milter.engine.assessor import Assessor
from requiretls_milter.engine.cache.source import CachedSource
from requiretls_milter.engine.domains.configured import ConfiguredDomains
from requiretls_milter.engine.domains.record import DomainRecord
from requiretls_milter.engine.domains.servedmta import ServedMta
from requiretls_milter.engine.downgrades import DowngradeTracker
from requiretls_milter.engine.loop import in_turns
from requiretls_milter.engine.outage import OutageDetector
from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.engine.reportdays import ReportDays
from requiretls_milter.engine.troubles import Troubles
from requiretls_milter.engine.turns.shares import AllShares
from requiretls_milter.engine.turns.spending import SpendingKeeper
from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.evidence.authorities import TrustStoreError, load_trust_store
from requiretls_milter.evidence.budgets import Budgets
from requiretls_milter.evidence.collector import Collector
from requiretls_milter.evidence.selftest import ResolverWatch
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.store.base import Store
from requiretls_milter.telemetry.counting import Counters, Gauges

RETIREMENT = 60.0
"""Seconds that what is under way under an old configuration gets to end."""


class StartError(RequiretlsMilterError):
    """The engine cannot run with this configuration; the text says why.

    A start is given up; a reload is refused, and the old configuration stays.
    """


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that belong to one configuration.

    ``assessment_digest`` is that of :meth:`Config.assessment_digest`.
    """

    config: Config
    generation: int
    assessment_digest: str
    shares: AllShares
    collector: Collector
    resolver: ResolverWatch
    source: CachedSource
    trust: TrustStore
    answers: Answers
    assessor: Assessor

    def find_the_same(self, config: Config, trust: TrustStore) -> bool:
        """Whether they find the same evidence under *config*, and in the same way."""
        return (
            self.assessment_digest == config.assessment_digest(trust.digest)
            and self.config.limits == config.limits
            # Beside the configuration, files of the system may have changed.
            and self.collector.resolver.is_current()
        )

    async def retire(self, successor: Parts) -> None:
        """Let what is under way end, then close what the successor does not share.

        What was found before is forgotten at once, so that it is in memory no more than once.
        """
        forgotten = [self.source.forget()] if self.source is not successor.source else []
        if self.answers is not successor.answers:
            forgotten.append(self.answers.forget())
        await in_turns(itertools.chain(*forgotten))
        await self.assessor.finish(RETIREMENT)
        await self.assessor.close()
        if self.source is not successor.source:
            await self.source.close()
        if self.collector is not successor.collector:
            await self.collector.close()

    async def close(self) -> None:
        """Give up what is under way and close everything."""
        await self.assessor.close()
        await self.source.close()
        await self.collector.close()


class PartsBuilder:
    """Builds the parts for each configuration.

    Args:
        store: outlives configurations.
        counters, gauges: likewise.
        mta: that of this host.
    """

    def __init__(self, store: Store, counters: Counters, gauges: Gauges, mta: ServedMta) -> None:
        self._store = store
        self._mta = mta
        self.record = DomainRecord(RecordStore(store, counters))
        """What was found out last about each configured domain."""
        self._counters = counters
        self._gauges = gauges
        self._troubles = Troubles()
        self._downgrades = DowngradeTracker(
            RecordStore(store, counters), counters, troubles=self._troubles
        )
        self._outage = OutageDetector(gauges)
        self._budgets = Budgets(Limits(), counters)
        self.spending = SpendingKeeper(
            self._budgets, RecordStore(store, counters), socket.gethostname()
        )
        """Keeps what was spent of the budgets: it is loaded before anything is built."""
        self.report_days = ReportDays(RecordStore(store, counters), socket.gethostname())
        """Keeps the figures of reports."""

    def prepared(self, config: Config) -> ConfiguredDomains:
        """What is asked about the domains of a configuration.

        With many domains it takes seconds; it may be found out in another thread.
        """
        return ConfiguredDomains(config, self._mta)

    def build(
        self,
        config: Config,
        generation: int,
        old: Parts | None = None,
        configured: ConfiguredDomains | None = None,
    ) -> Parts:
        """Build the parts for a configuration; reuse those of *old* that would be the same.

        Args:
            config: the configuration.
            generation: its number.
            old: the parts in use.
            configured: what :meth:`prepared` gave; None if it has not been called.

        Raises:
            StartError: a file that the configuration names cannot be used.
        """
        try:
            # A file of the same name may hold others than at the last reload.
            trust = load_trust_store(config.probe.ca_file)
            if old is not None and old.find_the_same(config, trust):
                as_before = old.config.engine.stale_for == config.engine.stale_for
                answers = old.answers if as_before else self._answers(config)
                return replace(
                    old,
                    config=config,
                    generation=generation,
                    answers=answers,
                    assessor=self._assessor(config, old.source, old.trust, answers, configured),
                )
            shares = AllShares.of(config.limits, self._counters)
            collector = Collector(
                config,
                trust,
                limiters=shares.limiters(),
                counters=self._counters,
                budgets=self._budgets,
            )
        except (TrustStoreError, ssl.SSLError, OSError, ValueError) as error:
            raise StartError(str(error)) from error
        self._budgets.configure(config.limits)
        resolver = ResolverWatch(collector.resolver, config)
        # Which servers could be reached under other settings says nothing any more.
        self._outage = OutageDetector(self._gauges)
        source = self._cache(collector, config, trust)
        answers = self._answers(config)
        assessor = self._assessor(config, source, trust, answers, configured)
        return Parts(
            config,
            generation,
            config.assessment_digest(trust.digest),
            *(shares, collector, resolver, source, trust, answers, assessor),
        )

    def with_empty_cache(self, old: Parts) -> Parts:
        """The same parts, without anything that was kept."""
        source = self._cache(old.collector, old.config, old.trust)
        answers = self._answers(old.config)
        configured = old.assessor.configured
        assessor = self._assessor(old.config, source, old.trust, answers, configured)
        return replace(old, source=source, answers=answers, assessor=assessor)

    def _cache(self, collector: Collector, config: Config, trust: TrustStore) -> CachedSource:
        return CachedSource(
            collector,
            self._store,
            config,
            self._counters,
            authorities=trust.digest,
            outage=self._outage,
            node=socket.gethostname(),
            troubles=self._troubles,
        )

    def _answers(self, config: Config) -> Answers:
        """Begin anew: no forecast is kept that was made from other evidence."""
        limit = ANSWERS * config.limits.forecast_cache
        return Answers(config.engine.stale_for, limit, self._troubles)

    def _assessor(
        self,
        config: Config,
        source: CachedSource,
        trust: TrustStore,
        answers: Answers,
        configured: ConfiguredDomains | None,
    ) -> Assessor:
        return Assessor(
            config,
            source,
            trust,
            self._counters,
            self._gauges,
            downgrades=self._downgrades,
            mta=self._mta,
            configured=configured,
            record=self.record,
            answers=answers,
        )
