"""The server on the engine's unix socket, for workers and the command line.

Connections, unsent bytes and requests under way are bounded.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

from requiretls_milter import __version__
from requiretls_milter.engine.assessor import Assessor
from requiretls_milter.evidence.turns import BusyError
from requiretls_milter.ipc.framing import Unframer, WireError
from requiretls_milter.ipc.unixsocket import LOOK, SocketFile, SocketGuard, listen
from requiretls_milter.ipc.wire import (
    MAX_ERROR,
    Answer,
    Condition,
    CountersRequest,
    EvidenceReply,
    EvidenceRequest,
    ExpandReply,
    ExpandRequest,
    ForecastReply,
    ForecastRequest,
    ForgetReply,
    MtaRequest,
    ReportReply,
    ReportRequest,
    Request,
    ServiceStatus,
    StatusReply,
    SuspendRequest,
    Unanswered,
    decode_request,
    encode,
    error_reply,
)
from requiretls_milter.model import Capability, unknown_forecast
from requiretls_milter.readiness.days import Day, MailSource
from requiretls_milter.syntax import nexthop as nexthops
from requiretls_milter.syntax.expansion import Expansion, ExpansionError
from requiretls_milter.syntax.text import bounded
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.aggregate import Aggregate
from requiretls_milter.telemetry.catalogue import MetricError
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Bound, Socket

MAX_CONNECTIONS = 128
"""Connections at once: 64 workers, and the command line."""

MAX_UNSENT = 8 << 20
"""Unsent bytes; a client that lets it come to this is cut off."""

TAKEN_AT_ONCE = 10
"""Requests of a client that are taken in one turn of the loop."""

REASSESSMENT_TIMEOUT = 5.0
"""Seconds to assess a question again whose answer was overtaken by a change of what is trusted:
less than the client waits beyond the assessment's own deadline."""

_UCRED = struct.Struct("3i")

_log = log.get_logger("engine.server")


@dataclass(frozen=True, slots=True)
class EngineState:
    """What answers at the moment; another one after each new configuration.

    ``trust_epoch`` grows whenever earlier forecasts must not be believed any more.
    """

    assessor: Assessor
    generation: int
    assessment_digest: str
    trust_epoch: int = 0
    resolver_validates: bool = False
    mta_version: str = ""
    carries: Capability = Capability.NOTHING


class ReportParts(NamedTuple):
    """What only the engine has of a report; see :class:`.ReportReply`."""

    days: tuple[Day, ...]
    mail: dict[str, int]


class RecipientExpander(Protocol):
    """Says what the MTA makes of a recipient."""

    async def expand(self, recipient: str) -> Expansion:
        """Expand a recipient.

        Raises:
            ExpansionError: it is not known what it becomes.
        """
        ...


class EngineView(Protocol):
    """What the server needs of the engine."""

    @property
    def expander(self) -> RecipientExpander | None:
        """What expands recipients; None if nothing does."""
        ...

    @property
    def counters(self) -> Counters:
        """Where it is counted that a client was turned away."""
        ...

    @property
    def aggregate(self) -> Aggregate:
        """Where workers' counters are added up."""
        ...

    def current(self) -> EngineState:
        """What answers now."""
        ...

    def take_mta_version(self, version: str) -> None:
        """Take note of what the MTA says that it is."""
        ...

    def order_suspension(self, suspended: bool) -> None:
        """Have the supervisor suspend the rules, or have them act again."""
        ...

    def service_status(self) -> ServiceStatus | None:
        """What the supervisor told last; None if it has told nothing yet."""
        ...

    def condition(self) -> Condition:
        """How the engine is."""
        ...

    def cache_entries(self) -> dict[str, int]:
        """The sizes of the caches, by layer."""
        ...

    async def report(self, source: MailSource, keep: Day | None) -> ReportParts:
        """Keep the figures of a report, if there are any, and give what the engine has of it."""
        ...


