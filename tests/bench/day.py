"""Row ``day``: a simulated day, and which of its messages wait for the network.

The engine's assessor, cache and answers and the workers' forecasts are the real ones, on a virtual
clock. Only what the network says is made up: the popularity of domains follows Zipf's law, most
share the servers of a few providers, and TTLs, policies and latencies are as they are found. Three
days go before the one that is counted, so that it begins with what an engine has then.
"""

from __future__ import annotations

import asyncio
import bisect
import functools
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from requiretls_milter.config import Config
from requiretls_milter.engine.answers import Answers
from requiretls_milter.engine.assessor import Assessor
from requiretls_milter.engine.cache import CachedSource
from requiretls_milter.engine.policies import REFRESH_INTERVAL
from requiretls_milter.engine.troubles import Troubles
from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.evidence.gathering import ANY_AGE
from requiretls_milter.evidence.mta_sts import MAX_NEGATIVE, StsRecord
from requiretls_milter.evidence.probe import FRESH
from requiretls_milter.ipc.kept import KeptForecasts
from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    MailProtocol,
    MtaStsEvidence,
    MtaStsMode,
    MtaStsPolicy,
    MxEvidence,
    MxRecord,
    ProbeEvidence,
    Question,
    Requirement,
    TlsaEvidence,
)
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.counting import Counters, Gauges
from tests.bench.rows import Effort, Row, number
from tests.support import build
from tests.support.virtualtime import VirtualClocks, run

DAY = 86_400.0
BEFORE = 3
"""Days that go before, and for which a domain counts as one that was seen lately."""

DOMAINS = 20_000
"""To which there is mail at all; the n-th gets a share of 1/n."""

WORKERS = 2

GOAL_WAITING, GOAL_PROBES = 0.01, 1.05

LOOKUP, FETCH, SESSION = 0.03, 0.25, 0.4
"""Seconds that a lookup, the fetch of a policy and a session with a server take."""

NIGHT = 1 / 6
"""The traffic of an hour of the night, as a part of that of an hour of the day (7 to 19)."""

MX_TTLS = (300, 600, 3_600, 3_600, 3_600, 14_400, 86_400)
ADDRESS_TTLS = (60, 300, 300, 3_600, 3_600, 14_400)
TLSA_TTLS = (300, 3_600, 3_600)
NEGATIVE_TTLS = (300, 900, 1_800, 3_600, 3_600, 10_800, 86_400)
POLICY_TTLS = (300, 3_600, 3_600)
"""Seconds; one of them for each name."""

POLICIES = 0.05
"""The part of the domains that has an MTA-STS policy."""

PROVIDERS = ((0.3, 5), (0.25, 0), (0.2, 2), (0.25, 1))
"""Parts of the domains: with one provider that has 5 servers for all, with one that has a server's
name for each domain, with one of 40 hosters that have 2 each, with servers of their own (1 or 2)."""

HOSTERS = 40


@dataclass
class Internet:
    """Implements the cache's LiveSource: everything is well, and says what it always said.

    Args:
        clocks: the virtual ones.
    """

    clocks: VirtualClocks
    asked: Counter[str] = field(default_factory=Counter)

    async def _after(self, kind: str, seconds: float) -> float:
        self.asked[kind] += 1
        await asyncio.sleep(seconds)
        return self.clocks.wall()

    async def mx(self, domain: str, *, since: float = ANY_AGE) -> MxEvidence:
        now = await self._after("lookups", LOOKUP)
        records = tuple(MxRecord(10 * n, host) for n, host in enumerate(_hosts(domain), 1))
        expires = now + _left(domain, MX_TTLS, now)
        return MxEvidence(DnsOutcome.FOUND, True, records, canonical=domain, expires=expires)

    async def srv(self, name: str, *, since: float = ANY_AGE) -> MxEvidence:
        raise NotImplementedError

    async def addresses(self, host: str, *, since: float = ANY_AGE) -> AddressLookup:
        now = await self._after("lookups", LOOKUP)
        expires = now + _left(host, ADDRESS_TTLS, now)
        return AddressLookup(DnsOutcome.FOUND, True, _addresses(host), host, expires=expires)

    async def tlsa(
        self, host: str, port: int, addresses: AddressLookup, *, since: float = ANY_AGE
    ) -> TlsaEvidence:
        now = await self._after("lookups", LOOKUP)
        expires = now + _left(host, TLSA_TTLS, now)
        record = build.certificate().tlsa()
        return TlsaEvidence(True, DnsOutcome.FOUND, True, host, (record,), expires=expires)

    async def mta_sts_record(self, domain: str) -> StsRecord:
        now = await self._after("lookups", LOOKUP)
        return StsRecord("1", expires=now + _left(domain, POLICY_TTLS, now))

    async def mta_sts(self, domain: str, *, since: float = ANY_AGE) -> MtaStsEvidence:
        if not _has_policy(domain):
            now = await self._after("lookups", LOOKUP)
            left = min(_left(domain, NEGATIVE_TTLS, now), MAX_NEGATIVE)
            return MtaStsEvidence(expires=now + left)
        record = await self.mta_sts_record(domain)
        now = await self._after("fetches", FETCH)
        policy = MtaStsPolicy(MtaStsMode.ENFORCE, _hosts(domain), 7 * int(DAY), "1")
        return MtaStsEvidence(policy, fetched_at=now, expires=record.expires)

    async def probe(
        self,
        address: str,
        port: int,
        server_name: str,
        protocol: MailProtocol = MailProtocol.SMTP,
        *,
        since: float = ANY_AGE,
    ) -> ProbeEvidence:
        now = await self._after("sessions", SESSION)
        return replace(build.probe(address), probed_at=now, expires=now + FRESH)


