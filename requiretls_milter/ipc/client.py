"""A worker's connection to the engine.

A worker's questions come from libmilter's threads and must never make SMTP wait:
:meth:`EngineClient.ask` only takes a lock. One thread of the client's own does everything that
touches the socket, and all decoding. If the engine is gone, or busy, or sends what does not
decode, questions are answered at once with an ``unknown`` forecast, and the thread goes on
trying to reach it.
"""

from __future__ import annotations

import os
import random
import selectors
import socket
import threading
from collections import OrderedDict, deque
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

from requiretls_milter.clocks import SYSTEM_CLOCKS, Clocks
from requiretls_milter.config import Config
from requiretls_milter.ipc.framing import Unframer, WireError
from requiretls_milter.ipc.kept import KeptForecasts
from requiretls_milter.ipc.wire import (
    MAX_RECIPIENT,
    CountersRequest,
    EngineReply,
    ErrorReply,
    ExpandReply,
    ExpandRequest,
    ForecastReply,
    ForecastRequest,
    ForgetReply,
    MtaRequest,
    Request,
    decode_reply,
    encode,
)
from requiretls_milter.model import (
    Forecast,
    Question,
    unknown_forecast,
)
from requiretls_milter.syntax.expansion import Expansion, ExpansionError
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters, Totals
from requiretls_milter.telemetry.labels import Bound, CacheResult, Layer

ANSWER_MARGIN = 10.0
"""Seconds for an answer beyond the engine's own deadline: time to answer many at once.

No callback waits that long: each has a deadline of its own. An engine that leaves a question
unanswered for longer is stuck, and the connection is given up.
"""

FIRST_BACKOFF = 0.05
MAX_BACKOFF = 0.25
"""Seconds between attempts to reach the engine: each costs a system call, and questions that
come in between get no forecast."""

OUTAGE = 3.0
"""Seconds without an engine that are worth a warning: a new one takes less to start."""

SHIP_INTERVAL = 1.0
"""Seconds between two checks for counters that have changed and must be sent."""

PIECE = 2000
"""Series in one message of counters: a quarter of what fits."""

MAX_UNSENT = 4 << 20
"""Unsent bytes; an engine that lets it come to this is stuck."""

_CHUNK = 1 << 16

_log = log.get_logger("engine.client")


@dataclass(slots=True)
class _PendingQuestion:
    """A question under way, and the futures of all callers that wait for its answer."""

    question: Question
    deadline: float
    uses: int
    futures: list[Future[Forecast]] = field(default_factory=list)

    def request(self, number: int, generation: int) -> Request:
        """What the engine is sent."""
        return ForecastRequest(
            id=number,
            generation=generation,
            question=self.question,
            may_be_stale=True,
            uses=self.uses,
        )

    def resolve(self, forecast: Forecast) -> None:
        """Give all callers the answer."""
        for future in self.futures:
            # False: the caller has cancelled it and wants no answer
            if future.set_running_or_notify_cancel():
                future.set_result(forecast)

    def give_up(self, why: str) -> None:
        """Answer without the engine."""
        self.resolve(unknown_forecast(why))