class EngineServer:
    """Listens on the engine's unix socket.

    Args:
        path: of the socket; only our own user (and root) may connect.
        engine: answers the requests.
        workers: how many of them the service has.
        max_requests: of one connection under way: twice what a worker asks for at once.
        opened: is called with the socket's file when there is one, and when there is another.
    """

    def __init__(
        self,
        path: str,
        engine: EngineView,
        *,
        workers: int = 0,
        max_requests: int = 8_192,
        opened: Callable[[SocketFile], None] = lambda _: None,
    ) -> None:
        self.max_requests = max_requests
        self._path = path
        self._workers = workers
        self._engine = engine
        self._opened = opened
        self._listener: socket.socket
        self._guard: SocketGuard | None = None
        self._started = time.monotonic()
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    async def open(self) -> None:
        """Listen.

        Raises:
            SocketError: the socket cannot be made; the text says why.
        """
        self._guard = SocketGuard(self._listen(), self._listen, self._count_lost, _log)
        self._server = await self._accept(self._listener)

    async def watch(self) -> None:
        """Listen at another socket when the file of this one is gone; open connections go on."""
        while self._guard is not None:
            await asyncio.sleep(LOOK)
            before = self._listener
            self._guard.look()
            if self._listener is not before and self._server is not None:
                former, self._server = self._server, await self._accept(self._listener)
                former.close()

    def _listen(self) -> SocketFile:
        self._listener = listen(self._path, MAX_CONNECTIONS)
        file = SocketFile.at(self._path)
        self._opened(file)
        return file

    async def _accept(self, listener: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(lambda: _Connection(self), sock=listener)

    def _count_lost(self) -> None:
        self._engine.counters.inc("sockets_lost_total", (Socket.ENGINE,))

    async def close(self) -> None:
        """Take no more connections, and cut those that there are."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.abort()
        if self._guard is not None:
            self._guard.file.remove()

    @property
    def connections(self) -> int:
        """The number of connections."""
        return len(self._connections)

    @property
    def full(self) -> bool:
        """Whether no further connection is taken."""
        return len(self._connections) >= MAX_CONNECTIONS

    def count_saturated(self, bound: Bound) -> None:
        """Count that a client was turned away."""
        self._engine.counters.inc("saturated_total", (bound,))

    def add(self, connection: _Connection) -> None:
        """Note that a connection has begun."""
        self._connections.add(connection)

    def remove(self, connection: _Connection) -> None:
        """Note that a connection has ended."""
        self._connections.discard(connection)

    def void_forecasts(self) -> None:
        """Tell all clients to forget the forecasts that they have kept.

        Forecasts that are under way are caught by :attr:`EngineState.trust_epoch`.
        """
        for connection in self._connections:
            connection.void_forecasts()

    async def answer(self, request: Request, connection: _Connection) -> Answer | None:
        """Return the reply to a request; None if it has none."""
        if isinstance(request, ForecastRequest):
            return await self._forecast(request)
        if isinstance(request, CountersRequest):
            connection.worker = request.worker
            self._engine.aggregate.update(request.worker, request.incarnation, request.totals)
            return None
        if isinstance(request, MtaRequest):
            self._engine.take_mta_version(request.version)
            return None
        if isinstance(request, EvidenceRequest):
            return await self._evidence(request)
        if isinstance(request, ExpandRequest):
            return await self._expansion(request)
        if isinstance(request, ReportRequest):
            days, mail = await self._engine.report(request.source, request.keep)
            return ReportReply(id=request.id, days=days, mail=mail)
        if isinstance(request, SuspendRequest):
            self._engine.order_suspension(request.suspended)
            return self.status(request.id)
        return self.status(request.id, whole=request.whole)

    def answer_at_hand(self, request: ForecastRequest, connection: _Connection) -> Answer | None:
        """Return the reply to a question of mail if nothing has to be found out for it."""
        connection.keeps_forecasts = True
        state = self._engine.current()
        # Whether a rule may act on it is known only of the rules that the worker has, too.
        if not request.may_be_stale or request.generation != state.generation:
            return None
        forecast = state.assessor.answer_at_hand(request.question, request.uses)
        if forecast is None:
            return None
        return ForecastReply(id=request.id, generation=state.generation, forecast=forecast)

    async def _forecast(self, request: ForecastRequest) -> Answer:
        state = self._engine.current()
        forecast = await state.assessor.assess(request.question)
        latest = self._engine.current()
        if latest.trust_epoch != state.trust_epoch:
            # It was judged by what was trusted a moment ago and must not be given out. A second
            # assessment has less time, since the client has waited for the first one.
            state = latest
            try:
                async with asyncio.timeout(REASSESSMENT_TIMEOUT):
                    forecast = await state.assessor.assess(request.question)
            except TimeoutError:
                forecast = unknown_forecast("what is trusted has changed, and nothing is known yet")
            if self._engine.current().trust_epoch != state.trust_epoch:
                forecast = unknown_forecast("what is trusted changes all the time")
        return ForecastReply(id=request.id, generation=state.generation, forecast=forecast)

    async def _evidence(self, request: EvidenceRequest) -> Answer:
        try:
            nexthop = nexthops.parse(request.nexthop)
            found = await self._engine.current().assessor.evidence(nexthop, request.refresh)
        except nexthops.NextHopError as error:
            return error_reply(request.id, f"next hop: {error}")
        except BusyError as error:
            return error_reply(request.id, f"the engine is busy: {error}")
        except TimeoutError:
            return error_reply(request.id, "the evidence was not gathered in time")
        return EvidenceReply(id=request.id, evidence=found)

    async def _expansion(self, request: ExpandRequest) -> Answer:
        expander = self._engine.expander
        if expander is None:
            return error_reply(request.id, "the engine expands no recipients")
        try:
            found = await expander.expand(request.recipient)
        except ExpansionError as error:
            return ExpandReply(id=request.id, error=bounded(str(error), MAX_ERROR))
        return ExpandReply(id=request.id, given=found.given, addresses=found.addresses)

    def status(self, request_id: int = 0, *, whole: bool = False) -> StatusReply:
        """What the engine reports of itself; *whole*: with its condition."""
        state = self._engine.current()
        return StatusReply(
            id=request_id,
            version=__version__,
            pid=os.getpid(),
            generation=state.generation,
            assessment_digest=state.assessment_digest,
            uptime=time.monotonic() - self._started,
            workers=tuple(sorted(c.worker for c in self._connections if c.worker)),
            in_flight=state.assessor.in_flight,
            cache_entries=self._engine.cache_entries(),
            resolver_validates=state.resolver_validates,
            mta_version=state.mta_version,
            carries=state.carries,
            service=self._engine.service_status(),
            condition=self._engine.condition() if whole else None,
            all_workers=self._workers,
        )


class _Connection(asyncio.Protocol):
    """One client. Requests are answered as they are done, in any order."""

    def __init__(self, server: EngineServer) -> None:
        self._server = server
        self._unframer = Unframer()
        self._transport: asyncio.Transport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._untaken: deque[Request] = deque()
        self.worker = ""
        self.keeps_forecasts = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("socket")
        if self._server.full or not _is_ours(peer):
            _log.warning("connection_refused", full=self._server.full)
            if self._server.full:
                self._server.count_saturated(Bound.ENGINE_CONNECTIONS)
            transport.abort()
            return
        transport.set_write_buffer_limits(high=MAX_UNSENT)
        self._server.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._server.remove(self)
        self._untaken.clear()
        # The assessments go on for others; only these answers are not wanted any more.
        for task in self._tasks:
            task.cancel()
        self._transport = None

    def pause_writing(self) -> None:
        _log.warning("connection_cut", reason="the client does not read", worker=self.worker)
        self.abort()

    def data_received(self, data: bytes) -> None:
        try:
            for payload in self._unframer.feed(data):
                request = decode_request(payload)
                if isinstance(request, Unanswered):
                    self._take(request)  # at once: nothing of it is lost if the client leaves
                else:
                    self._untaken.append(request)
        except (WireError, MetricError) as error:
            _log.warning("connection_cut", reason=str(error), worker=self.worker)
            self.abort()
        else:
            self._take_some()

    def _take_some(self) -> None:
        """Take some requests; the others in the next turn of the loop, and nothing is read before.

        Each one begins work of a third of a millisecond, and a worker may send hundreds at once.
        """
        for _ in range(min(TAKEN_AT_ONCE, len(self._untaken))):
            self._take(self._untaken.popleft())
        if self._transport is None or self._transport.is_closing():
            return
        if self._untaken:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._take_some)
        else:
            self._transport.resume_reading()

    def void_forecasts(self) -> None:
        """Tell the client, if it may have kept forecasts; a command line has none."""
        if self.keeps_forecasts and self._transport is not None:
            self._transport.write(encode(ForgetReply()))

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _take(self, request: Request) -> None:
        full = len(self._tasks) >= self._server.max_requests
        if full and not isinstance(request, Unanswered):
            self._server.count_saturated(Bound.ENGINE_REQUESTS)
            self._send(error_reply(request.id, "too many requests under way"))
            return
        if isinstance(request, ForecastRequest) and self._is_at_hand(request):
            return
        task = asyncio.create_task(self._answer(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _is_at_hand(self, request: ForecastRequest) -> bool:
        """Whether a question is answered, at once and without a task of its own."""
        try:
            reply = self._server.answer_at_hand(request, self)
        except Exception as error:  # noqa: BLE001 - one request must not end the others
            self._failed(request, error)
            return True
        if reply is not None:
            self._send(reply)
        return reply is not None

    async def _answer(self, request: Request) -> None:
        try:
            reply = await self._server.answer(request, self)
            if reply is not None:
                self._send(reply)
        except MetricError as error:
            _log.warning("connection_cut", reason=str(error), worker=self.worker)
            self.abort()
        except asyncio.CancelledError:
            # If the client is still there, it is not this task that was cancelled but the
            # assessment: a reload has given it up.
            if not isinstance(request, Unanswered):
                self._send(error_reply(request.id, "given up: the configuration has changed"))
            raise
        except Exception as error:  # noqa: BLE001 - one request must not end the others
            self._failed(request, error)

    def _failed(self, request: Request, error: Exception) -> None:
        _log.exception("request_failed", op=request.op, error=repr(error))
        if not isinstance(request, Unanswered):
            self._send(error_reply(request.id, "internal error"))

    def _send(self, reply: Answer) -> None:
        if self._transport is None:
            return
        try:
            self._transport.write(encode(reply))
        except WireError as error:
            self._transport.write(encode(error_reply(reply.id, str(error))))


def _is_ours(peer: socket.socket) -> bool:
    """Whether the client runs as we do, or as root. The socket's mode says the same."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(credentials)
    return uid in (0, os.geteuid())
