"""The engine's door for workers and the command line: a unix socket.

Bounded in all directions: connections, bytes, requests under way.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from requiretls_milter import __version__
from requiretls_milter.engine.assessor import Assessor, BusyError
from requiretls_milter.ipc.wire import (
    Answer,
    CountersRequest,
    EvidenceReply,
    EvidenceRequest,
    ForecastReply,
    ForecastRequest,
    ForgetReply,
    Request,
    StatusReply,
    StatusRequest,
    Unframer,
    WireError,
    decode_request,
    encode,
    error_reply,
)
from requiretls_milter.model import unknown_forecast
from requiretls_milter.syntax import nexthop as nexthops
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.aggregate import Aggregate
from requiretls_milter.telemetry.catalogue import MetricError
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Bound

MAX_CONNECTIONS = 128
"""To the unix socket: 64 workers, and people."""

MAX_UNSENT = 8 << 20
"""Bytes that wait for a client to read; one that lets it come to this is cut off."""

SECOND_LOOK = 5.0
"""Seconds for a question whose answer was overtaken by a change of what is trusted: less than the
client waits beyond the assessment's own deadline."""

_UCRED = struct.Struct("3i")

_log = log.get_logger("engine.server")


@dataclass(slots=True)
class EngineState:
    """What the doors show, exchanged when a new configuration comes.

    ``trust`` changes whenever what was judged before is not to be believed any more.
    """

    assessor: Assessor
    generation: int
    assessment_digest: str
    trust: int = 0


