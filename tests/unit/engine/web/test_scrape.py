"""The server for Prometheus: what it shows, to whom, and how much anybody can make of it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from requiretls_milter.config import Metrics
from requiretls_milter.engine.web import scrape
from requiretls_milter.engine.web.certificate import tls_context
from requiretls_milter.engine.web.exposition import Readings
from requiretls_milter.engine.web.health import Health
from requiretls_milter.engine.web.page import Page, Rendering
from requiretls_milter.engine.web.scrape import MetricsServer
from requiretls_milter.engine.web.webpage import PROTECTED
from requiretls_milter.syntax.endpoint import Endpoint
from requiretls_milter.telemetry.counting import Counters, Gauges, Totals
from tests.support.authority import Authority, Issued
from tests.support.stores import saturated
from tests.support.waiting import until


class Web:
    def __init__(self, **options: Any) -> None:
        self.readings = Readings()
        self.reads = 0
        self.health = Health()
        self.unready: list[str] = []
        self.copies = 0
        self.render: Rendering = lambda: Page(b"<p>hello</p>", "text/html", headers=PROTECTED)
        self.counters = Counters()
        self.server = MetricsServer(
            Endpoint("127.0.0.1", 0),
            self._read,
            self.counters,
            health=lambda: self.health,
            unready=lambda: self.unready,
            pages={"/page": self._copy},
            **options,
        )

    def _copy(self) -> Rendering:
        self.copies += 1
        return self.render

    def _read(self) -> Readings:
        self.reads += 1
        return self.readings

    async def send(self, octets: bytes, wait: float = 5) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(octets)
        try:
            return await asyncio.wait_for(reader.read(), wait)
        finally:
            writer.close()

    async def get(self, path: str, *fields: str, method: str = "GET") -> bytes:
        host = f"Host: 127.0.0.1:{self.server.port}"
        lines = (f"{method} {path} HTTP/1.1", host, "Connection: close", *fields, "", "")
        return await self.send("\r\n".join(lines).encode())


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Web]:
    one = Web(**options)
    await one.server.open()
    try:
        yield one
    finally:
        await one.server.close()


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with serving() as one:
        yield one


async def test_metrics_are_shown_and_brought_up_to_date_first(web: Web) -> None:
    reply = await web.get("/metrics")
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"Content-Type: text/plain; version=" in head
    assert b"requiretls_milter_messages_total{" in body
    assert web.reads == 1


async def test_nothing_is_rendered_on_the_loop_that_serves_workers(web: Web) -> None:
    threads: list[int] = []
    may_end = threading.Event()

    def totals() -> Totals:
        threads.append(threading.get_ident())
        may_end.wait(10)
        return Totals()

    web.readings = Readings(totals)
    scrapes = [asyncio.create_task(web.get("/metrics")) for _ in range(3)]
    await until(lambda: threads)
    assert (await web.get("/healthz")).endswith(b"ok\n"), "the loop goes on meanwhile"
    assert not any(scrape.done() for scrape in scrapes)
    may_end.set()
    for reply in await asyncio.gather(*scrapes):
        assert b"requiretls_milter_messages_total{" in reply
    assert threading.get_ident() not in threads
    assert len(threads) <= 2, "those that come while a page is rendered share the next one"


async def test_series_that_find_no_room_are_counted(web: Web) -> None:
    names = [f"{number:05}{'x' * 58}.{'y' * 63}.{'y' * 63}.example" for number in range(5_000)]
    gauges = Gauges()
    for name in names:
        gauges.set("domain_ready", 1.0, (name,))
    web.readings = Readings(gauges=gauges, domains=names)
    assert len(await web.get("/metrics")) < 1_000_000
    assert saturated(web.counters) == {"domain_series": 1}


async def test_openmetrics_is_sent_if_the_request_accepts_it(web: Web) -> None:
    reply = await web.get("/metrics", "Accept: application/openmetrics-text; version=1.0.0")
    assert b"application/openmetrics-text" in reply
    assert reply.endswith(b"# EOF\n")


async def test_health_is_one_word(web: Web) -> None:
    assert (await web.get("/healthz")).endswith(b"\r\n\r\nok\n")


@pytest.mark.parametrize(
    ("serves", "problem", "text", "status"),
    [
        (True, "worker-1 is not ready", "degraded: worker-1 is not ready", b"200"),
        (False, "it stops", "failed: it stops", b"503"),
    ],
)
async def test_health_is_that_of_the_service(
    web: Web, serves: bool, problem: str, text: str, status: bytes
) -> None:
    web.health = Health(serves, (problem,))
    reply = await web.get("/healthz")
    assert reply.startswith(b"HTTP/1.1 " + status)
    assert reply.endswith(f"\r\n\r\n{text}\n".encode())


async def test_readiness_is_one_line_with_all_reasons(web: Web) -> None:
    reply = await web.get("/readyz")
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert reply.endswith(b"\r\n\r\nready\n")
    web.unready = ["worker-1 is not ready", "the resolver\r\nlies"]
    reply = await web.get("/readyz")
    assert reply.startswith(b"HTTP/1.1 503 ")
    assert reply.endswith(b"\r\n\r\nnot ready: worker-1 is not ready, the resolver\\r\\nlies\n")


async def test_a_page_is_shown_with_its_status_and_header_fields(web: Web) -> None:
    web.render = lambda: Page(b"<p>", "text/html", status=503, headers={"X-Some": "thing"})
    reply = await web.get("/page?x=1")
    assert reply.startswith(b"HTTP/1.1 503 ")
    assert b"Content-Type: text/html\r\n" in reply
    assert b"X-Some: thing\r\n" in reply
    assert reply.endswith(b"\r\n\r\n<p>")


async def test_a_page_is_not_for_the_browser_that_a_strangers_name_led_here(web: Web) -> None:
    for host, status in (("evil.example", b"421"), ("localhost:9894", b"200"), ("[::1]", b"200")):
        reply = await web.send(
            f"GET /page HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        )
        assert reply.startswith(b"HTTP/1.1 " + status)
    assert web.copies == 2
    probe = await web.send(b"GET /readyz HTTP/1.1\r\nHost: mx.example\r\nConnection: close\r\n\r\n")
    assert probe.startswith(b"HTTP/1.1 200 "), "a load balancer may say any name"


async def test_a_page_is_rendered_beside_the_loop_and_by_turns_with_the_metrics(web: Web) -> None:
    threads: list[int] = []
    may_end = threading.Event()

    def render() -> Page:
        threads.append(threading.get_ident())
        may_end.wait(10)
        return Page(b"done", "text/html")

    web.render = render
    asked = [asyncio.create_task(web.get("/page")) for _ in range(5)]
    await until(lambda: threads)
    scrape = asyncio.create_task(web.get("/metrics"))
    assert (await web.get("/readyz")).endswith(b"ready\n"), "the loop goes on meanwhile"
    assert not any(one.done() for one in [*asked, scrape])
    may_end.set()
    for reply in await asyncio.gather(*asked):
        assert reply.endswith(b"\r\n\r\ndone")
    assert b"requiretls_milter_messages_total{" in await scrape
    assert threading.get_ident() not in threads
    assert len(threads) <= 2, "those that come while a page is rendered share the next one"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/page", "/nothing"])
async def test_no_answer_but_the_metrics_is_kept_or_taken_for_something_else(
    web: Web, path: str
) -> None:
    head, _, _ = (await web.get(path)).partition(b"\r\n\r\n")
    for name, value in PROTECTED.items():
        assert f"\r\n{name}: {value}".encode() in head


async def test_the_header_of_the_metrics_is_as_it_always_was(web: Web) -> None:
    head, _, _ = (await web.get("/metrics")).partition(b"\r\n\r\n")
    names = [line.partition(b":")[0] for line in head.splitlines()[1:]]
    assert names == [b"Content-Type", b"Content-Length", b"Date", b"Server", b"Connection"]


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/page"])
async def test_a_head_is_the_same_without_a_body(web: Web, path: str) -> None:
    whole, _, body = (await web.get(path)).partition(b"\r\n\r\n")
    head, _, nothing = (await web.get(path, method="HEAD")).partition(b"\r\n\r\n")
    assert nothing == b""
    assert body
    length = b"Content-Length: "
    assert [line for line in head.splitlines() if line.startswith(length)] == [
        line for line in whole.splitlines() if line.startswith(length)
    ]


@pytest.mark.parametrize(
    "path", ["/", "/page/", "/metrics/", "/metrics2", "/../metrics", "/healthz/x"]
)
async def test_there_is_nothing_else(web: Web, path: str) -> None:
    assert (await web.get(path)).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/page"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_nothing_can_be_changed(web: Web, method: str, path: str) -> None:
    reply = await web.get(path, "Content-Length: 0", method=method)
    assert reply.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: GET, HEAD\r\n" in reply
    assert web.reads == web.copies == 0


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_no_body_is_waited_for(web: Web, method: str) -> None:
    """The answer comes, and the connection ends, though the body never does."""
    head = f"{method} /page HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 1000000\r\n\r\nx"
    reply = await web.send(head.encode())
    assert reply.startswith(b"HTTP/1.1 405 " if method == "POST" else b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "octets",
    [
        b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 10_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GARBAGE\r\n\r\n",
    ],
    ids=["path", "field", "TLS", "garbage"],
)
async def test_what_is_too_long_or_no_http_is_refused(web: Web, octets: bytes) -> None:
    reply = await web.send(octets)
    assert reply.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))


async def test_there_is_an_end_to_how_many_scrape() -> None:
    async with serving(max_connections=3) as web:
        idle = [await asyncio.open_connection("127.0.0.1", web.server.port) for _ in range(50)]
        refused = ("saturated_total", ("metrics_connections",), 47.0)
        await until(lambda: refused in web.counters.totals().counters)
        await until(lambda: web.server.connections == 3)
        for reader, _ in idle[:47]:
            assert await asyncio.wait_for(reader.read(), 5) == b""
        assert not any(reader.at_eof() for reader, _ in idle[47:])
        for _, writer in idle:
            writer.close()
        await until(lambda: not web.server.connections)
        assert (await web.get("/healthz")).endswith(b"ok\n")


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"GET /metr",
        b"GET /metrics HTTP/1.1\r\nX: ",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["silent", "path", "field", "answered"],
)
async def test_idle_connections_do_not_keep_the_scraper_out(beginning: bytes) -> None:
    async with serving(max_connections=4) as web:
        idle = [await asyncio.open_connection("127.0.0.1", web.server.port) for _ in range(4)]
        for _, writer in idle:
            writer.write(beginning)
        await until(lambda: web.server.connections == 4)
        for _ in range(10):
            assert b"requiretls_milter_messages_total{" in await web.get("/metrics")
        for _, writer in idle:
            writer.close()


async def test_clients_that_come_all_the_time_do_not_keep_the_scraper_out() -> None:
    async with serving(max_connections=8) as web:
        held: list[asyncio.StreamWriter] = []

        async def crowd() -> None:
            while True:
                _, writer = await asyncio.open_connection("127.0.0.1", web.server.port)
                held.append(writer)

        crowds = [asyncio.create_task(crowd()) for _ in range(4)]
        for _ in range(20):
            assert (await web.get("/healthz")).endswith(b"ok\n")
            assert web.server.connections <= 8
        for task in crowds:
            task.cancel()
        assert len(held) > 20
        for writer in held:
            writer.close()


async def test_of_several_connections_the_longest_without_a_request_is_closed() -> None:
    async with serving(max_connections=3) as web:
        clients = [await asyncio.open_connection("127.0.0.1", web.server.port) for _ in range(3)]
        await until(lambda: web.server.connections == 3)
        (scraper, asks), (silent, _), (later, _) = clients
        asks.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await scraper.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200 ")
        clients.append(await asyncio.open_connection("127.0.0.1", web.server.port))
        assert await asyncio.wait_for(silent.read(), 5) == b""
        asks.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await scraper.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200 ")
        assert not later.at_eof()
        for _, writer in clients:
            writer.close()


@pytest.mark.parametrize("drips", [False, True], ids=["silent", "a byte now and then"])
async def test_a_client_that_does_not_finish_its_request_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, drips: bool
) -> None:
    monkeypatch.setattr(scrape, "CONNECTION_LIFE", 0.3)
    async with serving() as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.server.port)
        started = time.monotonic()
        writer.write(b"GET /metrics HTTP/1.1\r\nX: ")
        while not reader.at_eof():
            if drips:
                writer.write(b"x")
            with contextlib.suppress(TimeoutError, ConnectionError):
                await asyncio.wait_for(reader.read(100), 0.02)
            assert time.monotonic() - started < 3
        writer.close()


async def test_a_connection_ends_after_a_while_however_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scrape, "CONNECTION_LIFE", 0.4)
    async with serving() as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.server.port)
        started = time.monotonic()
        answered = 0
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                if not await asyncio.wait_for(reader.read(1000), 5):
                    break
                answered += 1
                assert time.monotonic() - started < 3
                await asyncio.sleep(0.02)
        assert answered > 1
        writer.close()


async def test_a_port_that_is_taken_is_named(web: Web) -> None:
    second = MetricsServer(Endpoint("127.0.0.1", web.server.port), Readings)
    with pytest.raises(OSError, match=f"metrics.listen 127.0.0.1:{web.server.port}"):
        await second.open()
    await second.close()


async def test_an_ipv6_address_is_listened_at() -> None:
    server = MetricsServer(Endpoint("::1", 0), Readings, health=lambda: Health())
    await server.open()
    reader, writer = await asyncio.open_connection("::1", server.port)
    writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert (await reader.read()).endswith(b"ok\n")
    writer.close()
    await server.close()


# ---------------------------------------------------------------- more than anybody needs


@pytest.mark.parametrize(
    "octets",
    [
        b"GET /" + b"x" * (1 << 20) + b" HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 200_000 + b"\r\n",
    ],
    ids=["path", "field", "fields"],
)
async def test_a_mebibyte_of_request_is_cut_off(web: Web, octets: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", web.server.port)
    writer.write(octets)
    reply = b""
    with contextlib.suppress(ConnectionError):  # cut while we still send
        reply = await asyncio.wait_for(reader.read(), 5)
    assert reply == b"" or reply.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert web.reads == 0
    writer.close()
    await until_nobody_is_left(web)
    assert (await web.get("/healthz")).endswith(b"ok\n")


async def test_a_client_that_does_not_read_is_cut_off_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scrape, "CONNECTION_LIFE", 0.5)
    async with serving() as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.server.port, limit=1)
        started = time.monotonic()
        request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
        writer.write(request * 200)  # some ten megabytes of answers, more than sockets hold
        await until(lambda: web.reads > 0)
        assert web.server.connections == 1
        await until_nobody_is_left(web)
        assert time.monotonic() - started < 3
        assert web.reads < 200  # nothing is rendered that nobody takes
        del reader
        writer.close()


async def until_nobody_is_left(web: Web) -> None:
    await until(lambda: web.server.connections == 0)


def fail_at_first(monkeypatch: pytest.MonkeyPatch, error: OSError, times: int) -> None:
    """Let the loop fail that often before it accepts a connection."""
    loop = asyncio.get_running_loop()
    accept, failures = loop.sock_accept, iter([error] * times)

    async def failing(listener: Any) -> Any:
        for failure in failures:
            raise failure
        return await accept(listener)

    monkeypatch.setattr(loop, "sock_accept", failing)


async def test_without_descriptors_it_accepts_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scrape, "PAUSE", 0.05)
    async with serving() as web:
        fail_at_first(monkeypatch, OSError(24, "Too many open files"), 2)
        for _ in range(3):
            assert (await web.get("/healthz")).endswith(b"ok\n")


async def test_an_error_of_one_client_makes_no_other_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "PAUSE", 60.0)
    async with serving() as web:
        fail_at_first(monkeypatch, ConnectionAbortedError(103, "aborted"), 50)
        for _ in range(2):  # the first one is accepted by the call that was under way
            assert (await web.get("/healthz")).endswith(b"ok\n")


# ---------------------------------------------------------------- the engine's loop is not theirs


async def scrapes(web: Web, number: int, *fields: str) -> None:
    for _ in range(number):
        assert (await web.get("/metrics", *fields)).startswith(b"HTTP/1.1 200 ")


async def test_those_who_ask_at_the_same_time_share_a_rendering(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scrape, "RENDERINGS_PER_SECOND", 2)
    async with serving() as web:
        await scrapes(web, 1)
        await asyncio.gather(*(scrapes(web, 1) for _ in range(8)))
        assert web.reads == 2
        versions = [f"Accept: application/openmetrics-text; version={n}.0.0" for n in range(20)]
        await asyncio.gather(*(scrapes(web, 1, field) for field in versions))
        assert web.reads == 3, "there are two formats, whatever a client names"


async def test_what_is_shown_is_never_older_than_the_request(web: Web) -> None:
    for number in range(4):
        await scrapes(web, 1)
        assert web.reads == number + 1


async def test_however_often_it_is_asked_it_renders_a_few_times_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scrape, "RENDERINGS_PER_SECOND", 10)
    async with serving() as web:
        started = time.monotonic()
        await asyncio.gather(*(scrapes(web, 5) for _ in range(8)))
        assert web.reads <= 10 * (time.monotonic() - started) + 1


async def test_a_client_that_leaves_takes_the_rendering_from_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scrape, "RENDERINGS_PER_SECOND", 2)
    async with serving() as web:
        await scrapes(web, 1)
        _, leaver = await asyncio.open_connection("127.0.0.1", web.server.port)
        leaver.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: web.server.connections == 1)
        waiting = asyncio.create_task(scrapes(web, 1))
        await until(lambda: web.server.connections == 2)
        leaver.transport.abort()
        await waiting


@pytest.mark.parametrize("version", ["x", "1e9", "1.0.0.0", "-1", "9" * 1000, ""])
@pytest.mark.parametrize("kind", ["application/openmetrics-text", "text/plain"])
async def test_no_version_that_a_client_names_is_an_error_of_ours(
    web: Web, kind: str, version: str
) -> None:
    reply = await web.get("/metrics", f"Accept: {kind}; version={version}; escaping={version}")
    assert reply.startswith(b"HTTP/1.1 200 ")


async def test_requests_are_answered_at_a_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "REQUESTS_PER_SECOND", 50)
    async with serving() as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.server.port)
        started = time.monotonic()
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 21)
        for _ in range(21):
            await asyncio.wait_for(reader.readuntil(b"ok\n"), 5)
        assert time.monotonic() - started > 0.35
        writer.close()


async def test_requests_sent_ahead_of_their_answers_are_bounded(web: Web) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", web.server.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 10_000)
    answered = b""
    with contextlib.suppress(ConnectionError):
        answered = await asyncio.wait_for(reader.read(), 5)
    assert answered.count(b"HTTP/1.1 200 ") < 1_000
    writer.close()
    await until_nobody_is_left(web)
    assert (await web.get("/healthz")).endswith(b"ok\n")


async def another_host(web: Web) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection of a client with another address."""
    return await asyncio.open_connection("127.0.0.1", web.server.port, local_addr=("127.0.0.9", 0))


