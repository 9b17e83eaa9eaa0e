"""``report``: can REQUIRETLS be switched on? Brings together what the answer rests on.

Where mail goes comes from a log (:mod:`.traffic`), from a list, or from the counters of the
running service. Evidence comes from the service or from this process (:mod:`.finder`), as for
``check``. The figures and the page are made by :mod:`requiretls_milter.readiness`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TextIO

from requiretls_milter.config import Config
from requiretls_milter.engine.domains.configured import ways
from requiretls_milter.forecast.judge import judge
from requiretls_milter.ipc import query
from requiretls_milter.model import Requirement
from requiretls_milter.readiness.days import MailSource
from requiretls_milter.readiness.figures import figures, today
from requiretls_milter.readiness.judging import destination
from requiretls_milter.readiness.values import Accuracy, Downgrade, HopReadiness, Readiness
from requiretls_milter.readiness.words import mta_in_words
from requiretls_milter.reports import hopfile, inbound
from requiretls_milter.reports.assess import (
    GivenHop,
    Judging,
    MalformedError,
    each,
    listed,
    parse_all,
)
from requiretls_milter.reports.audit import Audit, audit
from requiretls_milter.reports.carrying import HostMta, asking
from requiretls_milter.reports.finder import Finder
from requiretls_milter.reports.logs.events import Event
from requiretls_milter.reports.observation import Observation
from requiretls_milter.reports.progress import ProgressLine, bar
from requiretls_milter.reports.traffic import Hop, Mail, Traffic
from requiretls_milter.syntax import nexthop
from requiretls_milter.telemetry.labels import AuditResult

MAX_LISTED = 1_000_000
"""Next hops of a list that are told apart; what follows them is counted together."""

TICK = 0.25
"""Seconds between two progress lines."""


@dataclass(frozen=True, slots=True)
class MailFound:
    """Where mail goes, and what else a log tells.

    Attributes:
        source: where that is from.
        mail: by next hop; each counts 0 if it is not known how much there is.
        downgrades: as a log tells them.
        accuracy: of the forecasts in a log; None if there are none.
        mistakes: lines of a list that are no next hops, a sentence each.
    """

    source: MailSource
    mail: Mail
    downgrades: tuple[Downgrade, ...] = ()
    accuracy: Accuracy | None = None
    mistakes: tuple[str, ...] = ()


# ---------------------------------------------------------------- where mail goes


def in_logs(events: Iterable[Event], config: Config) -> MailFound:
    """Count the mail in logs, and compare the forecasts among them with the deliveries."""
    traffic = Traffic(config.mta)
    audited = audit(traffic.counted(events))
    return MailFound(
        MailSource.LOG,
        traffic.mail,
        traffic.downgrades,
        _accuracy(audited) if traffic.forecasts else None,
    )


def _accuracy(audited: Audit) -> Accuracy:
    return Accuracy(**{result.value: audited.results[result] for result in AuditResult})


def in_list(file: TextIO, config: Config) -> MailFound:
    """Read next hops from a file, one a line, as ``check --from`` does."""
    transport = config.mta.usual_transport
    mail, mistakes = Mail(), []
    for line in hopfile.lines_of(file):
        if line.is_too_long:
            mistakes.append(f"line {line.number}: more than {hopfile.MAX_LINE} characters")
            continue
        try:
            given = parse_all([line.text], config.mta, transport)
        except MalformedError as error:
            mistakes += [f"line {line.number}: {mistake}" for mistake in error.mistakes]
            continue
        for one in given:
            if len(mail.hops) < MAX_LISTED:
                mail.hops[Hop(str(one.nexthop), transport)] = 0
    return MailFound(MailSource.LIST, mail, mistakes=tuple(mistakes))


def in_counters(config: Config) -> MailFound:
    """The configured domains, with the mail that a running service has counted for them."""
    try:
        counted: Mapping[str, int] = query.report(config.engine.socket, MailSource.COUNTERS).mail
    except query.EngineUnavailable:
        counted = {}
    mail = Mail(others=sum(counted.values()))
    for name, way in ways(config):
        hop = Hop(str(way.nexthop), way.transport)
        recipients = counted.get(name, 0)
        mail.hops[hop] = mail.hops.get(hop, 0) + recipients
        mail.others -= recipients
    return MailFound(MailSource.COUNTERS, mail)


# ---------------------------------------------------------------- the report


def report(
    found: MailFound, config: Config, mta: HostMta, *, limit: int, keeps_history: bool = True
) -> Readiness:
    """Assess the next hops to which most mail goes, and put a report together.

    Args:
        found: where mail goes.
        config: the configuration in force.
        mta: that of this host.
        limit: next hops to assess at most.
        keeps_history: whether a running service is to keep the figures.

    Raises:
        TrustStoreError: ``probe.ca_file`` cannot be used.
    """
    judging = Judging.of(
        config,
        Requirement.REQUIRETLS,
        mta=mta,
        carried=None,
        transport=config.mta.usual_transport,
    )
    order = sorted(found.mail.hops.items(), key=lambda item: (-item[1], item[0]))
    chosen, rest = order[:limit], order[limit:]
    assessment = _Assessment(judging, dict(chosen))
    assessment.run()
    looked = inbound.look(config.watch.domains, config) if config.watch.domains else None
    made = Readiness(
        made_at=time.time(),
        source=found.source,
        mta=mta_in_words(mta.version, mta.capability),
        destinations=tuple(assessment.destinations),
        left_out=len(rest) + assessment.unusable,
        left_out_mail=sum(mail for _, mail in rest) + found.mail.others + assessment.unusable_mail,
        since=found.mail.since,
        until=found.mail.until,
        resolver_validates=assessment.validates,
        downgrades=found.downgrades,
        own=looked.reports if looked is not None else None,
        accuracy=found.accuracy,
    )
    return _with_history(made, config, keeps_history)


def _with_history(made: Readiness, config: Config, keeps: bool) -> Readiness:
    """Have a running service keep the figures; only it may open its store."""
    kept = today(made, figures(made)) if keeps and made.destinations else None
    try:
        reply = query.report(config.engine.socket, made.source, keep=kept)
    except query.EngineUnavailable:
        return made
    return replace(made, days=reply.days, is_kept=True)


class _Assessment:
    """Assesses next hops, those of one transport after those of another."""

    def __init__(self, judging: Judging, mail: Mapping[Hop, int]) -> None:
        self._judging = judging
        self._mail = mail
        self._progress = ProgressLine(sys.stderr)
        self.destinations: list[HopReadiness] = []
        self.validates = True
        self.unusable = 0
        self.unusable_mail = 0

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        config, trust = self._judging.config, self._judging.trust
        ticking = asyncio.create_task(self._tick())
        try:
            async with Finder(config, trust, refresh=False) as finder:
                for transport in dict.fromkeys(hop.transport for hop in self._mail):
                    await self._assess(transport, finder)
        finally:
            ticking.cancel()
            self._progress.clear()

    async def _assess(self, transport: str, finder: Finder) -> None:
        reporter = _Reporter(replace(self._judging, transport=transport), self._mail)
        async for one in each(listed(self._given(transport)), finder, reporter):
            self.destinations.append(one.report)
        self.validates = self.validates and reporter.validates

    def _given(self, transport: str) -> Sequence[GivenHop]:
        given = []
        for hop, mail in self._mail.items():
            if hop.transport != transport:
                continue
            try:
                given.append(GivenHop(hop.nexthop, nexthop.parse(hop.nexthop)))
            except nexthop.NextHopError:
                self.unusable += 1
                self.unusable_mail += mail
        return given

    async def _tick(self) -> None:
        total = len(self._mail)
        while self._progress.is_shown:
            await asyncio.sleep(TICK)
            done = len(self.destinations)
            self._progress.show(f"{bar(done, total)} {done} of {total} next hops")


@dataclass(slots=True)
class _Reporter:
    """Judges what is found of the next hops of one transport."""

    judging: Judging
    mail: Mapping[Hop, int]
    pending: dict[int, str] = field(default_factory=dict)
    validates: bool = True

    def report(self, given: GivenHop, found: Observation) -> HopReadiness:
        judging, now = self.judging, time.time()
        self.validates = self.validates and found.resolver_validates
        rule = given.rule(judging.ruleset)
        asked = asking(judging.requirement, rule, judging.mta, judging.carried)
        mta = judging.config.mta
        profile = mta.profile_for(mta.carrier(judging.transport, asked.requirement))
        forecast = judge(
            found.evidence,
            asked=asked.requirement,
            carried=asked.carried,
            profile=profile,
            trust=judging.trust,
            now=now,
        )
        return destination(
            given.given,
            self.mail[Hop(given.given, judging.transport)],
            found.evidence,
            forecast,
            profile=profile,
            trust=judging.trust,
            now=now,
        )