class EngineDoor:
    """The unix socket.

    Args:
        path: of the socket; only our own user (and root) may connect.
        state: what answers at present.
        aggregate: where workers' counters are added up.
        cache_entries: gives the sizes of the caches.
        counters: where it is counted that somebody is turned away.
        max_requests: of one connection under way: twice what a worker asks for at once.
    """

    def __init__(
        self,
        path: str,
        state: Callable[[], EngineState],
        aggregate: Aggregate,
        cache_entries: Callable[[], dict[str, int]],
        counters: Counters | None = None,
        *,
        max_requests: int = 8_192,
    ) -> None:
        self.max_requests = max_requests
        self._path = Path(path)
        self._state = state
        self._aggregate = aggregate
        self._cache_entries = cache_entries
        self._counters = counters if counters is not None else Counters()
        self._started = time.monotonic()
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    async def open(self) -> None:
        """Listen.

        Raises:
            OSError: the socket cannot be made; the text says why.
        """
        listener = listen_unix(self._path)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Connection(self), sock=listener)

    async def close(self) -> None:
        """Take no more connections, and cut those that are."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.abort()
        self._path.unlink(missing_ok=True)

    @property
    def full(self) -> bool:
        """Whether no further connection is taken."""
        return len(self._connections) >= MAX_CONNECTIONS

    def saturated(self, bound: Bound) -> None:
        """Somebody was turned away."""
        self._counters.inc("saturated_total", (bound,))

    def enter(self, connection: _Connection) -> None:
        """A connection has begun."""
        self._connections.add(connection)

    def leave(self, connection: _Connection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)

    def forget(self) -> None:
        """What was judged until now is not to be believed any more: tell all who may have kept it.

        Of forecasts that are under way :attr:`EngineState.trust` tells it.
        """
        for connection in self._connections:
            connection.forget()

    async def answer(self, request: Request, connection: _Connection) -> Answer | None:
        """The reply to a request, where it has one."""
        if isinstance(request, ForecastRequest):
            connection.keeps_forecasts = True
            return await self._forecast(request)
        if isinstance(request, CountersRequest):
            connection.worker = request.worker
            self._aggregate.update(request.worker, request.incarnation, request.totals)
            return None
        if isinstance(request, EvidenceRequest):
            return await self._evidence(request)
        return self._status(request)

    async def _forecast(self, request: ForecastRequest) -> Answer:
        state = self._state()
        forecast = await state.assessor.assess(request.question)
        now = self._state()
        if now.trust != state.trust:
            # Judged by what was believed a moment ago. Not to be said, nor looked up at leisure.
            state = now
            try:
                async with asyncio.timeout(SECOND_LOOK):
                    forecast = await state.assessor.assess(request.question)
            except TimeoutError:
                forecast = unknown_forecast("what is trusted has changed, and nothing is known yet")
            if self._state().trust != state.trust:
                forecast = unknown_forecast("what is trusted changes all the time")
        return ForecastReply(id=request.id, generation=state.generation, forecast=forecast)

    async def _evidence(self, request: EvidenceRequest) -> Answer:
        try:
            nexthop = nexthops.parse(request.nexthop)
            found = await self._state().assessor.evidence(nexthop, request.refresh)
        except nexthops.NextHopError as error:
            return error_reply(request.id, f"next hop: {error}")
        except BusyError as error:
            return error_reply(request.id, f"the engine is busy: {error}")
        except TimeoutError:
            return error_reply(request.id, "the evidence was not gathered in time")
        return EvidenceReply(id=request.id, evidence=found)

    def _status(self, request: StatusRequest) -> StatusReply:
        state = self._state()
        return StatusReply(
            id=request.id,
            version=__version__,
            pid=os.getpid(),
            generation=state.generation,
            assessment_digest=state.assessment_digest,
            uptime=time.monotonic() - self._started,
            workers=tuple(sorted(c.worker for c in self._connections if c.worker)),
            in_flight=state.assessor.in_flight,
            cache_entries=self._cache_entries(),
        )


class _Connection(asyncio.Protocol):
    """One client. Requests are answered as they are done, in any order."""

    def __init__(self, door: EngineDoor) -> None:
        self._door = door
        self._unframer = Unframer()
        self._transport: asyncio.Transport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.worker = ""
        self.keeps_forecasts = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("socket")
        if self._door.full or not _is_ours(peer):
            _log.warning("connection_refused", full=self._door.full)
            if self._door.full:
                self._door.saturated(Bound.ENGINE_CONNECTIONS)
            transport.abort()
            return
        transport.set_write_buffer_limits(high=MAX_UNSENT)
        self._door.enter(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._door.leave(self)
        # What was asked for is still good for others; only this answer is not wanted.
        for task in self._tasks:
            task.cancel()
        self._transport = None

    def pause_writing(self) -> None:
        _log.warning("connection_cut", reason="the client does not read", worker=self.worker)
        self.abort()

    def data_received(self, data: bytes) -> None:
        try:
            for payload in self._unframer.feed(data):
                self._take(decode_request(payload))
        except (WireError, MetricError) as error:
            _log.warning("connection_cut", reason=str(error), worker=self.worker)
            self.abort()

    def forget(self) -> None:
        """Tell the client, if it may have kept forecasts; a command line has no use for it."""
        if self.keeps_forecasts and self._transport is not None:
            self._transport.write(encode(ForgetReply()))

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _take(self, request: Request) -> None:
        full = len(self._tasks) >= self._door.max_requests
        if full and not isinstance(request, CountersRequest):
            self._door.saturated(Bound.ENGINE_REQUESTS)
            self._send(error_reply(request.id, "too many requests under way"))
            return
        task = asyncio.create_task(self._answer(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: Request) -> None:
        try:
            reply = await self._door.answer(request, self)
            if reply is not None:
                self._send(reply)
        except MetricError as error:
            _log.warning("connection_cut", reason=str(error), worker=self.worker)
            self.abort()
        except asyncio.CancelledError:
            # Where the client is still there it is not we who are cancelled, but what we waited
            # for: a reload has given it up.
            if not isinstance(request, CountersRequest):
                self._send(error_reply(request.id, "given up: the configuration has changed"))
            raise
        except Exception as error:  # noqa: BLE001 - one request must not end the others
            _log.exception("request_failed", op=request.op, error=repr(error))
            if not isinstance(request, CountersRequest):
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


def listen_unix(path: Path) -> socket.socket:
    """A listening unix socket with mode 0600, in the place of one that nobody listens to.

    Raises:
        OSError: somebody listens there, something else is there, or it cannot be made.
    """
    refuse_live_socket(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(MAX_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"{path}: {error.strerror}") from error
    return listener


def refuse_live_socket(path: Path) -> None:
    """Make sure that a path is free for a socket, or holds one that nobody listens to.

    Raises:
        OSError: somebody listens there, or what is there is no socket.
    """
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise FileExistsError(f"{path} is there and no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
        visitor.setblocking(False)
        try:
            visitor.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except BlockingIOError:
            pass  # its queue is full: somebody listens
    raise FileExistsError(f"another instance listens at {path}")
