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
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from requiretls_milter.config import Config
from requiretls_milter.engine.answers import ANSWERS, Answers
from requiretls_milter.engine.assessor import Assessor
from requiretls_milter.engine.cache import CachedSource
from requiretls_milter.engine.policies import REFRESH_INTERVAL
from requiretls_milter.engine.process import REFRESH_JITTER
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
from tests.bench.rows import Effort, Row
from tests.support import build, virtualtime
from tests.support.virtualtime import VirtualClocks

DAY = 86_400.0
BEFORE = 3
"""Days that go before, and for which a domain counts as one that was seen lately."""

DOMAINS = 20_000
"""To which there is mail at all; the n-th gets a share of 1/n."""

WORKERS = 2

GOAL_WAITING, GOAL_PROBES = 0.01, 1.05

LOOKUP, FETCH, SESSION = 0.03, 0.25, 0.4
"""Seconds that a lookup, the fetch of a policy and a session with a server take."""

SETTINGS = {
    "mta": {"tls_security_level": "dane"},
    "rules": {"mode": "reject"},
}

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
name for each domain, with one of 40 hosters that have 2 each, with their own servers (1 or 2)."""

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
        expires = now + _ttl(domain, MX_TTLS)
        return MxEvidence(DnsOutcome.FOUND, True, records, canonical=domain, expires=expires)

    async def srv(self, name: str, *, since: float = ANY_AGE) -> MxEvidence:
        raise NotImplementedError

    async def addresses(self, host: str, *, since: float = ANY_AGE) -> AddressLookup:
        now = await self._after("lookups", LOOKUP)
        expires = now + _ttl(host, ADDRESS_TTLS)
        return AddressLookup(DnsOutcome.FOUND, True, _addresses(host), host, expires=expires)

    async def tlsa(
        self, host: str, port: int, addresses: AddressLookup, *, since: float = ANY_AGE
    ) -> TlsaEvidence:
        now = await self._after("lookups", LOOKUP)
        expires = now + _ttl(host, TLSA_TTLS)
        record = build.certificate().tlsa()
        return TlsaEvidence(True, DnsOutcome.FOUND, True, host, (record,), expires=expires)

    async def mta_sts_record(self, domain: str) -> StsRecord:
        now = await self._after("lookups", LOOKUP)
        return StsRecord("1", expires=now + _ttl(domain, POLICY_TTLS))

    async def mta_sts(self, domain: str, *, since: float = ANY_AGE) -> MtaStsEvidence:
        if not _has_policy(domain):
            now = await self._after("lookups", LOOKUP)
            left = min(_ttl(domain, NEGATIVE_TTLS), MAX_NEGATIVE)
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


def _chance(seed: object) -> random.Random:
    """What is random in the simulation, and the same each time."""
    return random.Random(str(seed))  # noqa: S311 - not to be secret


def _ttl(name: str, ttls: Sequence[int]) -> int:
    """The whole TTL: the resolver is this host's own, and nobody else asks it for these names."""
    return _chance(name).choice(ttls)


@functools.cache
def _hosts(domain: str) -> tuple[str, ...]:
    chance = _chance(f"hosts of {domain}")
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
    chance = _chance(f"addresses of {host}")
    several = 2 if host.endswith("tenants.example") else 1
    return tuple(f"10.{chance.randrange(256)}.{chance.randrange(256)}.{n}" for n in range(several))


@functools.cache
def _has_policy(domain: str) -> bool:
    return _chance(f"policy of {domain}").random() < POLICIES


# ---------------------------------------------------------------- the traffic