def _left(name: str, ttls: Sequence[int], now: float) -> float:
    """What is left of the TTL in the resolver, which others ask too."""
    ttl = random.Random(name).choice(ttls)
    return ttl - (now + random.Random(name + "!").random() * ttl) % ttl


@functools.cache
def _hosts(domain: str) -> tuple[str, ...]:
    chance = random.Random(f"hosts of {domain}")
    kind = chance.choices(range(len(PROVIDERS)), [part for part, _ in PROVIDERS])[0]
    if kind == 0:
        return tuple(f"mx{n}.large.example" for n in range(PROVIDERS[0][1]))
    if kind == 1:
        return (f"{domain}.tenants.example",)
    if kind == 2:
        hoster = chance.randrange(HOSTERS)
        return tuple(f"mx{n}.hoster{hoster}.example" for n in range(PROVIDERS[2][1]))
    return tuple(f"mx{n}.{domain}" for n in range(chance.choice((1, 1, 2))))


@functools.cache
def _addresses(host: str) -> tuple[str, ...]:
    chance = random.Random(f"addresses of {host}")
    several = 2 if host.endswith("tenants.example") else 1
    return tuple(f"10.{chance.randrange(256)}.{chance.randrange(256)}.{n}" for n in range(several))


@functools.cache
def _has_policy(domain: str) -> bool:
    return random.Random(f"policy of {domain}").random() < POLICIES


# ---------------------------------------------------------------- the traffic


def traffic(messages: int) -> Iterator[tuple[float, str]]:
    """When a message comes, and for which domain: *messages* a day, in :data:`BEFORE` days more."""
    chance = random.Random(messages)
    shares = list(itertools.accumulate(1 / n for n in range(1, DOMAINS + 1)))
    hours = [1.0 if 7 <= hour < 19 else NIGHT for hour in range(24)]
    times = sorted(
        day * DAY + 3600 * (chance.choices(range(24), hours)[0] + chance.random())
        for day in range(BEFORE + 1)
        for _ in range(messages)
    )
    for time in times:
        rank = bisect.bisect(shares, chance.random() * shares[-1])
        yield time, f"d{rank}.example"


@dataclass
class Counted:
    """What the last day brought.

    ``seen``: messages for a domain with mail in the three days before; ``waited``: those of them
    that waited for the network; ``stale``: those of all messages that got a forecast past its life;
    ``oldest``: for how long it was over.
    """

    messages: int = 0
    seen: int = 0
    waited: int = 0
    stale: int = 0
    oldest: float = 0.0
    asked: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Case:
    """How the service is set up: ``stale_for``, and what the MTA carries of what is asked."""

    title: str
    stale_for: int
    carried: Requirement = Requirement.REQUIRETLS


async def _simulated(case: Case, messages: int, clocks: VirtualClocks) -> Counted:
    config = Config.model_validate(
        {
            "mta": {"tls_security_level": "dane"},
            "rules": {"mode": "reject"},
            "limits": {"domain_cache": 100_000, "host_cache": 100_000, "forecast_cache": 100_000},
        }
    )
    counters, chance = Counters(), random.Random(1)
    internet, troubles = Internet(clocks), Troubles(clocks)
    source = CachedSource(
        internet,
        MemoryStore(),
        config,
        counters,
        authorities="",
        troubles=troubles,
        clocks=clocks,
        jitter=chance.random,
    )
    answers = Answers(case.stale_for, config.limits.forecast_cache, troubles, clocks)
    assessor = Assessor(
        config,
        source,
        load_trust_store(""),
        counters,
        Gauges(),
        answers=answers if case.stale_for else None,
        clocks=clocks,
    )
    kept = [KeptForecasts(config.limits.forecast_cache, clocks) for _ in range(WORKERS)]
    counted = Counted()
    last: dict[str, float] = {}
    before: Counter[str] = Counter()

    async def message(at: float, domain: str) -> None:
        worker = chance.choice(kept)
        question = Question(domain, "smtp", Requirement.REQUIRETLS, case.carried)
        forecast = worker.recall(question)
        if forecast is None:
            forecast = await assessor.answer(question, worker.end(question))
            worker.keep(question, forecast)
        if at < BEFORE * DAY:
            return
        counted.messages += 1
        counted.stale += forecast.stale > 0
        counted.oldest = max(counted.oldest, forecast.stale)

    tasks: set[asyncio.Task[None]] = set()

    async def timed(at: float, domain: str, *, seen: bool) -> None:
        began = clocks.monotonic()
        await message(at, domain)
        if at >= BEFORE * DAY and seen:
            counted.seen += 1
            counted.waited += clocks.monotonic() > began

    async def behind() -> None:
        while True:
            await asyncio.sleep(REFRESH_INTERVAL * (1.0 - 0.5 * chance.random()))
            await source.refresh_policies()
            await assessor.confirm_answers()

    passes = asyncio.create_task(behind())
    for at, domain in traffic(messages):
        await asyncio.sleep(max(0.0, at - clocks.monotonic()))
        if at >= BEFORE * DAY and not before:
            before = Counter(internet.asked)
        seen = at - last.get(domain, float("-inf")) <= BEFORE * DAY
        last[domain] = at
        task = asyncio.create_task(timed(at, domain, seen=seen))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.sleep(max(0.0, (BEFORE + 1) * DAY - clocks.monotonic()))
    counted.asked = internet.asked - before
    passes.cancel()
    await assessor.close()
    await source.close()
    return counted