async def test_a_client_with_many_connections_makes_room_for_one_with_few() -> None:
    async with serving(max_connections=4) as web:
        scraper, asks = await asyncio.open_connection("127.0.0.1", web.server.port)
        await until(lambda: web.server.connections == 1)
        crowd = [await another_host(web) for _ in range(100)]
        asked = ("saturated_total", ("metrics_connections",), 97.0)
        await until(lambda: asked in web.counters.totals().counters)
        asks.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await scraper.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200 ")
        for _, writer in [(scraper, asks), *crowd]:
            writer.close()


# ---------------------------------------------------------------- TLS


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def configured(issued: Issued, **more: str) -> ssl.SSLContext | None:
    return tls_context(Metrics(tls_certificate=str(issued.path), tls_key=str(issued.path), **more))


def client_context(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.path))


async def fetch(web: Web, context: ssl.SSLContext) -> tuple[bytes, ssl.SSLObject]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", web.server.port, ssl=context, server_hostname="metrics.example.org"
    )
    try:
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return await asyncio.wait_for(reader.read(), 5), writer.get_extra_info("ssl_object")
    finally:
        writer.close()


async def test_metrics_are_served_over_tls_to_clients_that_verify_the_certificate(
    authority: Authority,
) -> None:
    async with serving(tls=configured(authority.issue("metrics.example.org"))) as web:
        reply, tls = await fetch(web, client_context(authority))
        assert reply.startswith(b"HTTP/1.1 200 ")
        assert b"requiretls_milter_messages_total{" in reply
        assert tls.version() == "TLSv1.3"


