"""The metrics server, for Prometheus, probes and people: HTTP, or HTTPS with a certificate.

It answers GET and HEAD of a few paths, reads no body, and changes nothing. A page for people is
rendered as the metrics are: what it shows is copied on the engine's loop, and a thread renders it.

Bounded are the number of connections, from the moment when they are accepted (a TLS handshake
that never ends counts too), the octets of a request and of a connection, and how long a connection
lasts, whatever goes on in it. A new connection is always accepted: beyond the bound one of the
client with most connections is closed, so that idle ones do not keep the scraper out.

The engine's loop answers the workers as well. So connections, handshakes and requests have a pace
(:mod:`.admission`). All requests that come while a rendering of the same page waits share it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from aiohttp import web

from requiretls_milter.engine.web.admission import Connections, Pace
from requiretls_milter.engine.web.exposition import Readings, chosen, render
from requiretls_milter.engine.web.health import STARTING, Health
from requiretls_milter.engine.web.page import Page, Rendering
from requiretls_milter.engine.web.webpage import PROTECTED, names_this_host
from requiretls_milter.syntax.endpoint import Endpoint
from requiretls_milter.syntax.text import visible
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Bound

CONNECTION_LIFE = 60.0
"""Seconds that a connection lasts at most, busy or not."""

HANDSHAKE_TIMEOUT = 10.0
"""Seconds for the TLS handshake."""

MAX_LINE = 4096
"""Octets of a line of an HTTP request."""

MAX_FIELDS = 64
"""Lines of the header of an HTTP request."""

MAX_OCTETS = 32_768
"""Octets that a client may send over one connection: a scrape takes some 350. Requests that are
sent ahead of their answers are kept in memory, each with some 2 KiB."""

CONNECTIONS_PER_SECOND = 1000
"""Connections that are accepted: each costs the loop some 50 us, even if it is closed at once."""

HANDSHAKES_PER_SECOND = 50
"""TLS handshakes that begin: each costs the loop a signature, 1 ms with RSA."""

REQUESTS_PER_SECOND = 200
"""Requests that are answered: each costs 0.2 ms."""

RENDERINGS_PER_SECOND = 5
"""Renderings of metrics and pages: each costs the loop 10 ms, and 50 with many domains."""

BACKLOG = 128
"""Connections that may wait to be accepted."""

PAUSE = 1.0
"""Seconds until the next attempt to accept a connection when no descriptor is left."""

SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of accept(2) that another attempt at once would meet again; others are of one client."""

_log = log.get_logger("engine.scrape")


