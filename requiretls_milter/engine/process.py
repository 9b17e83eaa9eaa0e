"""The engine's life: its doors, its heart, and the line to the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import ssl
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from requiretls_milter.config import Config
from requiretls_milter.engine.assessor import Assessor
from requiretls_milter.engine.cache import REFRESH_INTERVAL, CachedSource
from requiretls_milter.engine.downgrades import Ledger
from requiretls_milter.engine.exposition import EngineCollector, Exposition, set_build_info
from requiretls_milter.engine.outage import Outbound
from requiretls_milter.engine.records import Scopes
from requiretls_milter.engine.scrape import CertificateError, MetricsDoor, tls_context
from requiretls_milter.engine.server import EngineDoor, EngineState
from requiretls_milter.evidence.collector import Collector
from requiretls_milter.evidence.selftest import ResolverWatch
from requiretls_milter.forecast.pkix import TrustStore, TrustStoreError
from requiretls_milter.ipc.child import (
    EXIT_FAILURE,
    EXIT_OK,
    EXIT_ORPHAN,
    HEARTBEAT,
    Start,
    read_config,
    take_log_settings,
)
from requiretls_milter.ipc.control import ControlClosed
from requiretls_milter.model import HopKind, NextHop, Question, Requirement
from requiretls_milter.store.base import Store, StoreError
from requiretls_milter.store.opening import open_store
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.aggregate import Aggregate, Snapshot
from requiretls_milter.telemetry.counting import Counters, Gauges, Totals
from requiretls_milter.telemetry.labels import configured_domains

SNAPSHOT_INTERVAL = 2.0
"""Seconds between two copies of the counters for the engine that may come after us."""

RESOLVER_TICK = 10.0
"""Seconds between two looks at whether a test of the resolver is due."""

ASKING_TICK = 5.0
"""Seconds between two looks at whether it is in doubt that we reach anybody."""

WATCH_INTERVAL = 300.0
"""Seconds between two assessments of a configured domain, for ``domain_ready``."""

WATCH_PAUSE = 1.0
"""Seconds between the assessments of two configured domains: no burst of probes."""

REFRESH_JITTER = 0.5
"""Part of REFRESH_INTERVAL left out at random: a fleet's milters look at different times."""

RETIREMENT = 60.0
"""Seconds that what is under way under an old configuration gets to end."""

SUPERVISOR = "supervisor"
"""Under which name the supervisor's counters are added up."""

_totals: TypeAdapter[Totals] = TypeAdapter(Totals)
_snapshots: TypeAdapter[Snapshot] = TypeAdapter(Snapshot)

_log = log.get_logger("engine")


class StartError(Exception):
    """The engine cannot run with this configuration; the text says why."""


@dataclass(slots=True)
class _Heart:
    """All that goes with one configuration."""

    config: Config
    generation: int
    collector: Collector
    resolver: ResolverWatch
    source: CachedSource
    trust: TrustStore
    authorities: bytes
    assessor: Assessor


def run(start: Start, snapshot: Mapping[str, Any] | None) -> int:
    """An engine's whole life; returns its exit status.

    ``snapshot`` is what the last engine told the supervisor of the counters.
    """
    return asyncio.run(_Engine(start, snapshot).run())