async def test_a_client_in_clear_learns_nothing_on_the_tls_port(authority: Authority) -> None:
    async with serving(tls=configured(authority.issue("metrics.example.org"))) as web:
        reply = b""
        with contextlib.suppress(ConnectionError):
            reply = await web.get("/metrics")
        assert b"HTTP" not in reply
        assert b"requiretls" not in reply
        assert web.reads == 0
        await until_nobody_is_left(web)


@pytest.mark.parametrize(
    ("version", "spoken"),
    [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)],
    ids=["1.1", "1.2"],
)
async def test_tls_is_at_least_1_2(
    authority: Authority, version: ssl.TLSVersion, spoken: bool
) -> None:
    context = client_context(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that is what is tried
        context.minimum_version = context.maximum_version = version
    async with serving(tls=configured(authority.issue("metrics.example.org"))) as web:
        assert web.server.tls is not None
        assert web.server.tls.minimum_version is ssl.TLSVersion.TLSv1_2
        if spoken:
            assert (await fetch(web, context))[1].version() == "TLSv1.2"
        else:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await fetch(web, context)
            assert web.reads == 0


async def test_with_a_client_ca_only_its_clients_are_answered(
    authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "Other CA")
    settings = configured(authority.issue("metrics.example.org"), tls_client_ca=str(authority.path))
    async with serving(tls=settings) as web:
        for stranger in (None, other.issue("prometheus.example.org")):
            context = client_context(authority)
            if stranger is not None:
                context.load_cert_chain(stranger.path)
            reply = b""
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                reply, _ = await fetch(web, context)
            assert reply == b""
        assert web.reads == 0
        ours = client_context(authority)
        ours.load_cert_chain(authority.issue("prometheus.example.org").path)
        assert (await fetch(web, ours))[0].startswith(b"HTTP/1.1 200 ")


async def test_a_handshake_that_never_ends_counts_as_a_connection_and_is_cut_off(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "HANDSHAKE_TIMEOUT", 0.5)
    settings = configured(authority.issue("metrics.example.org"))
    async with serving(tls=settings, max_connections=2) as web:
        silent = [await asyncio.open_connection("127.0.0.1", web.server.port) for _ in range(2)]
        await until(lambda: web.server.connections == 2)
        for _ in range(3):
            assert (await fetch(web, client_context(authority)))[0].startswith(b"HTTP/1.1 200 ")
            await until(lambda: web.server.connections < 2)  # the scraper's own has ended
        assert ("saturated_total", ("metrics_connections",), 1.0) in web.counters.totals().counters
        await until_nobody_is_left(web)
        assert (await fetch(web, client_context(authority)))[0].startswith(b"HTTP/1.1 200 ")
        for _, writer in silent:
            writer.close()


async def test_handshakes_begin_at_a_pace(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "HANDSHAKES_PER_SECOND", 20)
    async with serving(tls=configured(authority.issue("metrics.example.org"))) as web:
        started = time.monotonic()
        await asyncio.gather(*(fetch(web, client_context(authority)) for _ in range(11)))
        assert time.monotonic() - started > 0.45


async def test_many_handshakes_of_others_do_not_keep_the_scraper_out(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "HANDSHAKE_TIMEOUT", 60.0)
    settings = configured(authority.issue("metrics.example.org"))
    async with serving(tls=settings, max_connections=8) as web:
        held: list[asyncio.StreamWriter] = []

        async def crowd() -> None:
            while True:  # half-open: not one octet of a handshake
                held.append((await another_host(web))[1])

        crowds = [asyncio.create_task(crowd()) for _ in range(4)]
        for _ in range(3):
            reply, _ = await fetch(web, client_context(authority))
            assert reply.startswith(b"HTTP/1.1 200 ")
        for task in crowds:
            task.cancel()
        assert len(held) > 20
        for writer in held:
            writer.close()


@pytest.mark.parametrize("lines", [100, 10_000])
async def test_a_large_header_under_tls_is_refused(authority: Authority, lines: int) -> None:
    async with serving(tls=configured(authority.issue("metrics.example.org"))) as web:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            web.server.port,
            ssl=client_context(authority),
            server_hostname="metrics.example.org",
        )
        writer.write(b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * lines + b"\r\n")
        reply = b""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            reply = await asyncio.wait_for(reader.read(), 5)
        assert reply == b"" or reply.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
        assert web.reads == 0
        writer.close()
        await until_nobody_is_left(web)


async def test_a_client_cannot_renegotiate(authority: Authority) -> None:
    """openssl(1) renegotiates TLS 1.2 at a line R; what it sends afterwards is not answered."""
    async with serving(tls=configured(authority.issue("metrics.example.org"))) as web:
        assert web.server.tls is not None
        assert web.server.tls.options & ssl.OP_NO_RENEGOTIATION
        client = await asyncio.create_subprocess_exec(
            *("openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{web.server.port}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert client.stdin is not None
        assert client.stdout is not None
        await asyncio.wait_for(client.stdout.readuntil(b"Verify return code"), 10)
        client.stdin.write(b"R\n")
        said = await asyncio.wait_for(client.stdout.read(), 10)
        assert b"RENEGOTIATING" in said
        assert b"no renegotiation" in said
        await client.wait()
        await until_nobody_is_left(web)


async def test_a_new_certificate_is_for_connections_that_begin_then(authority: Authority) -> None:
    first, second = (authority.issue("metrics.example.org") for _ in range(2))
    async with serving(tls=configured(first)) as web:
        assert (await fetch(web, client_context(authority)))[1].getpeercert(True) == first.der
        web.server.tls = configured(second)
        assert (await fetch(web, client_context(authority)))[1].getpeercert(True) == second.der
