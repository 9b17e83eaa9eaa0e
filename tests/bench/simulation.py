"""A service in the simulation: the real assessor, cache, answers, shares, budgets and the workers'
forecasts, on a virtual clock, in the internet that :mod:`tests.bench.world` makes up.

Several services may share a store, as the milters of a fleet do.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from structlog.testing import capture_logs

from requiretls_milter.config import Config
from requiretls_milter.engine.answers import ANSWERS, Answers
from requiretls_milter.engine.assessor import Assessor
from requiretls_milter.engine.cache.policies import REFRESH_INTERVAL
from requiretls_milter.engine.cache.reachability import MIN_RECHECK_INTERVAL
from requiretls_milter.engine.cache.source import CachedSource
from requiretls_milter.engine.downgrades import DowngradeTracker
from requiretls_milter.engine.outage import OutageDetector
from requiretls_milter.engine.process import REFRESH_JITTER
from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.engine.troubles import Troubles
from requiretls_milter.engine.turns.shares import AllShares
from requiretls_milter.evidence.budgets import Budgets
from requiretls_milter.ipc.kept import KeptForecasts
from requiretls_milter.model import Forecast, Outcome, Question, Requirement
from requiretls_milter.store.base import Change, Record, Store, StoreKind
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.store.steady import SteadyStore
from requiretls_milter.telemetry.counting import Counters, Gauges
from tests.bench.world import DAY, Calls, Internet, World, traffic
from tests.support import build, virtualtime
from tests.support.virtualtime import VirtualClocks

BEFORE = 3
"""Days for which a domain counts as one that was seen lately."""

WORKERS = 2


@dataclass(frozen=True)
class Setup:
    """How the services are set up.

    Attributes:
        stale_for: seconds, as in ``[engine]``.
        carried: what the MTA carries of what is asked.
        mode: of the rules.
        limits: keys of ``[limits]`` that are not as installed.
        services: how many share the mail; more than one share a store.
    """

    stale_for: int = Config().engine.stale_for
    carried: Requirement = Requirement.REQUIRETLS
    mode: str = "reject"
    limits: Mapping[str, Any] = field(default_factory=dict)
    services: int = 1

    @property
    def config(self) -> Config:
        return Config.model_validate(
            {
                "mta": {"tls_security_level": "dane"},
                "rules": {"mode": self.mode},
                "engine": {"stale_for": self.stale_for},
                "limits": dict(self.limits),
            }
        )


@dataclass
class Counted:
    """What the last day brought.

    Each message had its forecast from the worker (``recalled``), past its life from the engine
    (``stale``), from the engine at once (``at_once``), or ``waited`` for the network: for DNS
    alone, or for a session as well (``waited_long``). ``seen``: messages for a domain with mail in
    the three days before; ``seen_waited``: those of them that waited; ``oldest``: for how many
    seconds a forecast's life was over at most; ``wrong``: forecasts past their life that the next
    fresh one contradicted; ``unknown``: forecasts that were.
    """

    messages: int = 0
    recalled: int = 0
    stale: int = 0
    at_once: int = 0
    waited: int = 0
    seen: int = 0
    seen_waited: int = 0
    unknown: int = 0
    wrong: int = 0
    oldest: float = 0.0
    waits: list[float] = field(default_factory=list)
    calls: Calls = field(default_factory=Calls)
    counts: Counter[str] = field(default_factory=Counter)
    store: Counter[str] = field(default_factory=Counter)
    entries: Counter[str] = field(default_factory=Counter)

    @property
    def waiting(self) -> float:
        """The part of the messages for domains seen lately that waited."""
        return self.seen_waited / max(1, self.seen)

    def wait(self, part: float) -> float:
        """Seconds that this part of those that waited did not exceed."""
        waits = sorted(self.waits)
        return waits[min(len(waits) - 1, int(part * len(waits)))] if waits else 0.0


class SharedBackend:
    """Implements Backend: a store that services share; counts operations, and takes no time."""

    shared = True
    open_deadline = read_deadline = write_deadline = 2.0
    name = "shared"

    def __init__(self, clocks: VirtualClocks, operations: Counter[str]) -> None:
        self._clocks = clocks
        self.operations = operations
        self._records: dict[tuple[StoreKind, str], Record] = {}
        self._claims: dict[tuple[StoreKind, str], tuple[str, float]] = {}
        self._tokens = 0

    async def open(self) -> None:
        """Nothing is to be opened."""

    async def check(self) -> None:
        """Nothing can be damaged."""

    async def get(self, kind: StoreKind, key: str, now: float) -> Record | None:
        self.operations["get"] += 1
        return self._alive(kind, key)

    def _alive(self, kind: StoreKind, key: str) -> Record | None:
        record = self._records.get((kind, key))
        if record is not None and record.keep_until <= self._clocks.wall():
            del self._records[kind, key]
            return None
        return record

    async def write(self, changes: Sequence[Change]) -> None:
        for kind, key, record in changes:
            self.operations[f"set {kind}" if record is not None else "del"] += 1
            if record is None:
                self._records.pop((kind, key), None)
            else:
                self._records[kind, key] = record

    async def listing(self, kind: StoreKind) -> list[tuple[str, Record]]:
        keys = [key for of, key in tuple(self._records) if of is kind]
        self.operations["scanned"] += len(self._records)
        self.operations["listed"] += len(keys)
        return [(key, found) for key in keys if (found := self._alive(kind, key)) is not None]

    async def claim(self, kind: StoreKind, key: str, seconds: float) -> str | None:
        self.operations["claim"] += 1
        now = self._clocks.monotonic()
        held = self._claims.get((kind, key))
        if held is not None and held[1] > now:
            return None
        self._tokens += 1
        self._claims[kind, key] = f"t{self._tokens}", now + seconds
        return f"t{self._tokens}"

    async def release(self, kind: StoreKind, key: str, token: str) -> None:
        self.operations["release"] += 1
        if self._claims.get((kind, key), ("", 0.0))[0] == token:
            del self._claims[kind, key]

    async def close(self) -> None:
        """Nothing is to be closed."""


class Service:
    """An engine and its workers."""

    def __init__(
        self,
        setup: Setup,
        world: World,
        clocks: VirtualClocks,
        store: Store,
        counted: Counted,
        number: int,
    ) -> None:
        self._setup = setup
        self._clocks = clocks
        self._counted = counted
        self._store = store
        self._chance = random.Random(number)  # noqa: S311 - not to be secret
        config = setup.config
        limit = config.limits.forecast_cache
        self.counters, troubles = Counters(), Troubles(clocks)
        shares = AllShares.of(config.limits, self.counters)
        internet = Internet(
            world,
            clocks,
            counted.calls,
            shares.limiters(),
            Budgets(config.limits, self.counters, monotonic=clocks.monotonic),
            self._chance,
        )
        self._source = CachedSource(
            internet,
            store,
            config,
            self.counters,
            authorities="",
            outage=OutageDetector(clocks=clocks),
            node=f"node{number}",
            troubles=troubles,
            clocks=clocks,
            jitter=self._chance.random,
        )
        kept_for = setup.stale_for
        self._answers = Answers(kept_for, ANSWERS * limit, troubles, clocks) if kept_for else None
        self._assessor = Assessor(
            config,
            self._source,
            build.trust(),
            self.counters,
            Gauges(),
            downgrades=DowngradeTracker(RecordStore(store, self.counters), self.counters, troubles),
            answers=self._answers,
            clocks=clocks,
        )
        self._workers = [KeptForecasts(limit, clocks) for _ in range(WORKERS)]
        self._mail_at: dict[str, float] = {}
        self._doubtful: dict[str, list[Forecast]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the store, and begin what is done behind the messages."""
        await self._store.start()
        self._tasks = [
            asyncio.create_task(self._refresh()),
            asyncio.create_task(self._recheck()),
        ]

    async def _refresh(self) -> None:
        """The engine's background passes; see ``engine/process.py``."""
        while True:
            await asyncio.sleep(REFRESH_INTERVAL * (1.0 - REFRESH_JITTER * self._chance.random()))
            await self._source.refresh_policies()
            await self._assessor.confirm_answers()

    async def _recheck(self) -> None:
        while True:
            await asyncio.sleep(MIN_RECHECK_INTERVAL)
            await self._source.recheck_reachability()

    async def message(self, domain: str, *, counts: bool) -> None:
        """Forecast one message that asks for REQUIRETLS."""
        began = self._clocks.monotonic()
        seen = began - self._mail_at.get(domain, -math.inf) <= BEFORE * DAY
        self._mail_at[domain] = began
        worker = self._chance.choice(self._workers)
        question = Question(domain, "smtp", Requirement.REQUIRETLS, self._setup.carried)
        forecast = worker.recall(question)
        recalled = forecast is not None
        if forecast is None:
            at_hand = self._assessor.answer_at_hand(question, worker.end(question))
            forecast = at_hand or await self._assessor.assess(question)
            worker.keep(question, forecast)
        if not counts:
            return
        seconds = self._clocks.monotonic() - began
        counted = self._counted
        counted.messages += 1
        counted.seen += seen
        counted.unknown += forecast.outcome is Outcome.UNKNOWN
        if recalled:
            counted.recalled += 1
        elif forecast.stale:
            counted.stale += 1
            counted.oldest = max(counted.oldest, forecast.stale)
        elif seconds:
            counted.waited += 1
            counted.seen_waited += seen
            counted.waits.append(seconds)
        else:
            counted.at_once += 1
        self._compare(domain, forecast)

    def _compare(self, domain: str, forecast: Forecast) -> None:
        """Count the forecasts past their life that a fresh one contradicts."""
        if forecast.stale:
            self._doubtful.setdefault(domain, []).append(forecast)
        elif forecast.outcome is not Outcome.UNKNOWN:
            past = self._doubtful.pop(domain, [])
            self._counted.wrong += sum(one.status != forecast.status for one in past)

    async def close(self) -> None:
        """Give up what is under way, and count what is kept."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        entries = self._counted.entries
        for layer, number in self._source.entries().items():
            entries[layer] += number
        entries["answers"] += len(self._answers) if self._answers is not None else 0
        entries["forecasts"] += sum(map(len, self._workers))
        for name, value in _counts(self.counters):
            self._counted.counts[name] += value
        await self._assessor.close()
        await self._source.close()
        await self._store.close()


def _counts(counters: Counters) -> Iterator[tuple[str, int]]:
    for metric, labels, value in counters.totals().counters:
        yield f"{metric} {' '.join(labels)}".strip(), int(value)


def simulate(world: World, setup: Setup, messages: int, days: int, seed: int = 1) -> Counted:
    """Let *days* pass with so many *messages* each; returns what the last one brought."""

    async def run(clocks: VirtualClocks) -> Counted:
        counted = Counted()
        operations = counted.store
        backend = SharedBackend(clocks, operations)
        services = [
            Service(setup, world, clocks, store, counted, number)
            for number in range(setup.services)
            for store in [_store(setup, backend, number)]
        ]
        for service in services:
            await service.start()
        chance = random.Random(seed)  # noqa: S311 - not to be secret
        begins, begun = (days - 1) * DAY, False
        before: Counter[str] = Counter()
        async with asyncio.TaskGroup() as tasks:
            for at, domain in traffic(world, messages, days, seed):
                await asyncio.sleep(max(0.0, at - clocks.monotonic()))
                if at >= begins and not begun:
                    begun = True
                    counted.calls.begin(begins)
                    operations.clear()
                    for service in services:
                        before.update(dict(_counts(service.counters)))
                tasks.create_task(chance.choice(services).message(domain, counts=begun))
        await asyncio.sleep(max(0.0, days * DAY - clocks.monotonic()))
        operations = Counter(operations)
        for service in services:
            await service.close()
        counted.counts.subtract(before)
        counted.store = operations
        return counted

    with capture_logs():  # what it would log is of no interest
        return virtualtime.run(run)


def _store(setup: Setup, backend: SharedBackend, number: int) -> Store:
    """A store of one service's own, or that of the fleet."""
    if setup.services == 1:
        return MemoryStore()
    jitter = random.Random(number).random  # noqa: S311 - not to be secret
    return SteadyStore(backend, Counters(), Gauges(), jitter=jitter)
