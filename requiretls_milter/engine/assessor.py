"""From a question to a forecast, in bounded time.

Each layer adds one thing:

=============================  ============================================================
``answer_at_hand``             what a message gets at once, perhaps past its life
``assess``                     several callers with the same question get one answer
``_assess_counted``            the result and the time it took are counted
``_forecast``                  an outage of our own is no verdict; configured domains are shown
``_found``                     the deadline, and what is said when there is no evidence
``_judged``                    after a while what is known is judged
``_shared_gathering``          evidence is gathered once for all questions of a next hop
``_gather``                    a gathering has a limit of its own, beyond the deadline
``_noted``                     downgrades are noted
``Gathering.run``              puts the questions to the cache, in order
=============================  ============================================================

Evidence is gathered once for all questions that come at the same time about the same next hop
(R60). The deadline is shorter than the time that the MTA waits for the milter. A question waits
for all evidence; after ``evidence_wait``, what is known may be enough for a forecast: one server
that is slow, or that cannot be reached, need not matter if a better one takes the mail. A question
without enough evidence at the deadline gets an ``unknown`` forecast. The gathering goes on, so
that the next question finds the evidence. When too many are under way, the one that has taken
longest makes room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

from requiretls_milter.clocks import SYSTEM_CLOCKS, Clocks
from requiretls_milter.config import Config, PlainMail
from requiretls_milter.engine.answers import Answers
from requiretls_milter.engine.cache.source import CachedSource
from requiretls_milter.engine.confirming import KeptSessions
from requiretls_milter.engine.domains.configured import ConfiguredDomains
from requiretls_milter.engine.domains.record import DomainRecord
from requiretls_milter.engine.domains.servedmta import ServedMta
from requiretls_milter.engine.domains.state import DomainStates
from requiretls_milter.engine.downgrades import DowngradeTracker
from requiretls_milter.evidence.gathering import (
    ANY_AGE,
    LATE,
    Gathering,
    bounds_met,
    profiles_of,
)
from requiretls_milter.evidence.turns import BusyError, on_behalf_of
from requiretls_milter.forecast.inbound import InboundReport, judge_inbound
from requiretls_milter.forecast.judge import judge
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.ipc.wire import MAX_FORECAST_LIFE
from requiretls_milter.model import (
    LOCAL_FORECAST,
    DomainEvidence,
    Forecast,
    HopKind,
    MtaProfile,
    NextHop,
    Outcome,
    PublishedEvidence,
    Question,
    Requirement,
    unknown_forecast,
)
from requiretls_milter.readiness.judging import destination, unknown_destination
from requiretls_milter.readiness.values import HopReadiness
from requiretls_milter.syntax import nexthop as nexthops
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters, Gauges
from requiretls_milter.telemetry.labels import (
    AssessmentResult,
    Bound,
    CacheResult,
    Layer,
    OutboundService,
)

MIN_GATHERING = 5.0
"""Seconds that a gathering may take before it has to make room for another: most take fewer."""

LIGHT_OCTETS = 16_384
"""Octets of certificates from which they are judged beside the loop: a domain with two servers has
less. To read and to verify so many takes a few milliseconds at most."""

CONFIRMATIONS = 4
"""Forecasts that DNS confirms at once: nobody waits for them."""

_HIT = (Layer.FORECAST, CacheResult.HIT)
_STALE = (Layer.FORECAST, CacheResult.STALE)

_log = log.get_logger("engine.assessor")

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Shared:
    """A gathering under way, which several questions may wait for.

    ``patience`` is the limit of its time; ``cut`` is set if that was shortened.
    """

    nexthop: NextHop
    gathering: Gathering
    began: float
    patience: asyncio.Timeout
    cut: bool = False
    task: asyncio.Task[DomainEvidence] = field(init=False)


class _Found(NamedTuple):
    """The answer to a question, and how it was found.

    ``began`` is when the evidence began to be gathered (monotonic); None if not all is gathered.
    """

    evidence: DomainEvidence | None
    forecast: Forecast
    result: AssessmentResult
    began: float | None = None

    @classmethod
    def of(cls, evidence: DomainEvidence, forecast: Forecast, began: float | None = None) -> _Found:
        return cls(evidence, forecast, AssessmentResult(forecast.outcome.value), began)


class Assessor:
    """Answers questions under one configuration, on one asyncio loop.

    Args:
        config: the configuration; a new one needs a new assessor.
        source: finds evidence and keeps it; may be shared with the next configuration's assessor.
        trust: the certification authorities that count.
        counters, gauges: where assessments are counted and configured domains are shown.
        downgrades: remembers what was offered; None if nothing outlives the process.
        mta: the MTA of this host; None if nothing is known of it.
        configured: what is asked about configured domains; None to find it out, which takes seconds
            if there are many.
        record: where the last forecast of each configured domain is kept; None if nobody asks.
        answers: forecasts that may be given out again; None if none may.
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
        mta: ServedMta | None = None,
        configured: ConfiguredDomains | None = None,
        record: DomainRecord | None = None,
        answers: Answers | None = None,
        clocks: Clocks = SYSTEM_CLOCKS,
    ) -> None:
        self._config = config
        self._source = source
        self._trust = trust
        self._counters = counters
        self._downgrades = downgrades
        self._answers = answers
        self._acts = config.rules.acts
        self._confirmations: set[asyncio.Task[None]] = set()
        self._renewals: dict[Question, asyncio.TimerHandle] = {}
        self._wall = clocks.wall
        self._monotonic = clocks.monotonic
        self._since = clocks.monotonic()
        self._gatherings: dict[tuple[NextHop, bool], _Shared] = {}
        self._assessments: dict[Question, asyncio.Task[Forecast]] = {}
        self.configured = configured or ConfiguredDomains(config, mta or ServedMta())
        self._record = DomainRecord() if record is None else record
        self._states = DomainStates(gauges, self.configured, self._record)
        self._profiles = dict(zip(("", *config.mta.transport), profiles_of(config), strict=True))
        # Verifying many chains takes milliseconds in OpenSSL: not on the loop. One
        # thread, since a TrustStore is used from one at a time.
        self._judges = ThreadPoolExecutor(1, thread_name_prefix="judge")
        self._last_beside: Future[Any] | None = None

    @property
    def in_flight(self) -> int:
        """Questions and next hops at work."""
        return len(self._assessments) + len(self._gatherings)

    async def assess(self, question: Question) -> Forecast:
        """Forecast the answer to a question. Never raises, unless it is cancelled itself.

        If several callers ask the same question, it is worked on once. If one of the callers is
        cancelled, the others still get the answer (R60).
        """
        assessment = self._assessments.get(question) or self._begin(question)
        return await asyncio.shield(assessment)

    def answer_at_hand(self, question: Question, uses: int = 0) -> Forecast | None:
        """What a message gets at once; None if it has to be assessed.

        That is a forecast within its life, or one past it that may be used and is made anew behind
        the message.

        Args:
            question: what the message asks.
            uses: how often the last answer was used since it was given out.
        """
        if self._answers is None:
            return None
        found = self._answers.use(question, uses + 1, acts=self._acts, since=self._since)
        if found is None or self._is_out:
            return None
        forecast, often = found
        if often:
            self._plan_renewal(question)
        if forecast.stale:
            self._make_anew(question)
        self._counters.inc("cache_requests_total", _STALE if forecast.stale else _HIT)
        return forecast

    async def evidence(self, nexthop: NextHop, refresh: bool = False) -> DomainEvidence:
        """Return the evidence of a next hop; with ``refresh``, gather all of it anew.

        Raises:
            BusyError: too much is under way.
            TimeoutError: nothing was known within ``limits.gathering_timeout``.
        """
        if refresh:
            return await self._gather(self._new(nexthop, probes=True, since=self._monotonic()))
        return await asyncio.shield(self._shared_gathering(nexthop, probes=True).task)

    async def inbound(
        self, evidence: DomainEvidence, published: PublishedEvidence, *, validates: bool
    ) -> InboundReport:
        """Judge a domain as those see it that send mail to it; see :func:`judge_inbound`."""
        now = self._wall()

        def work() -> InboundReport:
            return judge_inbound(evidence, published, self._trust, now, validates=validates)

        return await self._beside_the_loop(work)

    async def finish(self, patience: float) -> None:
        """Wait until what is under way has ended; ``patience`` seconds at most."""
        if tasks := self._tasks():
            await asyncio.wait(tasks, timeout=patience)

    async def close(self) -> None:
        """Give up what is under way. The source stays open: another assessor may use it."""
        for timer in self._renewals.values():
            timer.cancel()
        self._renewals.clear()
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._judges.shutdown(wait=False, cancel_futures=True)

    def _tasks(self) -> list[asyncio.Task[Any]]:
        gatherings = (shared.task for shared in self._gatherings.values())
        return [*self._assessments.values(), *gatherings, *self._confirmations]

    # ------------------------------------------------------------ behind the messages

    @property
    def _is_out(self) -> bool:
        """Whether our own network or resolver is down: then nothing is known, old or new."""
        return any(map(self._source.outage.is_out, OutboundService))

    def _make_anew(self, question: Question) -> None:
        """Begin to make a forecast anew for which no message waits, unless messages do for many."""
        room = len(self._gatherings) < self._config.limits.gatherings // 2
        if self._answers is None or not room or question in self._assessments:
            return
        if self._answers.may_retry(question):
            self._begin(question)

    async def confirm_answers(self) -> None:
        """Have DNS confirm those forecasts past their life that would be given out no more soon.

        To be awaited each few minutes; see :mod:`~requiretls_milter.engine.answers`.
        """
        if self._answers is None or self._is_out:
            return
        places = asyncio.Semaphore(CONFIRMATIONS)

        async def confirm(answers: Answers, question: Question) -> None:
            async with places:
                await self._confirm(answers, question)

        async with asyncio.TaskGroup() as tasks:
            for question in self._answers.to_confirm(acts=self._acts):
                task = tasks.create_task(confirm(self._answers, question))
                self._confirmations.add(task)
                task.add_done_callback(self._confirmations.discard)

    async def _confirm(self, answers: Answers, question: Question) -> None:
        nexthop, began = nexthops.parse(question.nexthop), self._monotonic()
        kept = KeptSessions(self._source)
        gathering = Gathering(nexthop, kept, self._config, self._wall())
        try:
            async with asyncio.timeout(self._config.limits.gathering_timeout):
                with on_behalf_of(nexthop.host):
                    await gathering.run()
            evidence = gathering.known()
            if evidence is None:
                return
            evidence = await self._noted(evidence)
            answers.confirm(question, await self._judge(evidence, question), evidence, began)
        except (TimeoutError, BusyError):
            return  # then the next message waits
        except Exception as error:  # noqa: BLE001 - it must not end the other confirmations
            _log.exception("assessment_failed", nexthop=question.nexthop, error=repr(error))

    def _plan_renewal(self, question: Question) -> None:
        """Have a forecast made anew at the end of its life if it is used often."""
        often = self._answers.used_often(question) if self._answers is not None else None
        if often is None:
            return
        kept, left = often  # made for a message of another size, perhaps
        if left and kept not in self._renewals:
            loop = asyncio.get_running_loop()
            self._renewals[kept] = loop.call_later(left, self._renew, kept)

    def _renew(self, question: Question) -> None:
        del self._renewals[question]
        often = self._answers.used_often(question) if self._answers is not None else None
        if often is None:
            return
        kept, left = often
        if left:
            self._plan_renewal(kept)  # it was made anew before its end
        elif not self._is_out:
            self._make_anew(kept)

    # ------------------------------------------------------------ one question

    def _begin(self, question: Question) -> asyncio.Task[Forecast]:
        assessment = asyncio.create_task(self._assess_counted(question))
        self._assessments[question] = assessment
        assessment.add_done_callback(lambda _: self._assessments.pop(question, None))
        return assessment

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
        evidence, forecast, result, began = await self._found(nexthop, question)
        if evidence is not None and (excuse := self._source.outage.excuse(evidence, forecast)):
            evidence, forecast = None, unknown_forecast(excuse)
            result = AssessmentResult.UNKNOWN
        if self._answers is not None and evidence is not None and began is not None:
            self._answers.note(question, forecast, evidence, began)
            self._plan_renewal(question)
        about = self.configured.about(nexthop, question)
        if about:
            await self._states.show(about, nexthop, forecast, evidence, self._wall())
            self._record.note_destination(
                about, await self._destination(nexthop, question, evidence, forecast)
            )
        return forecast, result

    async def _destination(
        self,
        nexthop: NextHop,
        question: Question,
        evidence: DomainEvidence | None,
        forecast: Forecast,
    ) -> HopReadiness:
        """What a report says of a configured domain."""
        if evidence is None:
            return unknown_destination(nexthop.host, forecast)
        profile, now = self._profile(question), self._wall()

        def work() -> HopReadiness:
            return destination(
                nexthop.host, 0, evidence, forecast, profile=profile, trust=self._trust, now=now
            )

        return await self._beside_the_loop(work)

    async def _found(self, nexthop: NextHop, question: Question) -> _Found:
        """The evidence within the deadline, and the forecast; or none, and why."""
        plain = question.asked is Requirement.NONE
        probes = not (plain and self._config.probe.plain_mail is PlainMail.DNS)
        limits = self._config.limits
        try:
            # Less than Postfix's milter_command_timeout of 30 s (R60).
            async with asyncio.timeout(limits.assessment_timeout) as patience:
                shared = self._shared_gathering(nexthop, probes=probes)
                return await self._judged(shared, question)
        except TimeoutError:
            if patience.expired():  # otherwise nothing became known
                self._counters.inc("saturated_total", (Bound.ASSESSMENT_TIMEOUT,))
            text = f"not known within {limits.assessment_timeout:g} s"
            return _Found(None, unknown_forecast(text), AssessmentResult.DEADLINE)
        except BusyError as error:
            busy = unknown_forecast(f"the engine is busy: {error}")
            return _Found(None, busy, AssessmentResult.BUSY)
        except Exception as error:  # noqa: BLE001 - an internal error is no verdict on a domain
            _log.exception("assessment_failed", nexthop=question.nexthop, error=repr(error))
            return _Found(None, unknown_forecast("internal error"), AssessmentResult.ERROR)

    async def _judged(self, shared: _Shared, question: Question) -> _Found:
        """Judge all evidence; or, each time after a while, what is known, if that is enough."""
        limits = self._config.limits
        wait = min(limits.evidence_wait, limits.assessment_timeout / 2)
        while not (await asyncio.wait({shared.task}, timeout=wait))[0]:
            self._counters.inc("saturated_total", (Bound.EVIDENCE_WAIT,))
            known = shared.gathering.known()
            if known is None:
                continue
            evidence = await self._noted(known)
            forecast = await self._judge(evidence, question)
            if forecast.outcome is not Outcome.UNKNOWN:
                # More may be known soon: nothing is to keep it.
                return _Found.of(evidence, replace(forecast, valid_until=0.0))
        evidence = shared.task.result()
        return _Found.of(evidence, await self._judge(evidence, question), shared.began)

    def _profile(self, question: Question) -> MtaProfile:
        """How the MTA delivers over the transport of a question."""
        return self._profiles.get(question.transport) or self._profiles[""]

    async def _judge(self, evidence: DomainEvidence, question: Question) -> Forecast:
        profile, now = self._profile(question), self._wall()

        def work() -> Forecast:
            forecast = judge(
                evidence,
                asked=question.asked,
                carried=question.carried,
                profile=profile,
                trust=self._trust,
                now=now,
                needs=question.needs,
            )
            # The judge says when what it rests on ends (R44).
            ends = min(forecast.valid_until, now + MAX_FORECAST_LIFE)
            return replace(forecast, valid_until=ends)

        # The thread costs more than most judgements take; and while it has one, it has the trust.
        is_free = self._last_beside is None or self._last_beside.done()
        return work() if is_free and _is_light(evidence) else await self._beside_the_loop(work)

    async def _beside_the_loop(self, work: Callable[[], T]) -> T:
        """Do in a thread what takes long to judge, one after another."""
        doing = self._last_beside = self._judges.submit(work)
        return await asyncio.wrap_future(doing)

    # ------------------------------------------------------------ gathering

    def _new(self, nexthop: NextHop, *, probes: bool, since: float = ANY_AGE) -> _Shared:
        now = self._monotonic()
        gathering = Gathering(
            *(nexthop, self._source, self._config, self._wall()),
            probes=probes,
            since=since,
            profiles=tuple(self._profiles.values()),
        )
        patience = asyncio.timeout(self._config.limits.gathering_timeout)
        return _Shared(nexthop, gathering, now, patience)

    def _shared_gathering(self, nexthop: NextHop, *, probes: bool) -> _Shared:
        key = (nexthop, probes)
        shared = self._gatherings.get(key)
        if shared is None:
            if len(self._gatherings) >= self._config.limits.gatherings:
                self._counters.inc("saturated_total", (Bound.GATHERINGS,))
                self._make_room()
            shared = self._new(nexthop, probes=probes)
            shared.task = asyncio.create_task(self._gather(shared), name=str(nexthop))
            self._gatherings[key] = shared
            shared.task.add_done_callback(lambda _: self._gathering_ended(key, shared))
        return shared

    def _make_room(self) -> None:
        """End the gathering that has taken longest; what is known of it is judged.

        Raises:
            BusyError: it has not taken long.
        """
        key, oldest = next(iter(self._gatherings.items()))
        if self._monotonic() < oldest.began + MIN_GATHERING:
            raise BusyError(f"{len(self._gatherings)} next hops are being assessed")
        del self._gatherings[key]
        if oldest.gathering.is_running:
            oldest.cut = True
            oldest.patience.reschedule(asyncio.get_running_loop().time())

    def _gathering_ended(self, key: tuple[NextHop, bool], shared: _Shared) -> None:
        if self._gatherings.get(key) is shared:
            del self._gatherings[key]
        task = shared.task
        if not task.cancelled() and (error := task.exception()) is not None:
            # The questions that still wait for the gathering get the error, and report it too.
            _log.info("gathering_failed", nexthop=str(key[0]), error=repr(error))

    async def _gather(self, shared: _Shared) -> DomainEvidence:
        """Gather within the limit of time; what is not known by then is missing.

        Raises:
            TimeoutError: nothing is known.
            BusyError: nothing was known when it had to make room for another.
        """
        try:
            async with shared.patience:
                with on_behalf_of(shared.nexthop.host):
                    await shared.gathering.run()
        except TimeoutError:
            if not shared.cut:
                self._counters.inc("saturated_total", (Bound.GATHERING_TIMEOUT,))
        evidence = shared.gathering.known()
        if evidence is None:
            raise BusyError("it made room for another") if shared.cut else TimeoutError(LATE)
        for bound in bounds_met(evidence):
            self._counters.inc("saturated_total", (bound,))
        return await self._noted(evidence)

    async def _noted(self, evidence: DomainEvidence) -> DomainEvidence:
        if self._downgrades is None:
            return evidence
        downgraded_at = await self._downgrades.observe(evidence, self._wall())
        return replace(evidence, downgraded_at=downgraded_at)


def _is_light(evidence: DomainEvidence) -> bool:
    """Whether evidence is judged in less time than it takes to have a thread do it."""
    certificates = {der for host in evidence.hosts for probe in host.probes for der in probe.chain}
    return sum(map(len, certificates)) <= LIGHT_OCTETS
