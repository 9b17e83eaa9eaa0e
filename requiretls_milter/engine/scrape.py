"""The metrics server, for Prometheus: HTTP, or HTTPS if a certificate is configured.

Bounded are the number of connections, from the moment when they are accepted (a TLS handshake
that never ends counts too), the octets of a request, and how long a connection lasts, whatever
goes on in it. A new connection is always accepted: beyond the bound the one that has been without
a request for longest is closed, so that idle ones do not keep the scraper out.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from aiohttp import web

from requiretls_milter.bounded import BoundedMap
from requiretls_milter.engine.exposition import Readings, render
from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.syntax.endpoint import Endpoint
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Bound

if TYPE_CHECKING:
    from requiretls_milter.config import Metrics

CONNECTION_LIFE = 60.0
"""Seconds that a connection lasts at most, busy or not."""

HANDSHAKE_TIMEOUT = 10.0
"""Seconds for the TLS handshake."""

MAX_LINE = 4096
"""Octets of a line of an HTTP request."""

MAX_FIELDS = 64
"""Lines of the header of an HTTP request."""

BACKLOG = 16
"""Connections that may wait to be accepted."""

PAUSE = 1.0
"""Seconds until the next attempt to accept a connection when no descriptor is left."""

_log = log.get_logger("engine.scrape")


class CertificateError(RequiretlsMilterError):
    """The certificate of the metrics server cannot be used; the text names the key and why.

    The engine refuses this configuration, at its start or at a reload.
    """


def tls_context(metrics: Metrics) -> ssl.SSLContext | None:
    """Load the server's TLS settings from the files as they are now; None for HTTP in clear.

    Raises:
        CertificateError: a file cannot be read, is not what it should be, or
            the key is not that of the certificate.
    """
    if not metrics.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _readable("tls_certificate", metrics.tls_certificate)
    _readable("tls_key", metrics.tls_key)
    try:
        context.load_cert_chain(metrics.tls_certificate, metrics.tls_key, _no_passphrase)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise CertificateError(
            f"metrics.tls_certificate {metrics.tls_certificate} and metrics.tls_key "
            f"{metrics.tls_key} are no certificate with its key: {_why(error)}"
        ) from error
    if metrics.tls_client_ca:
        _readable("tls_client_ca", metrics.tls_client_ca)
        try:
            context.load_verify_locations(cafile=metrics.tls_client_ca)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise CertificateError(
                f"metrics.tls_client_ca: {metrics.tls_client_ca} holds no certificates: "
                f"{_why(error)}"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _readable(key: str, path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise CertificateError(
            f"metrics.{key}: {path} cannot be read: {error.strerror or error}"
        ) from error


def _no_passphrase() -> str:
    """Refuse, instead of OpenSSL's question at a terminal that a service does not have."""
    raise ValueError("the key has a passphrase")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(error)


class MetricsServer:
    """Serves ``GET /metrics`` and ``GET /healthz``, and nothing else.

    Args:
        listen: ``metrics.listen``; port 0: one that the kernel chooses.
        read: copies all values, at once: it is called on the loop. They are rendered in a thread.
        counters: count clients that are turned away.
        max_connections: at once; for a further one the longest idle one is closed.
        tls: the settings for TLS; None for HTTP in clear. They may be replaced at
            any time: connections that begin later use the new ones.
    """

    def __init__(
        self,
        listen: Endpoint,
        read: Callable[[], Readings],
        counters: Counters | None = None,
        *,
        max_connections: int = 32,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._address = listen
        self._read = read
        # One thread: however many clients scrape, the interpreter is shared with one of them.
        self._renderer = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._counters = counters if counters is not None else Counters()
        self._max_connections = max_connections
        self._connections: BoundedMap[web.RequestHandler, asyncio.Task[None]] = BoundedMap()
        """The tasks that serve them; the one without a request for longest first."""
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
        self._server = _HttpServer(
            self._answer,
            access_log=None,
            keepalive_timeout=CONNECTION_LIFE / 2,
            lingering_time=0,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_FIELDS,
        )
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
        tasks = [task for _, task in self._connections.items()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._renderer.shutdown(wait=False, cancel_futures=True)
        if self._listener is not None:
            self._listener.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:  # out of descriptors, or the client has left
                _log.warning("metrics_not_accepted", error=str(error))
                await asyncio.sleep(PAUSE)
                continue
            if len(self._connections) >= self._max_connections:
                self._counters.inc("saturated_total", (Bound.METRICS_CONNECTIONS,))
                _, idle = self._connections.pop_oldest()
                idle.cancel()
            handler = self._server()
            task = asyncio.create_task(self._receive(connection, handler))
            self._connections.put(handler, task)
            # The task must begin before it may be cancelled: it closes the connection.
            await asyncio.sleep(0)

    async def _receive(self, connection: socket.socket, handler: web.RequestHandler) -> None:
        """Serve one connection, from its first octet to its last."""
        tls = self.tls
        transport: asyncio.Transport | None = None
        try:
            async with asyncio.timeout(CONNECTION_LIFE):
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
            self._connections.pop(handler)
            if transport is not None:
                transport.abort()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.protocol in self._connections:
            self._connections.touch(request.protocol)
        if request.path not in ("/metrics", "/healthz"):
            return web.Response(status=404, text="not found\n")
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, text="only GET\n", headers={"Allow": "GET, HEAD"})
        if request.path == "/healthz":
            return web.Response(text="ok\n")
        page = await asyncio.get_running_loop().run_in_executor(
            self._renderer, render, self._read(), request.headers.get("Accept", "")
        )
        if not page.is_whole:
            self._counters.inc("saturated_total", (Bound.DOMAIN_SERIES,))
        return web.Response(body=page.body, headers={"Content-Type": page.media_type})


class _HttpServer(web.Server):
    """An HTTP server that tells when a connection has ended."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
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

    async def ended(self, handler: web.RequestHandler) -> None:
        """Wait until a connection has."""
        if (end := self._ends.get(handler)) is not None:
            await end.wait()
