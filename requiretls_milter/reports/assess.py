"""``check``: from next hops to reports, each as soon as it is known."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from requiretls_milter.config import Config, Mta
from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.forecast.pkix import TrustStore
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
from requiretls_milter.reports.finder import AT_ONCE, Finder
from requiretls_milter.reports.observation import Observation, ObservedBy
from requiretls_milter.rules import Rule, RuleSet
from requiretls_milter.syntax.nexthop import SEPARATOR, NextHopError, UnusableNextHopError

__all__ = [
    "Assessed",
    "GivenHop",
    "Judging",
    "MalformedError",
    "Reporter",
    "each",
    "exit_status",
    "listed",
    "parse_all",
    "run",
    "to_json",
    "to_text",
]


class MalformedError(RequiretlsMilterError):
    """The command line is wrong: ``mistakes`` has a sentence for each text that is no next hop."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, slots=True)
class GivenHop:
    """A next hop as it stands on the command line, and parsed.

    ``domain`` is that of the recipients, if mail to it goes to this next hop by the routing of the
    MTA; "" if that is not known.
    """

    given: str
    nexthop: NextHop
    domain: str = ""

    def rule(self, ruleset: RuleSet) -> Rule:
        """The rule for mail to the next hop, whoever sends it."""
        if self.domain:
            return ruleset.find("", self.domain, self.nexthop.host)
        return ruleset.of_nexthop(self.nexthop)


Report = TypeVar("Report")
Made = TypeVar("Made", covariant=True)


@dataclass(frozen=True, slots=True)
class Assessed(Generic[Report]):
    """A report, with the place of its next hop among those given, from 0."""

    number: int
    report: Report


class Reporter(Protocol[Made]):
    """Makes reports of what is found."""

    @property
    def pending(self) -> dict[int, str]:
        """The next hops that are worked on now."""
        ...

    def report(self, given: GivenHop, found: Observation) -> Made:
        """Judge what was found of a next hop."""
        ...


@dataclass(frozen=True, slots=True)
class Judging:
    """How evidence is judged and reported.

    Attributes:
        config: the configuration in force.
        requirement: what the message asks for.
        mta: the MTA of this host.
        carried: what the MTA is to act on, whatever it is; None if it is that of this host.
        transport: the MTA's transport, whose overrides in ``[mta.transport]`` apply.
        trust: the certification authorities that count.
        ruleset: the operator's rules.
        detailed: report certificates and dialogues too.
        pending: the next hops that are worked on now.
    """

    config: Config
    requirement: Requirement
    mta: HostMta
    carried: Requirement | None
    transport: str
    trust: TrustStore
    ruleset: RuleSet
    detailed: bool = False
    pending: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        config: Config,
        requirement: Requirement,
        *,
        mta: HostMta,
        carried: Requirement | None,
        transport: str,
        detailed: bool = False,
    ) -> Judging:
        """Load the authorities and the rules.

        Raises:
            TrustStoreError: ``probe.ca_file`` cannot be used.
        """
        trust = load_trust_store(config.probe.ca_file)
        ruleset = RuleSet(config.rules)
        return cls(config, requirement, mta, carried, transport, trust, ruleset, detailed)

    def report(self, given: GivenHop, found: Observation) -> NextHopReport:
        """Judge what was found of a next hop."""
        rule = given.rule(self.ruleset)
        return next_hop_report(
            given.given,
            found,
            asking=asking(self.requirement, rule, self.mta, self.carried),
            profile=self.config.mta.profile_for(self.transport),
            trust=self.trust,
            now=time.time(),
            detailed=self.detailed,
        )


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
                    f"{error}. Postfix cannot use such a next hop: its mail stays in the queue"
                )
            except NextHopError as error:
                mistakes.append(str(error))
    if mistakes:
        raise MalformedError(mistakes)
    return tuple(given)


async def each(
    hops: AsyncIterator[GivenHop], finder: Finder, judging: Reporter[Report]
) -> AsyncIterator[Assessed[Report]]:
    """Assess next hops, :data:`~.finder.AT_ONCE` at a time, and give each as soon as it is known.

    Next hops are taken from *hops* only when there is room for them.
    """
    tasks: set[asyncio.Task[Assessed[Report]]] = set()
    numbers = itertools.count()

    async def one(number: int, given: GivenHop) -> Assessed[Report]:
        judging.pending[number] = given.given
        try:
            found = await finder.find(given.nexthop)
        finally:
            del judging.pending[number]
        return Assessed(number, judging.report(given, found))

    more: asyncio.Task[GivenHop | None] | None = asyncio.create_task(_next(hops))
    try:
        while more is not None or tasks:
            waiting: set[asyncio.Task[Any]] = {*tasks}
            if more is not None and len(tasks) < AT_ONCE:
                waiting.add(more)
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if more is not None and more in done:
                given = more.result()
                more = None
                if given is not None:
                    tasks.add(asyncio.create_task(one(next(numbers), given)))
                    more = asyncio.create_task(_next(hops))
            for task in done & tasks:
                tasks.remove(task)
                yield task.result()
    finally:
        left = [*tasks, more] if more is not None else [*tasks]
        for left_over in left:
            left_over.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _next(hops: AsyncIterator[GivenHop]) -> GivenHop | None:
    return await anext(hops, None)


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
    """Assess next hops and report them in order, once all are known.

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
    judging = Judging.of(config, requirement, mta=mta, carried=carried, transport=transport)

    async def assess() -> list[Assessed[NextHopReport]]:
        async with Finder(config, judging.trust, refresh=refresh) as finder:
            return [one async for one in each(listed(given), finder, judging)]

    assessed = asyncio.run(assess())
    return [one.report for one in sorted(assessed, key=lambda one: one.number)]


async def listed(given: Iterable[GivenHop]) -> AsyncIterator[GivenHop]:
    """Give next hops that are known already."""
    for one in given:
        yield one


@dataclass(frozen=True, slots=True)
class Answered:
    """What a question is answered, and from what.

    Attributes:
        forecast: as a worker gets it.
        found: the evidence of the next hop, and who looked.
        trust: the certification authorities that count.
    """

    forecast: Forecast
    found: Observation
    trust: TrustStore

    @property
    def evidence(self) -> DomainEvidence:
        """The evidence of the next hop."""
        return self.found.evidence

    @property
    def by_service(self) -> bool:
        """Whether the running service answered; this process did otherwise."""
        return self.found.by is ObservedBy.SERVICE


def answer(question: Question, nexthop: NextHop, config: Config) -> Answered:
    """Answer a question as the service does, which is asked if it would answer the same.

    Raises:
        TrustStoreError: ``probe.ca_file`` cannot be used.
    """
    trust = load_trust_store(config.probe.ca_file)

    async def answered() -> Answered:
        async with Finder(config, trust, refresh=False) as finder:
            return Answered(*await finder.answer(question, nexthop), trust)

    return asyncio.run(answered())


def to_json(reports: Sequence[NextHopReport]) -> str:
    """Return one array with an object for each next hop, in order, in ASCII."""
    return json.dumps(reports, indent=2)