class _Engine:
    def __init__(self, start: Start, snapshot: Mapping[str, Any] | None) -> None:
        self._start = start
        self._channel = start.channel
        self._incarnation = start.incarnation
        self._counters = Counters(configured_domains(start.config))
        self._gauges = Gauges()
        self._outbound = Outbound(self._gauges)
        self._aggregate = Aggregate()
        if snapshot is not None:
            self._aggregate = Aggregate.restore(_snapshots.validate_python(snapshot))
        self._store: Store
        self._ledger: Ledger
        self._heart: _Heart | None = None
        self._trust = 0
        self._door: EngineDoor | None = None
        self._http: MetricsDoor | None = None
        self._end: asyncio.Future[int] | None = None
        self._tasks: set[asyncio.Task[object]] = set()
        self._told: Snapshot | None = None
        self._reloaded = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        self._end = loop.create_future()
        try:
            await self._open_store(self._start.config)
            heart = self._heart = await self._build(self._start.config, self._start.generation)
            door = self._door = EngineDoor(
                heart.config.engine.socket,
                self._state,
                self._aggregate,
                self._cache_entries,
                self._counters,
                max_requests=2 * heart.config.limits.questions,
            )
            await door.open()
            await self._open_metrics(heart.config)
        except (StartError, CertificateError, OSError) as error:
            _log.error("engine_cannot_start", error=str(error))
            self._channel.send("failed", error=str(error))
            return EXIT_FAILURE
        loop.add_reader(self._channel, self._receive)
        self._spawn(self._beat())
        self._spawn(self._watch_resolver())
        self._spawn(self._watch_outbound())
        self._spawn(self._watch_domains())
        self._spawn(self._refresh_policies())
        self._channel.send("ready")
        status = await self._end
        loop.remove_reader(self._channel)
        if status != EXIT_ORPHAN:
            await self._close(door)
        return status

    # ------------------------------------------------------------ parts

    async def _open_store(self, config: Config) -> None:
        """Open what outlives us; where it cannot be opened now, memory stands in for it."""
        try:
            self._store = open_store(
                config.store.url,
                self._counters,
                self._gauges,
                max_records=config.store.max_records,
                max_bytes=config.store.max_bytes,
                key_prefix=config.store.key_prefix,
                max_pending=config.limits.store_queue,
            )
        except StoreError as error:
            raise StartError(str(error)) from error
        await self._store.start()
        self._ledger = Ledger(self._store, self._counters)

    async def _build(self, config: Config, generation: int) -> _Heart:
        """Make what answers under a configuration; of the old one, keep what is the same."""
        old = self._heart
        authorities = _authorities(config.probe.ca_file)
        if (
            old is not None
            and _look_alike(old.config, config)
            # Beside the configuration, files of the system may have changed.
            and old.authorities == authorities
            and old.collector.resolver.is_current()
        ):
            collector, resolver = old.collector, old.resolver
            source, trust = old.source, old.trust
        else:
            try:
                trust = TrustStore.load(config.probe.ca_file)
                collector = Collector(config, counters=self._counters)
            except (TrustStoreError, ssl.SSLError, OSError, ValueError) as error:
                raise StartError(str(error)) from error
            resolver = ResolverWatch(collector.resolver, config)
            self._spawn(self._test_resolver(resolver))
            # Whom others were allowed to call, and by which way, says nothing any more.
            self._outbound = Outbound(self._gauges)
            source = self._cache(collector, config)
        assessor = Assessor(
            config, source, trust, self._counters, self._gauges, ledger=self._ledger
        )
        return _Heart(config, generation, collector, resolver, source, trust, authorities, assessor)

    def _cache(self, collector: Collector, config: Config) -> CachedSource:
        return CachedSource(
            collector,
            store=self._store,
            retry_after=config.probe.retry_after,
            counters=self._counters,
            scopes=Scopes.of(config),
            node=socket.gethostname(),
            outbound=self._outbound,
            limits=config.limits,
        )

    async def _open_metrics(self, config: Config) -> None:
        listen = config.metrics.listen
        if listen is None:
            return
        set_build_info(self._gauges)
        collector = EngineCollector(self._sum, self._gauges, self._domains)
        self._http = MetricsDoor(
            listen,
            Exposition(collector),
            self._refresh_gauges,
            self._counters,
            max_connections=config.limits.metrics_connections,
            tls=tls_context(config.metrics),
        )
        await self._http.open()

    async def _close(self, door: EngineDoor) -> None:
        await door.close()
        if self._http is not None:
            await self._http.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._heart is not None:
            await self._heart.assessor.close()
            await self._heart.source.close()
            await self._heart.collector.close()
        await self._store.close()

    # ------------------------------------------------------------ what the doors show

    @property
    def _now(self) -> _Heart:
        if self._heart is None:
            raise RuntimeError("the engine has not been built")
        return self._heart

    def _state(self) -> EngineState:
        heart = self._now
        return EngineState(
            heart.assessor, heart.generation, heart.config.assessment_digest(), self._trust
        )

    def _domains(self) -> tuple[str, ...]:
        return configured_domains(self._now.config)

    def _cache_entries(self) -> dict[str, int]:
        return {str(layer): count for layer, count in self._now.source.entries().items()}

    def _refresh_gauges(self) -> None:
        for layer, count in self._cache_entries().items():
            self._gauges.set("cache_entries", count, (layer,))

    def _sum(self) -> Totals:
        self._aggregate.update("engine", self._incarnation, self._counters.totals())
        return self._aggregate.totals()

    # ------------------------------------------------------------ the supervisor

    def _receive(self) -> None:
        try:
            for message in self._channel.receive():
                self._take(message)
        except ControlClosed:
            _log.error("supervisor_lost")
            self._finish(EXIT_ORPHAN)

    def _finish(self, status: int) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_result(status)

    def _take(self, message: Mapping[str, Any]) -> None:
        match message["op"]:
            case "config":
                self._spawn(self._reload(message))
            case "supervisor":
                totals = _totals.validate_python(message["totals"])
                self._aggregate.update(SUPERVISOR, 0, totals)
                for metric, value in message["gauges"].items():
                    self._gauges.set(metric, float(value))
            case "stop":
                self._finish(EXIT_OK)
            case other:
                _log.error("unknown_order", op=other)

    async def _reload(self, message: Mapping[str, Any]) -> None:
        config, generation = read_config(message)
        old = self._now
        try:
            tls = tls_context(config.metrics)
            heart = await self._build(config, generation)
        except (StartError, CertificateError) as error:
            self._tell("ack", generation=generation, error=str(error))
            return
        take_log_settings(config)
        self._counters.configure(configured_domains(config))
        self._gauges.clear("domain_ready")
        self._heart = heart
        if self._http is not None:
            self._http.tls = tls
        self._reloaded.set()
        self._spawn(_retire(old, heart))
        self._tell("ack", generation=generation, error="")

    def _tell(self, op: str, **values: Any) -> None:
        try:
            self._channel.send(op, **values)
        except ControlClosed:
            _log.error("supervisor_lost")
            self._finish(EXIT_ORPHAN)

    # ------------------------------------------------------------ what goes on all the time

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("engine_failed", error=repr(error), exc_info=error)
            self._finish(EXIT_FAILURE)

    async def _beat(self) -> None:
        """Tell the supervisor that the loop turns, and what was counted."""
        next_snapshot = 0.0
        while True:
            self._tell("heartbeat", well=True, problem="", connections=0)
            now = asyncio.get_running_loop().time()
            if now >= next_snapshot:
                next_snapshot = now + SNAPSHOT_INTERVAL
                self._sum()
                snapshot = self._aggregate.snapshot()
                if snapshot != self._told:
                    self._told = snapshot
                    self._tell("snapshot", snapshot=_snapshots.dump_python(snapshot, mode="json"))
            await asyncio.sleep(HEARTBEAT)

    async def _test_resolver(self, resolver: ResolverWatch) -> bool:
        """Test whether the resolver validates; returns whether what is believed has changed."""
        changed = await resolver.test_now()
        self._gauges.set("resolver_validates", float(resolver.validates))
        return changed

    async def _watch_resolver(self) -> None:
        """Test the resolver every now and then; forget what was seen through another's eyes."""
        while True:
            await asyncio.sleep(RESOLVER_TICK)
            resolver = self._now.resolver
            if resolver.due() and await self._test_resolver(resolver):
                self._forget(resolver)

    def _forget(self, resolver: ResolverWatch) -> None:
        """Begin with an empty cache where it holds what this resolver told, the workers too."""
        old = self._now
        if old.resolver is not resolver:
            return
        source = self._cache(old.collector, old.config)
        assessor = Assessor(
            old.config, source, old.trust, self._counters, self._gauges, ledger=self._ledger
        )
        self._heart = replace(old, source=source, assessor=assessor)
        self._trust += 1
        if self._door is not None:
            self._door.forget()
        self._reloaded.set()
        self._spawn(_retire(old, self._heart))

    async def _watch_outbound(self) -> None:
        """Find out whether it is they who are away, or we, and when we are back."""
        while True:
            await asyncio.sleep(ASKING_TICK)
            await self._now.source.ask_again()

    async def _watch_domains(self) -> None:
        """Keep ``domain_ready`` true for configured domains, whether or not mail goes there."""
        while True:
            for domain in self._domains():
                if domain.startswith("."):
                    continue  # a rule for subdomains names no next hop
                question = Question(
                    str(NextHop(HopKind.MX, domain)),
                    "smtp",
                    Requirement.REQUIRETLS,
                    Requirement.REQUIRETLS,
                )
                await self._now.assessor.assess(question)
                await asyncio.sleep(WATCH_PAUSE)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reloaded.wait(), WATCH_INTERVAL)
            self._reloaded.clear()

    async def _refresh_policies(self) -> None:
        """Keep MTA-STS policies fresh, so that one does not end before mail needs it (R53)."""
        while True:
            await asyncio.sleep(REFRESH_INTERVAL * (1.0 - REFRESH_JITTER * random.random()))  # noqa: S311
            await self._now.source.refresh_policies()


def _authorities(ca_file: str) -> bytes:
    """A digest of the authorities as they stand in their file now; empty where there is none.

    A file of the same name may hold others at the next reload: who was taken off must not vouch
    for anything until the service is started anew.
    """
    path = ca_file or ssl.get_default_verify_paths().cafile
    try:
        return hashlib.sha256(Path(path).read_bytes()).digest() if path else b""
    except OSError:
        return b""  # whoever loads it says why


def _look_alike(old: Config, new: Config) -> bool:
    """Whether two configurations find out the same, and go about it in the same way."""
    return old.assessment_digest() == new.assessment_digest() and old.limits == new.limits


async def _retire(old: _Heart, new: _Heart) -> None:
    """Let what is under way under the old configuration end, then close what is not shared."""
    await old.assessor.finish(RETIREMENT)
    await old.assessor.close()
    if old.source is not new.source:
        await old.source.close()
    if old.collector is not new.collector:
        await old.collector.close()
