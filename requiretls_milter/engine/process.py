"""The engine process: its sockets, its current configuration, its link to the supervisor.

Most parts belong to one configuration and are replaced together at a reload
(:mod:`requiretls_milter.engine.parts`). What outlives a configuration is kept here: the store,
the counters, the servers.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
from collections import Counter
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from requiretls_milter.config import Config
from requiretls_milter.config.secret import SecretError, read_secret
from requiretls_milter.engine.cache.policies import REFRESH_INTERVAL
from requiretls_milter.engine.cache.reachability import RECHECK_TICK
from requiretls_milter.engine.condition import MAX_DOMAINS, Watching
from requiretls_milter.engine.domains.configured import ConfiguredDomains
from requiretls_milter.engine.domains.servedmta import ServedMta
from requiretls_milter.engine.domains.watch import DomainWatch
from requiretls_milter.engine.expander import Expander, ExpanderKeeper
from requiretls_milter.engine.loop import TimedSelector, in_turns
from requiretls_milter.engine.parts import Parts, PartsBuilder, StartError
from requiretls_milter.engine.readout import Readout
from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.engine.server import EngineServer, EngineState, ReportParts
from requiretls_milter.engine.turns.spending import SAVE_INTERVAL
from requiretls_milter.engine.watched.inboundreport import Change, change_report
from requiretls_milter.engine.watched.mailing import Mailer
from requiretls_milter.engine.watched.notifying import Notifier
from requiretls_milter.engine.watched.ownservers import Domains, OwnServers
from requiretls_milter.engine.web.certificate import CertificateError, tls_context
from requiretls_milter.engine.web.exposition import set_build_info
from requiretls_milter.engine.web.health import Health
from requiretls_milter.engine.web.page import beside_the_loop
from requiretls_milter.engine.web.scrape import MetricsServer
from requiretls_milter.evidence.selftest import ResolverWatch
from requiretls_milter.ipc.child import (
    ENGINE,
    EXIT_FAILURE,
    EXIT_OK,
    EXIT_ORPHAN,
    HEARTBEAT,
    SUPERVISOR,
    Start,
    read_config,
    take_log_settings,
)
from requiretls_milter.ipc.control import ControlClosed
from requiretls_milter.ipc.unixsocket import SocketError, SocketFile
from requiretls_milter.ipc.wire import Condition, ServiceStatus, StatusReply
from requiretls_milter.model import Mode
from requiretls_milter.readiness.days import Day, MailSource
from requiretls_milter.store.base import Store, StoreError
from requiretls_milter.store.opening import open_store
from requiretls_milter.syntax.capability import named
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.aggregate import Aggregate, Snapshot
from requiretls_milter.telemetry.counting import Counters, Gauges, Totals
from requiretls_milter.telemetry.labels import Layer

SNAPSHOT_INTERVAL = 2.0
"""Seconds between two copies of the counters, for the engine that may replace this one."""

YOUNG_OBJECTS = 20_000
"""Objects from which a collection of garbage is made. What is under way for a few hundred next hops
is as many, and none of it is garbage; to look at all of it takes two milliseconds."""

RESOLVER_TICK = 10.0
"""Seconds between two checks whether a test of the resolver is due."""

REFRESH_JITTER = 0.5
"""Part of REFRESH_INTERVAL left out at random: a fleet's milters do it at different times."""

_totals: TypeAdapter[Totals] = TypeAdapter(Totals)
_snapshots: TypeAdapter[Snapshot] = TypeAdapter(Snapshot)

_log = log.get_logger("engine")


