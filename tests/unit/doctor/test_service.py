"""What ``doctor`` says of the running service, its metrics and the watch."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from requiretls_milter.config import Config
from requiretls_milter.doctor import service
from requiretls_milter.doctor.finding import Severity
from requiretls_milter.engine.web.certificate import tls_context
from requiretls_milter.engine.web.exposition import Readings
from requiretls_milter.engine.web.scrape import MetricsServer
from tests.support.authority import Authority
from tests.unit.doctor.greeter import server_that_says


def configured(**sections: dict[str, Any]) -> Config:
    return Config.model_validate(sections)


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
def test_who_may_not_ask_the_service_is_told_who_may(tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents):
        directory.chmod(directory.stat().st_mode | 0o111)
    path = tmp_path / "engine.sock"
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(path))
        server.listen()
        path.chmod(0o600)
        os.seteuid(65534)
        try:
            (found,) = service.examine(configured(engine={"socket": str(path)}))
        finally:
            os.seteuid(0)
    assert "permission denied: only root and the user of the service may ask it" in found.found
    assert found.advice == "Run doctor as root."


def test_no_engine_is_an_error(tmp_path: Path) -> None:
    (finding,) = service.examine(configured(engine={"socket": str(tmp_path / "e.sock")}))
    assert finding.severity is Severity.ERROR


@contextmanager
def web(status: int, body: bytes) -> Iterator[Config]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        yield configured(metrics={"listen": f"127.0.0.1:{server.server_port}"})
        thread.join()


def test_metrics_that_are_ours_are_good() -> None:
    with web(200, b"requiretls_milter_build_info{} 1\n") as config:
        assert service.metrics(config).severity is Severity.OK


@pytest.mark.parametrize(("status", "body"), [(200, b"hello"), (404, b""), (200, b"\xff")])
def test_metrics_of_another_program_are_an_error(status: int, body: bytes) -> None:
    with web(status, body) as config:
        assert service.metrics(config).severity is Severity.ERROR


@pytest.mark.parametrize("with_clients", [False, True], ids=["anybody", "client certificates"])
def test_over_tls_the_certificate_must_be_that_of_the_file(
    tmp_path: Path, with_clients: bool
) -> None:
    authority = Authority(tmp_path)
    first, renewed = authority.issue("m.example"), authority.issue("m.example")
    file = tmp_path / "metrics.pem"
    file.write_bytes(first.path.read_bytes())
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    settings = {
        "listen": f"127.0.0.1:{port}",
        "tls_certificate": str(file),
        "tls_key": str(file),
        "tls_client_ca": str(authority.path) if with_clients else "",
    }
    config = configured(metrics=settings)
    assert service.metrics(config).severity is Severity.ERROR  # nothing listens there
    up, done = threading.Event(), threading.Event()

    async def serve() -> None:
        assert config.metrics.listen is not None
        server = MetricsServer(config.metrics.listen, Readings, tls=tls_context(config.metrics))
        await server.open()
        up.set()
        await asyncio.to_thread(done.wait)
        await server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert up.wait(10)
        finding = service.metrics(config)
        assert finding.severity is Severity.OK
        assert ("client certificate" in finding.found) is with_clients
        file.write_bytes(renewed.path.read_bytes())
        finding = service.metrics(config)
        assert finding.severity is Severity.ERROR
        assert "is not that of" in finding.found
    finally:
        done.set()
        thread.join()


def test_metrics_that_are_not_there_are_an_error_switched_off_ones_are_none() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    finding = service.metrics(configured(metrics={"listen": f"127.0.0.1:{port}"}))
    assert finding.severity is Severity.ERROR
    assert service.metrics(configured(metrics={"listen": ""})).severity is Severity.OK


# ---------------------------------------------------------------- the watch


@pytest.mark.parametrize(
    ("greeting", "severity"),
    [(b"220 mail ESMTP\r\n", Severity.OK), (b"421 no\r\n", Severity.ERROR)],
)
def test_the_mta_that_takes_mail_of_the_watch_has_to_greet(
    greeting: bytes, severity: Severity
) -> None:
    with server_that_says(greeting) as server:
        watch = {"mail_to": ["a@example.org"], "mail_server": server}
        (finding,) = service.watch(configured(watch=watch))
    assert (finding.check, finding.severity) == ("watch_mail", severity)


def test_what_tells_of_watched_domains_is_tried_before_anything_breaks() -> None:
    mail = {"mail_to": ["a@example.org"], "mail_server": "127.0.0.1:1"}
    (refused,) = service.watch(configured(watch=mail))
    assert (refused.check, refused.severity) == ("watch_mail", Severity.ERROR)
    (missing,) = service.watch(configured(watch={"notify": "/nonexistent/program"}))
    assert (missing.check, missing.severity) == ("watch_notify", Severity.ERROR)
    assert not list(service.watch(configured(watch={"notify": "/bin/true"})))
    assert not list(service.watch(configured()))
