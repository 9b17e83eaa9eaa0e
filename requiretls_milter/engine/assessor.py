"""The engine's heart: from a question to a forecast, in bounded time.

Evidence is gathered once for all who ask of the same next hop at the same time
(rule 60), with a deadline that ends before the MTA gives the milter up. Who
waited too long gets an ``unknown`` forecast; the gathering goes on, so that
the next who asks finds it done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from requiretls_milter.config import Config, PlainMail
from requiretls_milter.engine.cache import BusyError, CachedSource
from requiretls_milter.engine.downgrades import Ledger
from requiretls_milter.evidence.gathering import ANY_AGE, bounds_met, gather
from requiretls_milter.forecast import certificate
from requiretls_milter.forecast.judge import judge
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.model import (
    LOCAL_FORECAST,
    DomainEvidence,
    Forecast,
    HopKind,
    NextHop,
    Outcome,
    Question,
    Requirement,
    unknown_forecast,
)
from requiretls_milter.syntax import nexthop as nexthops
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters, Gauges
from requiretls_milter.telemetry.labels import AssessmentResult, Bound, configured_domains

__all__ = ["Assessor", "BusyError", "CachedSource"]

MAX_FORECAST_LIFE = 3600.0
"""Seconds that a forecast may be reused at most."""

_log = log.get_logger("engine.assessor")


class Assessor:
    """Answers questions under one configuration; lives on one asyncio loop.

    Args:
        config: the configuration; a new one needs a new assessor.
        source: kept evidence; may be shared with the assessor that comes after.
        trust: the certification authorities that count.
        counters, gauges: where assessments are counted and ``domain_ready`` is shown.
        ledger: remembers what was offered; None where nothing outlives the process.
        wall, monotonic: clocks, in seconds.
    """

    def __init__(
        self,
        config: Config,
        source: CachedSource,
        trust: TrustStore,
        counters: Counters,
        gauges: Gauges,
        *,
        ledger: Ledger | None = None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._source = source
        self._trust = trust
        self._counters = counters
        self._gauges = gauges
        self._ledger = ledger
        self._wall = wall
        self._monotonic = monotonic
        self._gatherings: dict[tuple[NextHop, bool], asyncio.Task[DomainEvidence]] = {}
        self._assessments: dict[Question, asyncio.Task[Forecast]] = {}
        self._watched = frozenset(configured_domains(config))
        # Verifying chains takes milliseconds in OpenSSL: not on the loop. One
        # thread, since a TrustStore is used from one at a time.
        self._judges = ThreadPoolExecutor(1, thread_name_prefix="judge")

    @property
    def in_flight(self) -> int:
        """Questions and next hops at work."""
        return len(self._assessments) + len(self._gatherings)

    async def assess(self, question: Question) -> Forecast:
        """The forecast for a question. Never raises, but where it is cancelled itself.

        The same question is worked on once, however many ask it; who is
        cancelled does not take the answer from the others.
        """
        assessment = self._assessments.get(question)
        if assessment is None:
            assessment = asyncio.create_task(self._assess(question))
            self._assessments[question] = assessment
            assessment.add_done_callback(lambda _: self._assessments.pop(question, None))
        return await asyncio.shield(assessment)

    async def evidence(self, nexthop: NextHop, refresh: bool = False) -> DomainEvidence:
        """All that is known of a next hop; with ``refresh``, nothing that was found before now.

        Raises:
            BusyError: too much is under way.
            TimeoutError: it took longer than ``limits.gathering_timeout``.
        """
        if refresh:
            return await self._look(nexthop, probes=True, since=self._monotonic())
        return await asyncio.shield(self._gathering(nexthop, probes=True))

    async def finish(self, patience: float) -> None:
        """Wait until what is under way has ended, ``patience`` seconds at most."""
        if tasks := self._tasks():
            await asyncio.wait(tasks, timeout=patience)

    async def close(self) -> None:
        """Give up what is under way. The source stays open: it may have a new owner."""
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._judges.shutdown(wait=False, cancel_futures=True)

    def _tasks(self) -> list[asyncio.Task[Any]]:
        return [*self._assessments.values(), *self._gatherings.values()]

    # ------------------------------------------------------------ one question

    async def _assess(self, question: Question) -> Forecast:
        started = self._monotonic()
        forecast, result = await self._answer(question)
        self._counters.inc("assessments_total", (result,))
        self._counters.observe("assessment_seconds", self._monotonic() - started)
        return forecast

    async def _answer(self, question: Question) -> tuple[Forecast, AssessmentResult]:
        try:
            nexthop = nexthops.parse(question.nexthop)
        except nexthops.NextHopError as error:
            return unknown_forecast(f"next hop: {error}"), AssessmentResult.MALFORMED
        if nexthop.kind is HopKind.LOCAL:
            return LOCAL_FORECAST, AssessmentResult.DELIVER
        plain = question.asked is Requirement.NONE
        probes = not (plain and self._config.probe.plain_mail is PlainMail.DNS)
        limits = self._config.limits
        try:
            # Less than Postfix's milter_command_timeout of 30 s (rule 60).
            async with asyncio.timeout(limits.assessment_timeout) as patience:
                evidence = await asyncio.shield(self._gathering(nexthop, probes=probes))
                forecast = await self._judge(evidence, question)
        except TimeoutError:
            if patience.expired():  # else something that it is made of took too long
                self._counters.inc("saturated_total", (Bound.ASSESSMENT_TIMEOUT,))
            text = f"not known within {limits.assessment_timeout:g} s"
            return unknown_forecast(text), AssessmentResult.DEADLINE
        except BusyError as error:
            return unknown_forecast(f"the engine is busy: {error}"), AssessmentResult.BUSY
        except Exception as error:  # noqa: BLE001 - a mistake of ours is no verdict on a domain
            _log.exception("assessment_failed", nexthop=question.nexthop, error=repr(error))
            return unknown_forecast("internal error"), AssessmentResult.ERROR
        if excuse := self._source.outbound.excuse(evidence, forecast):
            return unknown_forecast(excuse), AssessmentResult.UNKNOWN
        self._show_ready(nexthop, question, forecast)
        return forecast, AssessmentResult(forecast.outcome.value)

    async def _judge(self, evidence: DomainEvidence, question: Question) -> Forecast:
        now = self._wall()
        profile = self._config.mta.profile_for(question.transport)

        def work() -> Forecast:
            forecast = judge(
                evidence,
                asked=question.asked,
                carried=question.carried,
                profile=profile,
                trust=self._trust,
                now=now,
            )
            # The judge says when the evidence ends (R44); its certificates may end before.
            chains = (probe.chain for host in evidence.hosts for probe in host.probes)
            changes = (certificate.next_change(chain, now) for chain in chains)
            ends = min(forecast.valid_until, now + MAX_FORECAST_LIFE, *changes)
            return replace(forecast, valid_until=ends)

        return await asyncio.get_running_loop().run_in_executor(self._judges, work)

    def _show_ready(self, nexthop: NextHop, question: Question, forecast: Forecast) -> None:
        domain = nexthop.host
        if (
            question.asked is Requirement.REQUIRETLS
            and nexthop.kind is HopKind.MX
            and domain in self._watched
        ):
            ready = forecast.outcome is Outcome.DELIVER and forecast.compliant is not False
            self._gauges.set("domain_ready", float(ready), (domain,))

    # ------------------------------------------------------------ gathering

    def _gathering(self, nexthop: NextHop, *, probes: bool) -> asyncio.Task[DomainEvidence]:
        key = (nexthop, probes)
        gathering = self._gatherings.get(key)
        if gathering is None:
            if len(self._gatherings) >= self._config.limits.gatherings:
                self._counters.inc("saturated_total", (Bound.GATHERINGS,))
                raise BusyError(f"{len(self._gatherings)} next hops are looked at")
            gathering = asyncio.create_task(self._look(nexthop, probes=probes), name=str(nexthop))
            self._gatherings[key] = gathering
            gathering.add_done_callback(lambda done: self._gathered(key, done))
        return gathering

    def _gathered(self, key: tuple[NextHop, bool], done: asyncio.Task[DomainEvidence]) -> None:
        self._gatherings.pop(key, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            # Whoever still waits gets it too, and answers for it.
            _log.info("gathering_failed", nexthop=str(key[0]), error=repr(error))

    async def _look(
        self, nexthop: NextHop, *, probes: bool, since: float = ANY_AGE
    ) -> DomainEvidence:
        try:
            async with asyncio.timeout(self._config.limits.gathering_timeout) as patience:
                return await self._gather(nexthop, probes=probes, since=since)
        except TimeoutError:
            if patience.expired():
                self._counters.inc("saturated_total", (Bound.GATHERING_TIMEOUT,))
            raise

    async def _gather(self, nexthop: NextHop, *, probes: bool, since: float) -> DomainEvidence:
        evidence = await gather(
            nexthop, self._source, self._config, self._wall(), probes=probes, since=since
        )
        for bound in bounds_met(evidence):
            self._counters.inc("saturated_total", (bound,))
        if self._ledger is None:
            return evidence
        lost = await self._ledger.observe(evidence, self._wall())
        return replace(evidence, downgraded_at=lost)
