"""The worker's way to the engine, and the command line's.

A worker's questions come from libmilter's threads and must never make SMTP
wait for us: :meth:`EngineClient.ask` only takes a lock. One thread of our own
does all that touches the socket and all that decodes. Where the engine is
gone, or busy, or sends what nobody can read, questions are answered at once
with an ``unknown`` forecast, and the thread goes on trying to reach it.
"""

from __future__ import annotations

import os
import random
import selectors
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

from requiretls_milter.config import Limits
from requiretls_milter.ipc.wire import (
    CountersRequest,
    ErrorReply,
    EvidenceReply,
    EvidenceRequest,
    ForecastReply,
    ForecastRequest,
    ForgetReply,
    Reply,
    Request,
    StatusReply,
    StatusRequest,
    Unframer,
    WireError,
    decode_reply,
    encode,
)
from requiretls_milter.model import (
    UNKNOWN_STATUS,
    DomainEvidence,
    Forecast,
    Question,
    unknown_forecast,
)
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters, Totals
from requiretls_milter.telemetry.labels import Bound, CacheResult, Layer

MAX_HOT_LIFE = 3600.0
"""Seconds for which a forecast is kept at most, whatever it says itself."""

ANSWER_MARGIN = 10.0
"""Seconds for an answer beyond the engine's own deadline: time to answer many at once.

Nobody waits that long: who waits, waits with a deadline of his own. An engine
that lets a question lie for longer is stuck, and the connection is given up.
"""

FIRST_BACKOFF = 0.05
MAX_BACKOFF = 0.25
"""Seconds between attempts to reach the engine: each costs a system call, and whoever asks
meanwhile gets no forecast."""

OUTAGE = 3.0
"""Seconds without an engine that are worth a warning: a new one takes less to start."""

SHIP_INTERVAL = 1.0
"""Seconds between two looks at what there is to tell of the counters."""

PIECE = 2000
"""Series in one message of counters: a quarter of what fits."""

MAX_UNSENT = 4 << 20
"""Bytes that wait for the engine to read; one that lets it come to this is stuck."""

_CHUNK = 1 << 16

_log = log.get_logger("engine.client")


