"""From a question to a forecast, in bounded time.

Each layer adds one thing:

=============================  ============================================================
``assess``                     several callers with the same question get one answer
``_assess_counted``            the result and the time it took are counted
``_forecast``                  the deadline, and what is said when there is no evidence
``_shared_gathering``          evidence is gathered once for all questions of a next hop
``_gather_within_limit``       a gathering has a limit of its own, beyond the deadline
``_gather_and_note``           downgrades, and bounds that were met, are noted
``gathering.gather``           puts the questions to the cache, in order
=============================  ============================================================

Evidence is gathered once for all questions that come at the same time about the same next hop
(R60). The deadline is shorter than the time that the MTA waits for the milter. A question without
evidence at the deadline gets an ``unknown`` forecast. The gathering goes on, so that the next
question finds the evidence.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from requiretls_milter.clocks import SYSTEM_CLOCKS, Clocks
from requiretls_milter.config import Config, PlainMail
from requiretls_milter.engine.cache import CachedSource
from requiretls_milter.engine.downgrades import DowngradeTracker
from requiretls_milter.engine.flights import BusyError
from requiretls_milter.evidence.gathering import ANY_AGE, bounds_met, gather
from requiretls_milter.forecast.judge import judge
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.ipc.wire import MAX_FORECAST_LIFE
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

_log = log.get_logger("engine.assessor")


class Assessor:
    """Answers questions under one configuration, on one asyncio loop.

    Args:
        config: the configuration; a new one needs a new assessor.
        source: finds evidence and keeps it; may be shared with the next configuration's assessor.
        trust: the certification authorities that count.
        counters, gauges: where assessments are counted and ``domain_ready`` is shown.
        downgrades: remembers what was offered; None if nothing outlives the process.
        clocks: wall time for the judge, monotonic time for durations.
    """

    def __init__(
        self,
        config: Config,
        source: CachedSource,
        trust: TrustStore,
        counters: Counters,
        gauges: Gauges,
        *,
        downgrades: DowngradeTracker | None = None,
        clocks: Clocks = SYSTEM_CLOCKS,
    ) -> None:
        self._config = config
        self._source = source
        self._trust = trust
        self._counters = counters
        self._gauges = gauges
        self._downgrades = downgrades
        self._wall = clocks.wall
        self._monotonic = clocks.monotonic
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
        """Forecast the answer to a question. Never raises, unless it is cancelled itself.

        If several callers ask the same question, it is worked on once. If one of the callers is
        cancelled, the others still get the answer (R60).
        """
        assessment = self._assessments.get(question)
        if assessment is None:
            assessment = asyncio.create_task(self._assess_counted(question))
            self._assessments[question] = assessment
            assessment.add_done_callback(lambda _: self._assessments.pop(question, None))
        return await asyncio.shield(assessment)

    async def evidence(self, nexthop: NextHop, refresh: bool = False) -> DomainEvidence:
        """Return the evidence of a next hop; with ``refresh``, gather all of it anew.

        Raises:
            BusyError: too much is under way.
            TimeoutError: it took longer than ``limits.gathering_timeout``.
        """
        if refresh:
            return await self._gather_within_limit(nexthop, probes=True, since=self._monotonic())
        return await asyncio.shield(self._shared_gathering(nexthop, probes=True))

    async def finish(self, patience: float) -> None:
        """Wait until what is under way has ended; ``patience`` seconds at most."""
        if tasks := self._tasks():
            await asyncio.wait(tasks, timeout=patience)

    async def close(self) -> None:
        """Give up what is under way. The source stays open: another assessor may use it."""
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._judges.shutdown(wait=False, cancel_futures=True)

    def _tasks(self) -> list[asyncio.Task[Any]]:
        return [*self._assessments.values(), *self._gatherings.values()]

    # ------------------------------------------------------------ one question

    async def _assess_counted(self, question: Question) -> Forecast:
        started = self._monotonic()
        forecast, result = await self._forecast(question)
        self._counters.inc("assessments_total", (result,))
        self._counters.observe("assessment_seconds", self._monotonic() - started)
        return forecast

    async def _forecast(self, question: Question) -> tuple[Forecast, AssessmentResult]:
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
            # Less than Postfix's milter_command_timeout of 30 s (R60).
            async with asyncio.timeout(limits.assessment_timeout) as patience:
                evidence = await asyncio.shield(self._shared_gathering(nexthop, probes=probes))
                forecast = await self._judge(evidence, question)
        except TimeoutError:
            if patience.expired():  # otherwise one of its parts took too long
                self._counters.inc("saturated_total", (Bound.ASSESSMENT_TIMEOUT,))
            text = f"not known within {limits.assessment_timeout:g} s"
            return unknown_forecast(text), AssessmentResult.DEADLINE
        except BusyError as error:
            return unknown_forecast(f"the engine is busy: {error}"), AssessmentResult.BUSY
        except Exception as error:  # noqa: BLE001 - an internal error is no verdict on a domain
            _log.exception("assessment_failed", nexthop=question.nexthop, error=repr(error))
            return unknown_forecast("internal error"), AssessmentResult.ERROR
        if excuse := self._source.outage.excuse(evidence, forecast):
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
            # The judge says when what it rests on ends (R44).
            ends = min(forecast.valid_until, now + MAX_FORECAST_LIFE)
            return replace(forecast, valid_until=ends)

        return await asyncio.get_running_loop().run_in_executor(self._judges, work)

    def _show_ready(self, nexthop: NextHop, question: Question, forecast: Forecast) -> None:
        """Set ``domain_ready`` of a domain that has a rule, if REQUIRETLS is asked.

        What is not known changes nothing: it keeps its value, or is not there yet.
        """
        if forecast.outcome is Outcome.UNKNOWN:
            return
        domain = nexthop.host
        if (
            question.asked is Requirement.REQUIRETLS
            and nexthop.kind is HopKind.MX
            and domain in self._watched
        ):
            ready = forecast.outcome is Outcome.DELIVER and forecast.compliant is not False
            self._gauges.set("domain_ready", float(ready), (domain,))

    # ------------------------------------------------------------ gathering

    def _shared_gathering(self, nexthop: NextHop, *, probes: bool) -> asyncio.Task[DomainEvidence]:
        key = (nexthop, probes)
        gathering = self._gatherings.get(key)
        if gathering is None:
            if len(self._gatherings) >= self._config.limits.gatherings:
                self._counters.inc("saturated_total", (Bound.GATHERINGS,))
                raise BusyError(f"{len(self._gatherings)} next hops are being assessed")
            gathering = asyncio.create_task(
                self._gather_within_limit(nexthop, probes=probes), name=str(nexthop)
            )
            self._gatherings[key] = gathering
            gathering.add_done_callback(lambda done: self._gathering_ended(key, done))
        return gathering

    def _gathering_ended(
        self, key: tuple[NextHop, bool], done: asyncio.Task[DomainEvidence]
    ) -> None:
        self._gatherings.pop(key, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            # The questions that still wait for the gathering get the error, and report it too.
            _log.info("gathering_failed", nexthop=str(key[0]), error=repr(error))

    async def _gather_within_limit(
        self, nexthop: NextHop, *, probes: bool, since: float = ANY_AGE
    ) -> DomainEvidence:
        try:
            async with asyncio.timeout(self._config.limits.gathering_timeout) as patience:
                return await self._gather_and_note(nexthop, probes=probes, since=since)
        except TimeoutError:
            if patience.expired():
                self._counters.inc("saturated_total", (Bound.GATHERING_TIMEOUT,))
            raise

    async def _gather_and_note(
        self, nexthop: NextHop, *, probes: bool, since: float
    ) -> DomainEvidence:
        evidence = await gather(
            nexthop, self._source, self._config, self._wall(), probes=probes, since=since
        )
        for bound in bounds_met(evidence):
            self._counters.inc("saturated_total", (bound,))
        if self._downgrades is None:
            return evidence
        downgraded_at = await self._downgrades.observe(evidence, self._wall())
        return replace(evidence, downgraded_at=downgraded_at)