class MetricsServer:
    """Serves ``/metrics``, ``/healthz``, ``/readyz`` and pages, and nothing else.

    Args:
        listen: ``metrics.listen``; port 0: one that the kernel chooses.
        read: copies all values, at once: it is called on the loop. They are rendered in a thread.
        counters: count clients that are turned away.
        health: tells how the service is, for ``/healthz``.
        unready: tells what keeps the service from being ready, for ``/readyz``.
        pages: by its path, what copies the values of each page, as *read* does, and returns what
            renders them in the thread.
        max_connections: at once; for a further one another one is closed.
        tls: the settings for TLS; None for HTTP in clear. They may be replaced at
            any time: connections that begin later use the new ones.
    """

    def __init__(
        self,
        listen: Endpoint,
        read: Callable[[], Readings],
        counters: Counters | None = None,
        *,
        health: Callable[[], Health] = lambda: STARTING,
        unready: Callable[[], Sequence[str]] = tuple,
        pages: Mapping[str, Callable[[], Rendering]] | None = None,
        max_connections: int = 32,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._address = listen
        self._read = read
        # One thread: the loop shares the interpreter with one rendering at most.
        self._renderer = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._counters = counters if counters is not None else Counters()
        self._health = health
        self._unready = unready
        self._routes: dict[str, Callable[[web.BaseRequest], Awaitable[Page]]] = {
            "/metrics": self._metrics,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
        }
        for path, copy in (pages or {}).items():
            self._routes[path] = self._shown(path, copy)
        self._max_connections = max_connections
        self._connections: Connections[web.RequestHandler] = Connections()
        self._accepts = Pace(CONNECTIONS_PER_SECOND)
        self._handshakes = Pace(HANDSHAKES_PER_SECOND)
        self._requests = Pace(REQUESTS_PER_SECOND)
        self._renderings = Pace(RENDERINGS_PER_SECOND)
        self._to_render: dict[str, asyncio.Task[Page]] = {}
        self.tls = tls
        self._listener: socket.socket | None = None
        self._server: _HttpServer
        self._accepting: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be had; the text says why.
        """
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listener = socket.create_server(self._address, family=family, backlog=BACKLOG)
        except OSError as error:
            where = f"metrics.listen {host}:{port}"
            # create_server() adds the address to its text; this text names the key.
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise OSError(error.errno, f"{where}: {reason}") from error
        self._listener.setblocking(False)
        self._server = _HttpServer(self._answer)
        self._accepting = asyncio.create_task(self._accept(self._listener), name="metrics")

    @property
    def port(self) -> int:
        """The port that the server listens at; of use if 0 was configured."""
        return int(self._listener.getsockname()[1]) if self._listener is not None else 0

    @property
    def connections(self) -> int:
        """The number of connections, those in their handshake included."""
        return len(self._connections)

    async def close(self) -> None:
        """Take no more requests, and cut those that are open."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        tasks = [*self._connections.tasks(), *self._to_render.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._renderer.shutdown(wait=False, cancel_futures=True)
        if self._listener is not None:
            self._listener.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # Also the turn of the task that was made last: it closes its connection, and must
            # have begun before it may be cancelled.
            await self._accepts.turn()
            try:
                connection, (address, *_) = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno in SHORTAGE:
                    _log.warning("metrics_not_accepted", error=str(error))
                    await asyncio.sleep(PAUSE)
                continue
            if len(self._connections) >= self._max_connections:
                self._counters.inc("saturated_total", (Bound.METRICS_CONNECTIONS,))
                self._connections.make_room(address).cancel()
            handler = self._server.handler()
            task = asyncio.create_task(self._receive(connection, handler))
            self._connections.add(handler, task, address)

    async def _receive(self, connection: socket.socket, handler: web.RequestHandler) -> None:
        """Serve one connection, from its first octet to its last."""
        tls = self.tls
        transport: asyncio.Transport | None = None
        handed_over = False
        try:
            async with asyncio.timeout(CONNECTION_LIFE):
                if tls is not None:
                    await self._handshakes.turn()
                handed_over = True  # from now on a transport closes it
                transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: handler,
                    connection,
                    ssl=tls,
                    ssl_handshake_timeout=HANDSHAKE_TIMEOUT if tls is not None else None,
                )
                await self._server.ended(handler)
        except TimeoutError:
            _log.debug("metrics_cut", seconds=CONNECTION_LIFE)
        except OSError as error:  # HTTP in clear, an old version, no client certificate...
            _log.debug("metrics_handshake_failed", error=str(error))
        finally:
            self._connections.remove(handler)
            if transport is not None:
                transport.abort()
            if not handed_over:
                connection.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self._connections.touch(request.protocol)
        await self._requests.turn()
        route = self._routes.get(request.path)
        if route is None:
            page = _text(404, "not found")
        elif request.method not in ("GET", "HEAD"):
            page = _text(405, "only GET", Allow="GET, HEAD")
        else:
            page = await route(request)
        headers = {"Content-Type": page.media_type, **page.headers}
        return web.Response(status=page.status, body=page.body, headers=headers)

    async def _metrics(self, request: web.BaseRequest) -> Page:
        wanted = chosen(request.headers.get("Accept", ""))
        return await self._rendered(wanted, lambda: partial(render, self._read(), wanted))

    async def _healthz(self, _: web.BaseRequest) -> Page:
        health = self._health()
        return _text(200 if health.serves else 503, health.text)

    async def _readyz(self, _: web.BaseRequest) -> Page:
        reasons = self._unready()
        return _text(503, f"not ready: {', '.join(reasons)}") if reasons else _text(200, "ready")

    def _shown(
        self, path: str, copy: Callable[[], Rendering]
    ) -> Callable[[web.BaseRequest], Awaitable[Page]]:
        async def answer(request: web.BaseRequest) -> Page:
            host = request.headers.get("Host")
            if host is not None and not request.secure and not names_this_host(host):
                return _text(421, "not served by this name: use the address of this host")
            return await self._rendered(path, copy)

        return answer

    async def _rendered(self, key: str, copy: Callable[[], Rendering]) -> Page:
        """A page as it is now, or in a moment; *key* tells it from the others."""
        task = self._to_render.get(key)
        if task is None:
            task = self._to_render[key] = asyncio.create_task(self._render(key, copy))
        return await asyncio.shield(task)  # for the others, if this client leaves

    async def _render(self, key: str, copy: Callable[[], Rendering]) -> Page:
        try:
            await self._renderings.turn()
        finally:
            del self._to_render[key]
        page = await asyncio.get_running_loop().run_in_executor(self._renderer, copy())
        if not page.is_whole:
            self._counters.inc("saturated_total", (Bound.DOMAIN_SERIES,))
        return page


def _text(status: int, line: str, **headers: str) -> Page:
    """A page of one line."""
    body = f"{visible(line)}\n".encode()
    return Page(body, "text/plain; charset=utf-8", status=status, headers={**PROTECTED, **headers})


class _Handler(web.RequestHandler):
    """One connection; its client may send only so many octets."""

    __slots__ = ("_octets",)

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._octets = 0

    def data_received(self, data: bytes) -> None:
        self._octets += len(data)
        if self._octets > MAX_OCTETS:
            self.force_close()
        else:
            super().data_received(data)


class _HttpServer(web.Server):
    """An HTTP server that tells when a connection has ended."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._ends: dict[web.RequestHandler, asyncio.Event] = {}

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._ends[handler] = asyncio.Event()

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        super().connection_lost(handler, exc)
        if (end := self._ends.pop(handler, None)) is not None:
            end.set()

    def handler(self) -> web.RequestHandler:
        """Make the protocol of a connection that begins."""
        return _Handler(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,
            keepalive_timeout=CONNECTION_LIFE / 2,
            lingering_time=0,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_FIELDS,
        )

    async def ended(self, handler: web.RequestHandler) -> None:
        """Wait until a connection has."""
        if (end := self._ends.get(handler)) is not None:
            await end.wait()