def run(start: Start, snapshot: Mapping[str, Any] | None) -> int:
    """Run an engine to its end; returns its exit status.

    ``snapshot`` holds the counters that the previous engine sent to the supervisor.
    """
    selector = TimedSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        return runner.run(_Engine(start, snapshot, selector).run())


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A configuration, and what is made of it before it comes into force.

    ``modes`` says how many rules have each mode.
    """

    config: Config
    generation: int
    domains: Domains
    configured: ConfiguredDomains
    modes: Mapping[Mode, int]


def _prepared(message: Mapping[str, Any], builder: PartsBuilder) -> _Prepared:
    with beside_the_loop():
        config, generation = read_config(message)
        return _Prepared(
            config, generation, Domains.of(config), builder.prepared(config), _modes(config)
        )


def _modes(config: Config) -> Mapping[Mode, int]:
    modes = Counter(rule.mode or config.rules.mode for _, _, rule in config.rules.by_domain())
    modes[config.rules.mode] += 1
    return modes


class _Engine:
    """The engine.

    Implements :class:`~requiretls_milter.engine.server.EngineView`, which the server has of it,
    and :class:`~requiretls_milter.engine.readout.ReadEngine`.
    """

    def __init__(
        self, start: Start, snapshot: Mapping[str, Any] | None, selector: TimedSelector
    ) -> None:
        self._initial = start
        self._selector = selector
        self._channel = start.channel
        self._incarnation = start.incarnation
        self._all_workers = start.workers
        self.domains = Domains.of(start.config)
        self.counters = Counters(self.domains.configured)
        self._expanders = ExpanderKeeper(self.counters)
        self.gauges = Gauges()
        self.aggregate = Aggregate()
        if snapshot is not None:
            self.aggregate = Aggregate.restore(_snapshots.validate_python(snapshot))
        self._store: Store
        self.builder: PartsBuilder
        self.own: OwnServers
        self._own_watch: DomainWatch
        self._built: Parts | None = None
        self._trust_epoch = 0
        self.mta = ServedMta()
        self._service: ServiceStatus | None = None
        self._server: EngineServer
        self._metrics_server: MetricsServer | None = None
        self._end: asyncio.Future[int] | None = None
        self._tasks: set[asyncio.Task[object]] = set()
        self._reloading = asyncio.Lock()
        self._sent_snapshot: Snapshot | None = None
        self._watch = DomainWatch(
            lambda: self.parts.assessor.configured.asked(), self._assess_configured
        )
        self._readout = Readout(self)
        self._notifier = Notifier(lambda: self.parts.config.watch.command, self.counters)
        self._mailer = Mailer(
            lambda: self.parts.config.watch, lambda: self.own.reports(), self.counters
        )

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        self._end = loop.create_future()
        try:
            await self._open_store(self._initial.config)
            parts = self._built = self.builder.build(self._initial.config, self._initial.generation)
            self._show_rules(_modes(parts.config))
            self._expanders.configure(parts.config)
            self._start_task(parts.resolver.test_now())
            server = self._server = EngineServer(
                parts.config.engine.socket,
                self,
                workers=self._all_workers,
                max_requests=2 * parts.config.limits.questions,
                opened=self._tell_socket,
            )
            await server.open()
            await self._open_metrics(parts.config)
        except (StartError, CertificateError, SocketError, OSError) as error:
            _log.error("engine_cannot_start", error=str(error))
            self._channel.send("failed", error=str(error))
            return EXIT_FAILURE
        loop.add_reader(self._channel, self._receive)
        self._start_task(self._send_heartbeats())
        self._start_task(server.watch())
        self._start_task(self._watch_resolver())
        self._start_task(self._watch_reachability())
        self._start_task(self._watch.run())
        self._start_task(self._own_watch.run())
        self._start_task(self._notifier.run())
        self._start_task(self._mailer.run())
        self._start_task(self._mailer.run_digests())
        self._start_task(self._refresh_policies())
        self._start_task(self._readout.keep_figures())
        self._start_task(self._save_spending())
        # What there is now stays: a collection of garbage need not look at it each time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS)
        self._channel.send("ready")
        status = await self._end
        loop.remove_reader(self._channel)
        if status != EXIT_ORPHAN:
            await self._close_all(server)
        return status

    # ------------------------------------------------------------ parts

    async def _open_store(self, config: Config) -> None:
        """Open the store; if it cannot be opened now, memory stands in for it."""
        try:
            shared = config.store.secret_file
            self._store = open_store(
                config.store.url,
                self.counters,
                self.gauges,
                max_records=config.store.max_records,
                max_bytes=config.store.max_bytes,
                key_prefix=config.store.key_prefix,
                secret=read_secret(shared) if shared else b"",
                max_pending=config.limits.store_queue,
            )
        except SecretError as error:
            raise StartError(f"store.secret_file: {error}") from error
        except StoreError as error:
            raise StartError(str(error)) from error
        await self._store.start()
        self.builder = PartsBuilder(self._store, self.counters, self.gauges, self.mta)
        await self.builder.spending.load()
        self.own = OwnServers(
            lambda: self.parts,
            self.gauges,
            self._tell_change,
            RecordStore(self._store, self.counters),
        )
        self._own_watch = DomainWatch(
            lambda: self.domains.watched,
            self.own.look,
            interval=lambda: self.parts.config.watch.interval,
        )

    async def _open_metrics(self, config: Config) -> None:
        listen = config.metrics.listen
        if listen is None:
            return
        set_build_info(self.gauges)
        self._metrics_server = MetricsServer(
            listen,
            self._readout.metrics,
            self.counters,
            health=lambda: Health.of(self._service),
            unready=lambda: Health.of(self._service).unready(self.parts.resolver.validates),
            pages={"/": self._readout.status_page, "/report": self._readout.report_page},
            max_connections=config.limits.metrics_connections,
            tls=tls_context(config.metrics),
        )
        await self._metrics_server.open()

    async def _close_all(self, server: EngineServer) -> None:
        await server.close()
        if self._metrics_server is not None:
            await self._metrics_server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._expanders.expander is not None:
            await self._expanders.expander.close()
        if self._built is not None:
            await self._built.close()
        await self.builder.spending.save()
        await self._store.close()

    # ------------------------------------------------------------ what the server needs

    def current(self) -> EngineState:
        """See :class:`~requiretls_milter.engine.server.EngineView`."""
        parts = self.parts
        return EngineState(
            parts.assessor,
            parts.generation,
            parts.assessment_digest,
            self._trust_epoch,
            parts.resolver.validates,
            self.mta.version,
            self.mta.carries(parts.config),
        )

    @property
    def expander(self) -> Expander | None:
        """See :class:`~requiretls_milter.engine.server.EngineView`."""
        return self._expanders.expander

    def service_status(self) -> ServiceStatus | None:
        """See :class:`~requiretls_milter.engine.server.EngineView`."""
        return self._service

    def condition(self) -> Condition:
        """See :class:`~requiretls_milter.engine.server.EngineView`."""
        return self._readout.condition(MAX_DOMAINS)()

    async def report(self, source: MailSource, keep: Day | None) -> ReportParts:
        """See :class:`~requiretls_milter.engine.server.EngineView`."""
        return await self._readout.report(source, keep)

    def order_suspension(self, suspended: bool) -> None:
        """See :class:`~requiretls_milter.engine.server.EngineView`."""
        self._send("suspend", suspended=suspended)

    def take_mta_version(self, version: str) -> None:
        """See :class:`~requiretls_milter.engine.server.EngineView`."""
        config = self.parts.config
        before = self.mta.carries(config)
        self.mta.version = named(version)
        if self.mta.carries(config) is not before:
            _log.info("mta_known", version=self.mta.version, carries=self.mta.carries(config))
            self._watch.begin_anew()

    def cache_entries(self) -> dict[str, int]:
        """See :class:`~requiretls_milter.engine.server.EngineView`."""
        expander = self._expanders.expander
        layers = {
            **self.parts.source.entries(),
            Layer.ALIAS: 0 if expander is None else len(expander),
        }
        return {str(layer): count for layer, count in layers.items()}

    # ------------------------------------------------------------ what the readout copies

    @property
    def parts(self) -> Parts:
        """See :class:`~requiretls_milter.engine.readout.ReadEngine`."""
        if self._built is None:
            raise RuntimeError("the engine has not been built")
        return self._built

    @property
    def longest_turn(self) -> float:
        """See :class:`~requiretls_milter.engine.readout.ReadEngine`."""
        return self._selector.longest_turn

    def counted(self) -> Aggregate:
        """See :class:`~requiretls_milter.engine.readout.ReadEngine`."""
        self.counters.inc("log_lines_dropped_total", by=log.take_dropped())
        self.aggregate.update(ENGINE, self._incarnation, self.counters.totals())
        return self.aggregate.copy()

    def watching(self) -> Watching:
        """See :class:`~requiretls_milter.engine.readout.ReadEngine`."""
        return Watching(
            self.own.statuses(),
            len(self.domains.watched),
            self._mailer.failing,
            self._notifier.failing,
        )

    def status(self) -> StatusReply:
        """See :class:`~requiretls_milter.engine.readout.ReadEngine`."""
        return self._server.status()

    def _show_rules(self, modes: Mapping[Mode, int]) -> None:
        for mode in Mode:
            self.gauges.set("rules", modes[mode], (mode,))

    # ------------------------------------------------------------ the supervisor

    def _receive(self) -> None:
        try:
            for message in self._channel.receive():
                self._handle(message)
        except ControlClosed:
            _log.error("supervisor_lost")
            self._end_with(EXIT_ORPHAN)

    def _end_with(self, status: int) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_result(status)

    def _handle(self, message: Mapping[str, Any]) -> None:
        match message["op"]:
            case "config":
                self._start_task(self._reload(message))
            case "supervisor":
                totals = _totals.validate_python(message["totals"])
                self.aggregate.update(SUPERVISOR, 0, totals)
                self._service = ServiceStatus.model_validate_json(json.dumps(message["service"]))
                for metric, value in message["gauges"].items():
                    self.gauges.set(metric, float(value))
            case "log":
                log.replace_file(self._channel.take_descriptor())
            case "stop":
                self._end_with(EXIT_OK)
            case other:
                _log.error("unknown_order", op=other)

    async def _reload(self, message: Mapping[str, Any]) -> None:
        async with self._reloading:  # one after the other, as they have come
            # With 100,000 domains it takes seconds: not on the loop.
            new = await asyncio.to_thread(_prepared, message, self.builder)
            self._take_over(new)
            await in_turns(self.gauges.retain_domains(self.domains.names))
            await in_turns(self.builder.record.retain(self.domains.configured))

    def _take_over(self, new: _Prepared) -> None:
        """Put a configuration in force, and tell the supervisor."""
        config, generation, old = new.config, new.generation, self.parts
        try:
            tls = tls_context(config.metrics)
            parts = self.builder.build(config, generation, old, new.configured)
        except (StartError, CertificateError) as error:
            self._send("ack", generation=generation, error=str(error))
            return
        take_log_settings(config)
        self.domains = new.domains
        self.counters.configure(self.domains.configured)
        self.own.retain(self.domains.watched)
        self._built = parts
        if (former := self._expanders.configure(config)) is not None:
            self._start_task(former.close())
        self._show_rules(new.modes)
        if parts.resolver is not old.resolver:
            self._start_task(parts.resolver.test_now())
        if self._metrics_server is not None:
            self._metrics_server.tls = tls
        self._watch.begin_anew()
        self._own_watch.begin_anew()
        self._start_task(old.retire(parts))
        self._send("ack", generation=generation, error="")

    def _send(self, op: str, **values: Any) -> None:
        try:
            self._channel.send(op, **values)
        except ControlClosed:
            _log.error("supervisor_lost")
            self._end_with(EXIT_ORPHAN)

    def _tell_socket(self, file: SocketFile) -> None:
        """Tell the supervisor which file is the engine's, to be removed if the engine is killed."""
        self._send("listening", device=file.device, inode=file.inode)

    # ------------------------------------------------------------ background tasks

    def _start_task(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("engine_failed", error=repr(error), exc_info=error)
            self._end_with(EXIT_FAILURE)

    async def _send_heartbeats(self) -> None:
        """Send the supervisor heartbeats, which show that the loop turns, and the counters."""
        next_snapshot = 0.0
        while True:
            self._send("heartbeat", well=True, problem="", connections=0, threads=0)
            now = asyncio.get_running_loop().time()
            if now >= next_snapshot:
                next_snapshot = now + SNAPSHOT_INTERVAL
                # With thousands of domains it takes milliseconds: not on the loop.
                snapshot = await asyncio.to_thread(self.counted().snapshot)
                if snapshot != self._sent_snapshot:
                    self._sent_snapshot = snapshot
                    dumped = await asyncio.to_thread(_snapshots.dump_python, snapshot, mode="json")
                    self._send("snapshot", snapshot=dumped)
            await asyncio.sleep(HEARTBEAT)

    async def _watch_resolver(self) -> None:
        """Test the resolver regularly; drop the evidence when it has changed its nature."""
        while True:
            await asyncio.sleep(RESOLVER_TICK)
            resolver = self.parts.resolver
            if resolver.due() and await resolver.test_now():
                self._void_evidence(resolver)

    def _void_evidence(self, resolver: ResolverWatch) -> None:
        """Begin with an empty cache, and have the workers do so, since the resolver has changed."""
        old = self.parts
        if old.resolver is not resolver:
            return
        self._built = self.builder.with_empty_cache(old)
        self._trust_epoch += 1
        self._server.void_forecasts()
        self._watch.begin_anew()
        self._own_watch.begin_anew()
        self._start_task(old.retire(self._built))

    async def _watch_reachability(self) -> None:
        """Find out whether an outage is our own, and when it has ended."""
        while True:
            await asyncio.sleep(RECHECK_TICK)
            await self.parts.source.recheck_reachability()

    def _tell_change(self, change: Change) -> None:
        """Tell of a watched domain whatever is to be told."""
        self._notifier.tell(change_report(change))
        self._mailer.tell(change)

    async def _assess_configured(self, domain: str) -> None:
        """Assess a configured domain, for its metrics."""
        assessor = self.parts.assessor
        await assessor.assess(assessor.configured.question(domain))

    async def _refresh_policies(self) -> None:
        """Keep policies (R53) and answers from their end as long as mail may need them."""
        while True:
            await asyncio.sleep(REFRESH_INTERVAL * (1.0 - REFRESH_JITTER * random.random()))  # noqa: S311
            await self.parts.source.refresh_policies()
            await self.parts.assessor.confirm_answers()

    async def _save_spending(self) -> None:
        """Store what was spent of the budgets, so that it outlives this process."""
        while True:
            await asyncio.sleep(SAVE_INTERVAL)
            await self.builder.spending.save()
