"""An engine's socket behind which a test sits: honest, hostile, or silent."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from requiretls_milter.ipc.framing import Unframer
from requiretls_milter.ipc.wire import (
    CountersRequest,
    ForecastReply,
    ForecastRequest,
    Request,
    decode_request,
    encode,
)
from requiretls_milter.model import Forecast, Outcome, Reason


def forecast(
    text: str = "", *, life: float = 60.0, status: str = "2.0.0", largest: int | None = None
) -> Forecast:
    until = time.time() + life
    return Forecast(status, Outcome.DELIVER, Reason.OK, text, valid_until=until, largest=largest)


Behaviour = Callable[[socket.socket, Request], None]


def answers(**options: Any) -> Behaviour:
    """Each question gets a forecast whose text is its next hop."""

    def behave(connection: socket.socket, request: Request) -> None:
        if isinstance(request, ForecastRequest):
            reply = ForecastReply(
                id=request.id,
                generation=request.generation,
                forecast=forecast(request.question.nexthop, **options),
            )
            connection.sendall(encode(reply))

    return behave


def says(octets: bytes) -> Behaviour:
    """Whatever is asked, these bytes come."""

    def behave(connection: socket.socket, request: Request) -> None:
        if isinstance(request, ForecastRequest):
            connection.sendall(octets)

    return behave


def is_silent(_: socket.socket, __: Request) -> None:
    """Takes questions and answers none."""


class FakeEngine:
    """Listens at a path; each request goes to ``behaviour``, which may be exchanged."""

    def __init__(self, path: Path, behaviour: Behaviour) -> None:
        self.path = path
        self.behaviour = behaviour
        self.requests: list[Request] = []
        self.connections: list[socket.socket] = []
        self.accepted = 0
        self._listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []

    def start(self) -> FakeEngine:
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._accepting = self._run(self._accept, self._listener)
        return self

    def stop(self) -> None:
        """As if it were killed."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._accepting.join(5)  # before the cut: it may just have let somebody in
            self._listener.close()
            self._listener = None
        self.drop()
        for thread in self._threads:
            thread.join(5)

    def drop(self) -> None:
        """Cut all connections."""
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it is gone already
        self.connections = []

    def _run(
        self, work: Callable[[socket.socket], None], argument: socket.socket
    ) -> threading.Thread:
        thread = threading.Thread(target=work, args=(argument,))
        thread.start()
        self._threads.append(thread)
        return thread

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            self.connections.append(connection)
            self._run(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        unframer = Unframer()
        with connection:
            while True:
                try:
                    data = connection.recv(65536)
                    if not data:
                        return
                    for payload in unframer.feed(data):
                        request = decode_request(payload)
                        self.requests.append(request)
                        self.behaviour(connection, request)
                except OSError:
                    return

    @property
    def questions(self) -> list[ForecastRequest]:
        return [request for request in self.requests if isinstance(request, ForecastRequest)]

    @property
    def asked(self) -> list[str]:
        return [request.question.nexthop for request in self.questions]

    @property
    def counted(self) -> list[CountersRequest]:
        return [request for request in self.requests if isinstance(request, CountersRequest)]
