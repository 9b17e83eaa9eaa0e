"""``check``: from next hops on the command line to reports.

The evidence comes from the engine of a running service if its ``[mta]``,
``[dns]`` and ``[probe]`` are the same as in this configuration, and its certification
authorities are those that the file has now. Otherwise it is gathered here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from requiretls_milter.config import Config, Mta
from requiretls_milter.engine.assessor import Assessor
from requiretls_milter.engine.cache import CachedSource
from requiretls_milter.engine.shares import AllShares
from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.evidence.collector import Collector
from requiretls_milter.evidence.selftest import ResolverWatch
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.ipc import query
from requiretls_milter.model import (
    DomainEvidence,
    Forecast,
    NextHop,
    ProfileName,
    Question,
    Requirement,
)
from requiretls_milter.reports.carrying import HostMta, asking
from requiretls_milter.reports.check import NextHopReport, exit_status, next_hop_report
from requiretls_milter.reports.check_text import to_text
from requiretls_milter.rules import RuleSet
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.syntax.nexthop import SEPARATOR, NextHopError, UnusableNextHopError
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters, Gauges

__all__ = ["GivenHop", "MalformedError", "exit_status", "parse_all", "run", "to_json", "to_text"]

STATUS_TIMEOUT = 2.0
"""Seconds for a running engine's status, which a healthy engine sends in milliseconds."""

MAX_AT_ONCE = 16
"""Next hops for which the running engine is queried at the same time."""


class MalformedError(RequiretlsMilterError):
    """The command line is wrong: ``mistakes`` has a sentence for each text that is no next hop."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, slots=True)
class GivenHop:
    """A next hop as it stands on the command line, and parsed."""

    given: str
    nexthop: NextHop


def parse_all(texts: Sequence[str], mta: Mta, transport: str) -> tuple[GivenHop, ...]:
    """Parse all *texts* as the MTA takes them over *transport*.

    Each next hop of a list (Postfix 3.5: ``a.example, b.example``) is assessed by itself.

    Raises:
        MalformedError: at least one is no next hop.
    """
    given, mistakes = [], []
    postfix = mta.profile is ProfileName.POSTFIX
    for text in texts:
        for one in filter(None, SEPARATOR.split(text)) if text.strip(", \t\r\n") else (text,):
            try:
                given.append(GivenHop(one, mta.nexthop_of(one, transport, postfix=postfix)))
            except UnusableNextHopError as error:
                mistakes.append(
                    f"{error}. Postfix dies of such a next hop, and its mail stays in the queue"
                )
            except NextHopError as error:
                mistakes.append(str(error))
    if mistakes:
        raise MalformedError(mistakes)
    return tuple(given)


def run(
    given: Sequence[GivenHop],
    config: Config,
    requirement: Requirement,
    *,
    mta: HostMta,
    carried: Requirement | None,
    transport: str,
    refresh: bool,
) -> list[NextHopReport]:
    """Assess each next hop; this takes as long as the time-outs of the slowest server.

    Args:
        given: the next hops; each may occur more than once.
        config: the configuration in force.
        requirement: what the message asks for.
        mta: the MTA of this host.
        carried: what the MTA is to act on, whatever it is; None if it is that of this host.
        transport: the MTA's transport, whose overrides in ``[mta.transport]`` apply.
        refresh: probe again, whatever a running engine already knows.

    Raises:
        TrustStoreError: ``probe.ca_file`` cannot be used.
    """
    trust = load_trust_store(config.probe.ca_file)
    log.configure(config.log.format.value, "warning")
    hops = list(dict.fromkeys(one.nexthop for one in given))
    found = _from_engine(hops, config, trust, refresh)
    if found is None:
        found = asyncio.run(_gathered_here(hops, config, trust))
    now = time.time()
    ruleset = RuleSet(config.rules)
    return [
        next_hop_report(
            one.given,
            found[one.nexthop],
            asking=asking(requirement, ruleset.of_nexthop(one.nexthop), mta, carried),
            profile=config.mta.profile_for(transport),
            trust=trust,
            now=now,
        )
        for one in given
    ]


def _from_engine(
    hops: Sequence[NextHop], config: Config, trust: TrustStore, refresh: bool
) -> dict[NextHop, DomainEvidence] | None:
    """Get the evidence of a running engine; None without one that assesses as this config does."""
    path = config.engine.socket
    try:
        running = query.status(path, STATUS_TIMEOUT)
        if running.assessment_digest != config.assessment_digest(trust.digest):
            return None
        with ThreadPoolExecutor(MAX_AT_ONCE) as pool:
            answers = pool.map(lambda hop: query.evidence(path, str(hop), refresh=refresh), hops)
            return dict(zip(hops, answers, strict=True))
    except query.EngineUnavailable:
        return None


async def _gathered_here(
    hops: Sequence[NextHop], config: Config, trust: TrustStore
) -> dict[NextHop, DomainEvidence]:
    """Gather the evidence in this process; hosts that several next hops share are probed once."""
    async with _assessor(config, trust) as assessor:
        evidence = await asyncio.gather(*(assessor.evidence(hop) for hop in hops))
        return dict(zip(hops, evidence, strict=True))


@dataclass(frozen=True, slots=True)
class Answered:
    """What a question is answered, and from what.

    Attributes:
        forecast: as a worker gets it.
        evidence: of the next hop.
        trust: the certification authorities that count.
        by_service: whether the running service answered; this process did otherwise.
    """

    forecast: Forecast
    evidence: DomainEvidence
    trust: TrustStore
    by_service: bool


def answer(question: Question, nexthop: NextHop, config: Config) -> Answered:
    """Answer a question as the service does, which is asked if it would answer the same.

    Raises:
        TrustStoreError: ``probe.ca_file`` cannot be used.
    """
    trust = load_trust_store(config.probe.ca_file)
    log.configure(config.log.format.value, "warning")
    path = config.engine.socket
    try:
        running = query.status(path, STATUS_TIMEOUT)
        if running.assessment_digest == config.assessment_digest(trust.digest):
            forecast = query.forecast(path, question)
            evidence = query.evidence(path, question.nexthop)
            return Answered(forecast, evidence, trust, by_service=True)
    except query.EngineUnavailable:
        pass
    forecast, evidence = asyncio.run(_answered_here(question, nexthop, config, trust))
    return Answered(forecast, evidence, trust, by_service=False)


async def _answered_here(
    question: Question, nexthop: NextHop, config: Config, trust: TrustStore
) -> tuple[Forecast, DomainEvidence]:
    async with _assessor(config, trust) as assessor:
        evidence = await assessor.evidence(nexthop)
        return await assessor.assess(question), evidence


@contextlib.asynccontextmanager
async def _assessor(config: Config, trust: TrustStore) -> AsyncIterator[Assessor]:
    """An engine's assessor in this process; its resolver is tested meanwhile."""
    counters = Counters()
    limiters = AllShares.of(config.limits, counters).limiters()
    live = Collector(config, trust, limiters=limiters)
    source = CachedSource(live, MemoryStore(), config, counters, authorities=trust.digest)
    assessor = Assessor(config, source, trust, counters, Gauges())
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ResolverWatch(live.resolver, config).test_now())
            yield assessor
    finally:
        await assessor.close()
        await source.close()
        await live.close()


def to_json(reports: Sequence[NextHopReport]) -> str:
    """Return one array with an object for each next hop, in order, in ASCII."""
    return json.dumps(reports, indent=2)