@dataclass(slots=True)
class _Pending:
    """A question under way, and all who wait for its answer."""

    question: Question
    deadline: float
    futures: list[Future[Forecast]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Hot:
    """A forecast with the end of its life on both clocks: neither may prolong it."""

    forecast: Forecast
    until: float
    monotonic_until: float


class EngineClient:
    """Implements :class:`requiretls_milter.milter.source.ForecastSource` over the engine's socket.

    To be made after the fork, since it starts a thread.

    Args:
        socket_path: the engine's socket.
        worker: the name under which counters are shipped.
        incarnation: which life of that worker this is.
        generation: of the configuration; an answer judged under another one is
            given on but not kept.
        counters: what to ship; the client counts its own cache there too.
        wall, monotonic: clocks, in seconds.
    """

    def __init__(
        self,
        socket_path: str,
        *,
        worker: str = "worker",
        incarnation: int = 0,
        generation: int = 0,
        counters: Counters | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        answer_timeout: float | None = None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = socket_path
        self._worker = worker
        self._incarnation = incarnation
        self._generation = generation
        self._counters = counters if counters is not None else Counters()
        self._limits = limits
        self._answer_timeout = answer_timeout
        self._wall = wall
        self._monotonic = monotonic

        self._lock = threading.Lock()  # guards what follows
        self._hot: OrderedDict[Question, _Hot] = OrderedDict()
        self._pending: OrderedDict[int, _Pending] = OrderedDict()  # by age
        self._asked: dict[Question, int] = {}
        self._unsent: deque[int] = deque()
        self._next_id = 0
        self._connected = False

        # of the thread only
        self._out = bytearray()
        self._shipped: Totals | None = None
        self._next_ship = 0.0

        self._closing = threading.Event()
        self._wakeup_r, self._wakeup_w = socket.socketpair()
        self._wakeup_r.setblocking(False)
        self._wakeup_w.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="engine-client", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------ for the callbacks

    @property
    def connected(self) -> bool:
        """Whether the engine can be reached now."""
        with self._lock:
            return self._connected

    def ask(self, question: Question) -> Future[Forecast]:
        """See :class:`requiretls_milter.milter.source.ForecastSource`."""
        future: Future[Forecast] = Future()
        answer: Forecast | None
        result = CacheResult.MISS
        with self._lock:
            answer = self._recall(question)
            if answer is not None:
                result = CacheResult.HIT
            elif self._closing.is_set():
                answer = unknown_forecast("the service is about to stop")
            elif not self._connected:
                answer = unknown_forecast("the engine cannot be reached")
            elif question in self._asked:
                result = CacheResult.JOINED
                self._pending[self._asked[question]].futures.append(future)
            elif len(self._pending) >= self._limits.questions:
                answer = unknown_forecast("too many questions are under way")
                self._counters.inc("saturated_total", (Bound.QUESTIONS,))
            else:
                self._next_id += 1
                deadline = self._monotonic() + self._answer_within()
                self._pending[self._next_id] = _Pending(question, deadline, [future])
                self._asked[question] = self._next_id
                self._unsent.append(self._next_id)
        self._counters.inc("cache_requests_total", (Layer.FORECAST, result))
        if answer is not None:
            future.set_result(answer)
        elif result is CacheResult.MISS:
            self._wake()
        return future

    def reconfigure(self, generation: int, limits: Limits) -> None:
        """Go over to a new configuration: what was judged under the old one is forgotten."""
        with self._lock:
            self._generation = generation
            self._limits = limits
            self._hot.clear()

    def close(self, timeout: float = 1.0) -> None:
        """Ship the counters a last time and end; waits ``timeout`` seconds at most."""
        self._closing.set()
        self._wake()
        self._thread.join(timeout)

    def _answer_within(self) -> float:
        if self._answer_timeout is not None:
            return self._answer_timeout
        return self._limits.assessment_timeout + ANSWER_MARGIN

    def _recall(self, question: Question) -> Forecast | None:
        hot = self._hot.get(question)
        if hot is None:
            return None
        if self._wall() >= hot.until or self._monotonic() >= hot.monotonic_until:
            del self._hot[question]
            return None
        self._hot.move_to_end(question)
        return hot.forecast

    def _wake(self) -> None:
        # full means that the thread is awake already; closed, that it has ended
        with suppress(OSError):
            self._wakeup_w.send(b"\0")

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        backoff = FIRST_BACKOFF
        alone_since = self._monotonic()
        told = False
        while not self._closing.is_set():
            try:
                reason = self._session()
            except Exception as error:  # noqa: BLE001 - the thread must live, come what may
                _log.exception("engine_client_error", error=repr(error))
                reason = "a mistake of ours"
            if self._lose(reason):
                backoff = FIRST_BACKOFF
                alone_since = self._monotonic()
                told = False
            if self._closing.is_set():
                break
            # Once an outage; an engine that starts or is being replaced is none.
            if not told and self._monotonic() - alone_since > OUTAGE:
                _log.warning("engine_unreachable", reason=reason, socket=self._path)
                told = True
            self._pause(backoff * random.uniform(0.75, 1.25))  # noqa: S311 - spreads workers
            backoff = min(2 * backoff, MAX_BACKOFF)
        self._wakeup_r.close()
        self._wakeup_w.close()

    def _pause(self, seconds: float) -> None:
        until = self._monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakeup_r, selectors.EVENT_READ)
            while not self._closing.is_set() and (left := until - self._monotonic()) > 0:
                if selector.select(left):
                    self._drain_wakeup()

    def _drain_wakeup(self) -> None:
        with suppress(BlockingIOError):
            while self._wakeup_r.recv(_CHUNK):
                pass

    def _session(self) -> str:
        """One connection, from its start to its end; returns why it ended."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            try:
                # On a unix socket this never takes time: it succeeds or fails.
                connection.connect(self._path)
            except OSError as error:
                return f"cannot connect: {os.strerror(error.errno or 0)}"
            self._out.clear()
            self._shipped = None
            self._next_ship = 0.0
            with self._lock:
                self._connected = True
                # Another engine may trust other things, and could not tell us.
                self._hot.clear()
            _log.info("engine_found", socket=self._path)
            unframer = Unframer()
            with selectors.DefaultSelector() as selector:
                selector.register(self._wakeup_r, selectors.EVENT_READ)
                selector.register(connection, selectors.EVENT_READ)
                while True:
                    reason = self._turn(connection, selector, unframer)
                    if reason:
                        return reason

    def _turn(
        self,
        connection: socket.socket,
        selector: selectors.BaseSelector,
        unframer: Unframer,
    ) -> str:
        """One turn of the loop: send, wait, receive; returns why it was the last, or ""."""
        closing = self._closing.is_set()
        self._take_questions()
        self._take_counters(at_once=closing)
        try:
            while self._out:
                del self._out[: connection.send(self._out)]
        except BlockingIOError:
            pass
        except OSError as error:
            return f"cannot send: {os.strerror(error.errno or 0)}"
        if closing and not self._out:
            return "closed"
        if len(self._out) > MAX_UNSENT:
            return "the engine does not read"
        if self._overdue():
            return "the engine does not answer"
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
        selector.modify(connection, events)
        timeout = max(0.0, self._next_ship - self._monotonic())
        for key, ready in selector.select(timeout):
            if key.fileobj is self._wakeup_r:
                self._drain_wakeup()
            elif ready & selectors.EVENT_READ:
                try:
                    data = connection.recv(_CHUNK)
                    if not data:
                        return "the engine closed the connection"
                    for payload in unframer.feed(data):
                        self._take_reply(decode_reply(payload))
                except BlockingIOError:
                    continue
                except WireError as error:
                    return f"malformed answer: {error}"
                except OSError as error:
                    return f"cannot receive: {os.strerror(error.errno or 0)}"
        return ""

    def _take_questions(self) -> None:
        with self._lock:
            requests = [
                ForecastRequest(
                    id=number,
                    generation=self._generation,
                    question=self._pending[number].question,
                )
                for number in self._unsent
                if number in self._pending
            ]
            self._unsent.clear()
        for request in requests:
            try:
                self._out += encode(request)
            except WireError as error:
                self._answer(request.id, unknown_forecast(f"cannot be asked: {error}"))

    def _take_counters(self, *, at_once: bool) -> None:
        now = self._monotonic()
        if not at_once and now < self._next_ship:
            return
        self._next_ship = now + SHIP_INTERVAL
        totals = self._counters.totals()
        if totals == self._shipped:
            return
        self._shipped = totals
        for piece in totals.pieces(PIECE):
            self._out += encode(
                CountersRequest(worker=self._worker, incarnation=self._incarnation, totals=piece)
            )

    def _take_reply(self, reply: Reply) -> None:
        if isinstance(reply, ForecastReply):
            self._answer(reply.id, reply.forecast, reply.generation)
        elif isinstance(reply, ErrorReply):
            self._answer(reply.id, unknown_forecast(reply.error))
        elif isinstance(reply, ForgetReply):
            with self._lock:
                self._hot.clear()
        else:
            raise WireError(f"nobody asked for {reply.op}")

    def _answer(self, number: int, forecast: Forecast, generation: int | None = None) -> None:
        with self._lock:
            pending = self._pending.pop(number, None)
            if pending is None:
                return  # an engine that answers twice, or makes numbers up
            self._asked.pop(pending.question, None)
            if generation == self._generation:
                self._keep(pending.question, forecast)
        _resolve(pending, forecast)

    def _keep(self, question: Question, forecast: Forecast) -> None:
        life = min(forecast.valid_until - self._wall(), MAX_HOT_LIFE)
        if forecast.status == UNKNOWN_STATUS or life <= 0:
            return
        self._hot[question] = _Hot(forecast, self._wall() + life, self._monotonic() + life)
        self._hot.move_to_end(question)
        while len(self._hot) > self._limits.forecast_cache:
            self._hot.popitem(last=False)
            self._counters.inc("saturated_total", (Bound.FORECAST_CACHE,))

    def _overdue(self) -> bool:
        with self._lock:
            oldest = next(iter(self._pending.values()), None)
        return oldest is not None and self._monotonic() >= oldest.deadline

    def _lose(self, reason: str) -> bool:
        """There is no connection: whoever waits gets his answer now. Returns whether there was."""
        with self._lock:
            had = self._connected
            self._connected = False
            lost = list(self._pending.values())
            self._pending.clear()
            self._asked.clear()
            self._unsent.clear()
        if had and not self._closing.is_set():
            _log.warning("engine_lost", reason=reason, questions=len(lost))
        for pending in lost:
            _resolve(pending, unknown_forecast(f"the engine was lost: {reason}"))
        return had


def _resolve(pending: _Pending, forecast: Forecast) -> None:
    for future in pending.futures:
        # False: the caller has cancelled it and wants no answer
        if future.set_running_or_notify_cancel():
            future.set_result(forecast)


# ---------------------------------------------------------------- the command line's way


class EngineUnavailable(Exception):
    """No engine answers there, or it refuses; the text says why."""


def status(socket_path: str, timeout: float = 5.0) -> StatusReply:
    """Ask a running engine who it is; waits ``timeout`` seconds at most.

    Raises:
        EngineUnavailable: there is none.
    """
    reply = _call(socket_path, StatusRequest(id=1), timeout)
    if not isinstance(reply, StatusReply):
        raise EngineUnavailable(f"a status was asked for, and {reply.op} came")
    return reply


def evidence(
    socket_path: str, nexthop: str, *, refresh: bool = False, timeout: float = 60.0
) -> DomainEvidence:
    """What a running engine knows of a next hop, or finds out within ``timeout`` seconds.

    Raises:
        EngineUnavailable: there is no engine, or it gave no evidence.
    """
    request = EvidenceRequest(id=1, nexthop=nexthop, refresh=refresh)
    reply = _call(socket_path, request, timeout)
    if not isinstance(reply, EvidenceReply):
        raise EngineUnavailable(f"evidence was asked for, and {reply.op} came")
    return reply.evidence


def _call(socket_path: str, request: Request, timeout: float) -> Reply:
    deadline = time.monotonic() + timeout
    unframer = Unframer()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(socket_path)
            connection.sendall(encode(request))
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                connection.settimeout(left)
                data = connection.recv(_CHUNK)
                if not data:
                    raise EngineUnavailable("the engine closed the connection")
                for payload in unframer.feed(data):
                    reply = decode_reply(payload)
                    if isinstance(reply, ErrorReply):
                        raise EngineUnavailable(reply.error)
                    return reply
    except TimeoutError:
        raise EngineUnavailable(f"no answer within {timeout:g} s") from None
    except (OSError, WireError) as error:
        raise EngineUnavailable(str(error)) from error