def traffic(messages: int) -> Iterator[tuple[float, str]]:
    """When a message comes, and for which domain: *messages* a day, in :data:`BEFORE` days more."""
    chance = _chance(messages)
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
    that waited for the network; ``stale``: those of all that got a forecast past its life;
    ``oldest``: for how many seconds it was over at most. ``asked``: what went to the network.
    """

    messages: int = 0
    seen: int = 0
    waited: int = 0
    stale: int = 0
    oldest: float = 0.0
    asked: Counter[str] = field(default_factory=Counter)

    @property
    def waiting(self) -> float:
        return self.waited / max(1, self.seen)


@dataclass(frozen=True)
class Case:
    """How the service is set up: ``stale_for``, and what the MTA carries of what is asked."""

    title: str
    stale_for: int
    carried: Requirement = Requirement.REQUIRETLS


BEFORE_IT = Case("stale_for = 0", 0)
AS_INSTALLED = Case("as installed", Config().engine.stale_for)
BY_US_ALONE = Case("MTA carries nothing", AS_INSTALLED.stale_for, Requirement.NONE)

CASES = {2_000: (BEFORE_IT, AS_INSTALLED, BY_US_ALONE), 20_000: (BEFORE_IT, AS_INSTALLED)}
QUICK_CASES = {100: (BEFORE_IT, AS_INSTALLED)}
"""By the number of messages a day."""


class _Day:
    """A service in the simulation, and what is counted of it."""

    def __init__(self, case: Case, clocks: VirtualClocks) -> None:
        self._case = case
        self._clocks = clocks
        self._chance = _chance(1)
        config = Config.model_validate(SETTINGS)
        limit = config.limits.forecast_cache
        counters, troubles = Counters(), Troubles(clocks)
        self._internet = Internet(clocks)
        self._source = CachedSource(
            self._internet,
            MemoryStore(),
            config,
            counters,
            authorities="",
            troubles=troubles,
            clocks=clocks,
            jitter=self._chance.random,
        )
        answers = (
            Answers(case.stale_for, ANSWERS * limit, troubles, clocks) if case.stale_for else None
        )
        self._assessor = Assessor(
            config,
            self._source,
            load_trust_store(""),
            counters,
            Gauges(),
            answers=answers,
            clocks=clocks,
        )
        self._workers = [KeptForecasts(limit, clocks) for _ in range(WORKERS)]
        self._mail_at: dict[str, float] = {}
        self._counted = Counted()

    async def run(self, messages: int) -> Counted:
        """Let the days pass; returns what the last one brought."""
        passes = asyncio.create_task(self._work_behind())
        began = BEFORE * DAY
        before: Counter[str] | None = None
        async with asyncio.TaskGroup() as tasks:
            for at, domain in traffic(messages):
                await asyncio.sleep(max(0.0, at - self._clocks.monotonic()))
                if at >= began and before is None:
                    before = Counter(self._internet.asked)
                tasks.create_task(self._message(domain, counts=at >= began))
        await asyncio.sleep(max(0.0, began + DAY - self._clocks.monotonic()))
        self._counted.asked = self._internet.asked - (before or Counter())
        passes.cancel()
        await self._assessor.close()
        await self._source.close()
        return self._counted

    async def _message(self, domain: str, *, counts: bool) -> None:
        began = self._clocks.monotonic()
        seen = began - self._mail_at.get(domain, -math.inf) <= BEFORE * DAY
        self._mail_at[domain] = began
        worker = self._chance.choice(self._workers)
        question = Question(domain, "smtp", Requirement.REQUIRETLS, self._case.carried)
        forecast = worker.recall(question)
        if forecast is None:
            forecast = await self._assessor.answer(question, worker.end(question))
            worker.keep(question, forecast)
        if counts:
            self._counted.messages += 1
            self._counted.seen += seen
            self._counted.waited += seen and self._clocks.monotonic() > began
            self._counted.stale += forecast.stale > 0
            self._counted.oldest = max(self._counted.oldest, forecast.stale)

    async def _work_behind(self) -> None:
        """The engine's background passes."""
        while True:
            await asyncio.sleep(REFRESH_INTERVAL * (1.0 - REFRESH_JITTER * self._chance.random()))
            await self._source.refresh_policies()
            await self._assessor.confirm_answers()


def simulated(case: Case, messages: int) -> Counted:
    """Simulate one service."""
    return virtualtime.run(lambda clocks: _Day(case, clocks).run(messages))


def day(effort: Effort) -> Row:
    """Simulate a day with each number of messages, and each case."""
    lines, data, notes = [], [], []
    for messages, cases in (QUICK_CASES if effort.quick else CASES).items():
        sessions = 0
        for case in cases:
            counted = simulated(case, messages)
            sessions = sessions or counted.asked["sessions"]
            probes = counted.asked["sessions"] / max(1, sessions)
            lines.append(
                (
                    case.title,
                    f"{messages:,}",
                    f"{counted.seen:,}",
                    f"{counted.waiting:.1%}",
                    f"{counted.stale:,}",
                    f"{counted.oldest / 3_600:.0f}",
                    f"{counted.asked['sessions']:,}",
                    f"{probes:.2f}",
                    f"{counted.asked['lookups']:,}",
                )
            )
            data.append(
                {
                    "case": case.title,
                    "messages": messages,
                    "seen": counted.seen,
                    "waited": counted.waited,
                    "stale": counted.stale,
                    "oldest": counted.oldest,
                    "probes_ratio": probes,
                    **counted.asked,
                }
            )
            if case is AS_INSTALLED:
                met = counted.waiting <= GOAL_WAITING and probes <= GOAL_PROBES
                notes.append(
                    f"{messages:,} messages: goal, at most {GOAL_WAITING:.0%} wait with at "
                    f"most {GOAL_PROBES} times the probes: {'met' if met else 'not met'}"
                )
    return Row(
        "day",
        "the fourth of four days, simulated: which messages for domains seen lately wait",
        lines=tuple(lines),
        columns=(
            "case",
            "messages",
            "seen",
            "wait",
            "stale",
            "hours",
            "probes",
            "ratio",
            "lookups",
        ),
        notes=tuple(notes),
        data=tuple(data),
    )
