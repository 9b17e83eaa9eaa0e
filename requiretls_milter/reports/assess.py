"""``check``: from next hops on the command line to reports.

The evidence comes from the engine of a running service, where one runs with
the same ``[mta]``, ``[dns]`` and ``[probe]``; else it is gathered here.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from requiretls_milter.config import Config
from requiretls_milter.engine.assessor import Assessor
from requiretls_milter.engine.cache import CachedSource
from requiretls_milter.evidence.collector import Collector
from requiretls_milter.evidence.selftest import ResolverWatch
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.ipc import client
from requiretls_milter.model import DomainEvidence, NextHop, Requirement
from requiretls_milter.reports.check import NextHopReport, exit_status, report
from requiretls_milter.reports.check_text import to_text
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.syntax.nexthop import NextHopError, parse
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters, Gauges

__all__ = ["Asked", "MalformedError", "exit_status", "parse_all", "run", "to_json", "to_text"]

STATUS_TIMEOUT = 2.0
"""Seconds that a running engine has to say who it is: it does so at once, or is in trouble."""

MAX_AT_ONCE = 16
"""Next hops that the running engine is asked for at the same time."""


class MalformedError(ValueError):
    """Next hops that are none; ``mistakes`` has a sentence for each."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, slots=True)
class Asked:
    """A next hop as given, and what it means."""

    given: str
    nexthop: NextHop


def parse_all(texts: Sequence[str]) -> tuple[Asked, ...]:
    """Parse all; raises :class:`MalformedError` where any is no next hop."""
    asked, mistakes = [], []
    for text in texts:
        try:
            asked.append(Asked(text, parse(text)))
        except NextHopError as error:
            mistakes.append(str(error))
    if mistakes:
        raise MalformedError(mistakes)
    return tuple(asked)


def run(
    asked: Sequence[Asked],
    config: Config,
    requirement: Requirement,
    *,
    transport: str,
    refresh: bool,
) -> list[NextHopReport]:
    """Assess each; takes as long as the slowest server's time-outs.

    Raises:
        TrustStoreError: ``probe.ca_file`` cannot be used.
    """
    trust = TrustStore.load(config.probe.ca_file)
    log.configure(config.log.format.value, "warning")
    hops = list(dict.fromkeys(one.nexthop for one in asked))
    found = _from_engine(hops, config, refresh)
    if found is None:
        found = asyncio.run(_gathered_here(hops, config, trust))
    now = time.time()
    return [
        report(
            one.given,
            found[one.nexthop],
            requirement=requirement,
            profile=config.mta.profile_for(transport),
            trust=trust,
            now=now,
        )
        for one in asked
    ]


def _from_engine(
    hops: Sequence[NextHop], config: Config, refresh: bool
) -> dict[NextHop, DomainEvidence] | None:
    """The evidence of a running engine that looks at the world as we would; None: there is none."""
    path = config.engine.socket
    try:
        if client.status(path, STATUS_TIMEOUT).assessment_digest != config.assessment_digest():
            return None
        with ThreadPoolExecutor(MAX_AT_ONCE) as pool:
            answers = pool.map(lambda hop: client.evidence(path, str(hop), refresh=refresh), hops)
            return dict(zip(hops, answers, strict=True))
    except client.EngineUnavailable:
        return None


async def _gathered_here(
    hops: Sequence[NextHop], config: Config, trust: TrustStore
) -> dict[NextHop, DomainEvidence]:
    """Look for ourselves: hosts that several next hops share are looked at once."""
    counters = Counters()
    live = Collector(config)
    source = CachedSource(
        live, store=MemoryStore(), retry_after=config.probe.retry_after, counters=counters
    )
    assessor = Assessor(config, source, trust, counters, Gauges())
    try:
        test = ResolverWatch(live.resolver, config).look()
        gathered = asyncio.gather(*(assessor.evidence(hop) for hop in hops))
        _, evidence = await asyncio.gather(test, gathered)
        return dict(zip(hops, evidence, strict=True))
    finally:
        await assessor.close()
        await source.close()
        await live.close()


def to_json(reports: Sequence[NextHopReport]) -> str:
    """One array, an object for each next hop, in order; ASCII, for any terminal and script."""
    return json.dumps(reports, indent=2)