@dataclass(slots=True)
class _PendingExpansion:
    """A recipient that is being expanded, and the future of its caller."""

    recipient: str
    deadline: float
    future: Future[Expansion]

    def request(self, number: int, generation: int) -> Request:
        """What the engine is sent."""
        return ExpandRequest(id=number, recipient=self.recipient)

    def resolve(self, reply: ExpandReply) -> None:
        """Give the caller the answer."""
        if reply.error:
            self.give_up(reply.error)
        elif self.future.set_running_or_notify_cancel():
            self.future.set_result(Expansion(reply.given, reply.addresses))

    def give_up(self, why: str) -> None:
        """Answer without the engine."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(ExpansionError(why))


_Pending = _PendingQuestion | _PendingExpansion


class EngineClient:
    """Implements :class:`requiretls_milter.milter.source.ForecastSource` over the engine's socket.

    Construct it after the fork, since it starts a thread.

    Args:
        config: with the engine's socket and the limits.
        generation: of the configuration; an answer judged under another one is
            given on but not kept.
        worker: the name under which counters are sent.
        incarnation: the number of this start of the worker.
        counters: the counters to send; the client counts its own cache there too.
        answer_margin: seconds for an answer beyond the engine's own deadline.
        clocks: for the lives of forecasts and for deadlines.
    """

    def __init__(
        self,
        config: Config,
        *,
        generation: int = 0,
        worker: str = "worker",
        incarnation: int = 0,
        counters: Counters | None = None,
        answer_margin: float = ANSWER_MARGIN,
        clocks: Clocks = SYSTEM_CLOCKS,
    ) -> None:
        self._path = config.engine.socket
        self._worker = worker
        self._incarnation = incarnation
        self._counters = counters if counters is not None else Counters()
        self._answer_margin = answer_margin
        self._wall = clocks.wall
        self._monotonic = clocks.monotonic

        self._lock = threading.Lock()  # guards what follows
        self._generation = generation
        self._limits = config.limits
        self._kept = KeptForecasts(config.limits.forecast_cache, clocks)
        self._pending: OrderedDict[int, _Pending] = OrderedDict()  # by age
        self._asked: dict[Question, _PendingQuestion] = {}  # those that are pending
        self._unsent: deque[int] = deque()
        self._next_id = 0
        self._connected = False
        self._mta_version = ""

        # of the thread only
        self._out = bytearray()
        self._shipped: Totals | None = None
        self._told_mta = ""
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

    @property
    def kept(self) -> int:
        """The number of forecasts that are kept."""
        with self._lock:
            return len(self._kept)

    def ask(self, question: Question) -> Forecast | Future[Forecast]:
        """See :class:`requiretls_milter.milter.source.ForecastSource`."""
        answer: Forecast | Future[Forecast] | None
        result = CacheResult.MISS
        with self._lock:
            answer = self._kept.recall(question)
            if answer is not None:
                result = CacheResult.HIT
            elif why := self._unavailable():
                answer = unknown_forecast(why)
            elif (asked := self._asked.get(question)) is not None:
                result = CacheResult.JOINED
                answer = Future()
                asked.futures.append(answer)
            elif why := self._no_room():
                answer = unknown_forecast(why)
            else:
                answer = self._begin(question)
        self._counters.inc("cache_requests_total", (Layer.FORECAST, result))
        if result is CacheResult.MISS and isinstance(answer, Future):
            self._wake()
        return answer

    def _begin(self, question: Question) -> Future[Forecast]:
        future: Future[Forecast] = Future()
        uses = self._kept.end(question)
        pending = _PendingQuestion(question, self._deadline(), uses, [future])
        self._asked[question] = pending
        self._put(pending)
        return future

    def _put(self, pending: _Pending) -> None:
        """Have it sent."""
        self._next_id += 1
        self._pending[self._next_id] = pending
        self._unsent.append(self._next_id)

    def _deadline(self) -> float:
        """Until when the engine has to answer what is asked now."""
        return self._monotonic() + self._limits.assessment_timeout + self._answer_margin

    def _unavailable(self) -> str:
        """Why there is no engine to ask; "" if there is."""
        if self._closing.is_set():
            return "the service is about to stop"
        return "" if self._connected else "the engine cannot be reached"

    def _no_room(self) -> str:
        """Why no more may be asked, which is counted; "" if it may."""
        if len(self._pending) < self._limits.questions:
            return ""
        self._counters.inc("saturated_total", (Bound.QUESTIONS,))
        return "too many questions are under way"

    def expand(self, recipient: str) -> Future[Expansion]:
        """Have the engine find out what the MTA makes of a recipient; returns at once.

        The future yields an :class:`.Expansion`, or raises :class:`.ExpansionError`.

        Args:
            recipient: as the client wrote it.
        """
        future: Future[Expansion] = Future()
        with self._lock:
            pending = _PendingExpansion(recipient, self._deadline(), future)
            why = self._unavailable()
            if not why and len(recipient) > MAX_RECIPIENT:
                why = f"an address of more than {MAX_RECIPIENT} characters"
            why = why or self._no_room()
            if not why:
                self._put(pending)
        if why:
            pending.give_up(why)
        else:
            self._wake()
        return future

    def reconfigure(self, config: Config, generation: int) -> None:
        """Adopt a new configuration: what was judged under the old one is forgotten.

        The engine's socket stays the one that it was.
        """
        with self._lock:
            self._generation = generation
            self._limits = config.limits
            self._kept.clear()
            self._kept.limit_to(config.limits.forecast_cache)

    def tell_mta(self, version: str) -> None:
        """Have the engine know what the MTA says that it is; without effect if it knows."""
        with self._lock:
            self._mta_version = version

    def close(self, timeout: float = 1.0) -> None:
        """Send the counters a last time and end; waits ``timeout`` seconds at most."""
        self._closing.set()
        self._wake()
        self._thread.join(timeout)

    def _wake(self) -> None:
        # A full socket means that the thread is awake already; a closed one, that it has ended.
        with suppress(OSError):
            self._wakeup_w.send(b"\0")

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        backoff = FIRST_BACKOFF
        unreachable_since = self._monotonic()
        warned = False
        while not self._closing.is_set():
            try:
                reason = self._session()
            except Exception as error:  # noqa: BLE001 - the thread must live, come what may
                _log.exception("engine_client_error", error=repr(error))
                reason = "internal error"
            if self._disconnected(reason):
                backoff = FIRST_BACKOFF
                unreachable_since = self._monotonic()
                warned = False
            if self._closing.is_set():
                break
            # Once for each outage; an engine that starts or is being replaced is none.
            if not warned and self._monotonic() - unreachable_since > OUTAGE:
                _log.warning("engine_unreachable", reason=reason, socket=self._path)
                warned = True
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
        """Hold one connection to its end; returns why it ended."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            try:
                # On a unix socket this never takes time: it succeeds or fails.
                connection.connect(self._path)
            except OSError as error:
                return f"cannot connect: {os.strerror(error.errno or 0)}"
            self._out.clear()
            self._shipped = None
            self._told_mta = ""
            self._next_ship = 0.0
            with self._lock:
                self._connected = True
                # Another engine may trust other authorities, and could not tell us.
                self._kept.clear()
            _log.info("engine_found", socket=self._path)
            unframer = Unframer()
            with selectors.DefaultSelector() as selector:
                selector.register(self._wakeup_r, selectors.EVENT_READ)
                selector.register(connection, selectors.EVENT_READ)
                while True:
                    reason = self._exchange(connection, selector, unframer)
                    if reason:
                        return reason

    def _exchange(
        self,
        connection: socket.socket,
        selector: selectors.BaseSelector,
        unframer: Unframer,
    ) -> str:
        """Send, wait and receive once; returns why the connection ended, or ""."""
        closing = self._closing.is_set()
        self._queue_questions()
        self._queue_counters(at_once=closing)
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
        if self._is_overdue():
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
                        self._handle_reply(decode_reply(payload))
                except BlockingIOError:
                    continue
                except WireError as error:
                    return f"malformed answer: {error}"
                except OSError as error:
                    return f"cannot receive: {os.strerror(error.errno or 0)}"
        return ""

    def _queue_questions(self) -> None:
        with self._lock:
            requests = [
                (number, self._pending[number].request(number, self._generation))
                for number in self._unsent
                if number in self._pending
            ]
            self._unsent.clear()
        for number, request in requests:
            try:
                self._out += encode(request)
            except WireError as error:
                self._give_up(number, f"cannot be asked: {error}")

    def _queue_counters(self, *, at_once: bool) -> None:
        now = self._monotonic()
        if not at_once and now < self._next_ship:
            return
        self._next_ship = now + SHIP_INTERVAL
        with self._lock:
            version = self._mta_version
        if version != self._told_mta:
            self._told_mta = version
            self._out += encode(MtaRequest(version=version))
        totals = self._counters.totals()
        if totals == self._shipped:
            return
        self._shipped = totals
        for piece in totals.pieces(PIECE):
            self._out += encode(
                CountersRequest(worker=self._worker, incarnation=self._incarnation, totals=piece)
            )

    def _handle_reply(self, reply: EngineReply) -> None:
        if isinstance(reply, ForecastReply):
            self._answer(reply.id, reply.forecast, reply.generation)
        elif isinstance(reply, ExpandReply):
            pending = self._taken(reply.id)
            if isinstance(pending, _PendingExpansion):
                pending.resolve(reply)
            elif pending is not None:
                pending.give_up("the engine answered with an expansion")
                raise WireError("a recipient's expansion, and a forecast was asked for")
        elif isinstance(reply, ErrorReply):
            self._give_up(reply.id, reply.error)
        elif isinstance(reply, ForgetReply):
            with self._lock:
                self._kept.clear()
        else:
            raise WireError(f"nothing asked for {reply.op}")

    def _taken(self, number: int) -> _Pending | None:
        """What waits under a number, and does so no more; the engine may make numbers up."""
        with self._lock:
            pending = self._pending.pop(number, None)
            if isinstance(pending, _PendingQuestion):
                self._asked.pop(pending.question, None)
        return pending

    def _give_up(self, number: int, why: str) -> None:
        pending = self._taken(number)
        if pending is not None:
            pending.give_up(why)

    def _answer(self, number: int, forecast: Forecast, generation: int) -> None:
        pending = self._taken(number)
        if pending is None:
            return
        if not isinstance(pending, _PendingQuestion):
            pending.give_up("the engine answered with a forecast")
            raise WireError("a forecast, and a recipient's expansion was asked for")
        evicted = 0
        with self._lock:
            if generation == self._generation:
                evicted = self._kept.keep(pending.question, forecast)
        if evicted:
            self._counters.inc("saturated_total", (Bound.FORECAST_CACHE,), evicted)
        pending.resolve(forecast)

    def _is_overdue(self) -> bool:
        with self._lock:
            oldest = next(iter(self._pending.values()), None)
        return oldest is not None and self._monotonic() >= oldest.deadline

    def _disconnected(self, reason: str) -> bool:
        """Answer all pending questions: there is no connection. Returns whether there was one."""
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
            pending.give_up(f"the engine was lost: {reason}")
        return had
