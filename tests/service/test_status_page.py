"""The status page and the probes of a whole service, over HTTP and over TLS."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from requiretls_milter.engine.web.webpage import PROTECTED
from tests.support.authority import Authority
from tests.support.html import Node, parse
from tests.support.internet import Internet, loopback_internet
from tests.support.service import Service
from tests.support.waiting import eventually

Make = Callable[..., Service]

RULES = '[rules.recipient."lacking.test"]\nmode = "reject"\n[rules.recipient."good.test"]\n'

NAME = "metrics.example.org"


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with loopback_internet(tmp_path_factory.mktemp("world")) as one:
        yield one


def ask(
    service: Service, path: str, method: str = "GET", tls: ssl.SSLContext | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Status, header and body of an answer."""
    connection = (
        http.client.HTTPConnection("127.0.0.1", service.metrics_port, timeout=10)
        if tls is None
        else http.client.HTTPSConnection("127.0.0.1", service.metrics_port, timeout=10, context=tls)
    )
    try:
        connection.request(method, path)
        reply = connection.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read()
    finally:
        connection.close()


def page(service: Service) -> Node:
    status, headers, body = ask(service, "/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert PROTECTED.items() <= headers.items()
    return parse(body)


def readiness(service: Service) -> tuple[int, str]:
    status, _, body = ask(service, "/readyz")
    return status, body.decode().rstrip("\n")


def test_the_page_says_what_the_command_says(make: Make, internet: Internet) -> None:
    service = make(internet.config + RULES, workers=1).start()
    counts = ["1 not ready", "1 ready"]
    eventually(lambda: [one.text for one in page(service).all("span")] == counts)
    assert readiness(service) == (200, "ready")
    root = page(service)
    assert root.one("h1").text == "Well"
    told = {
        line[:14].strip(): line[15:].strip()
        for line in service.command("status").stdout.splitlines()[2:]
        if line[:1].isalpha()
    }
    shown = {row.one("th").text: row.one("td").text for row in root.one("table", "facts").all("tr")}
    for name in ("MTA", "Outbound", "Store", "Waits", "Limits met"):
        assert shown[name] == told[name]
    first, second = root.one("table", "domains").one("tbody").all("tr")
    assert first.text.startswith("lacking.testNOT READY5.7.30 requiretls_not_offered")
    assert second.text.startswith("good.testready2.0.0 ok")

    assert service.command("suspend").returncode == 0
    eventually(lambda: page(service).one("h1").text == "Degraded")
    assert page(service).one("li").text == "rules are suspended: nothing is enforced"
    assert not page(service).all("ul", "notes")
    assert service.command("resume").returncode == 0
    service.config_path.write_text(service.config_path.read_text() + "[nonsense]\n")
    eventually(lambda: "a restart would fail" in page(service).one("header").text)

    status, headers, body = ask(service, "/report")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert PROTECTED.items() <= headers.items()
    assert "1 of 2 next hops" in parse(body).text
    assert b"lacking.test" in body

    for path in ("/", "/report", "/readyz", "/healthz", "/metrics"):
        status, headers, body = ask(service, path, "HEAD")
        assert (status, body) == (200, b"")
        assert int(headers["Content-Length"]) > 0
        assert ask(service, path, "POST")[0] == 405
    assert ask(service, "/favicon.ico")[::2] == (404, b"not found\n")


def test_ready_is_only_a_whole_service_whose_resolver_validates(
    make: Make, internet: Internet
) -> None:
    lost = make().start()
    resolver = "not ready: the resolver was not seen to validate DNSSEC"
    assert readiness(lost) == (503, resolver)
    assert ask(lost, "/healthz")[::2] == (200, b"ok\n"), "the MTA has answers"
    service = make(internet.config, limits={"service.restarts.FIRST_BACKOFF": 1.0}).start()
    eventually(lambda: readiness(service) == (200, "ready"))
    service.kill("worker-1")
    eventually(lambda: readiness(service) == (503, "not ready: worker-1 is not ready"))
    eventually(lambda: readiness(service) == (200, "ready"))


def test_what_a_server_says_is_shown_and_is_no_markup(make: Make, internet: Internet) -> None:
    before = internet.lacking.starttls
    internet.lacking.starttls = b"454 4.7.0 <script>alert('1')</script>\x1b[2J\r\n"
    try:
        service = make(internet.config + RULES, workers=1).start()
        eventually(lambda: "alert('1')" in page(service).text)
    finally:
        internet.lacking.starttls = before
    root = page(service)
    assert "<script>alert('1')</script>" in root.one("table", "domains").text
    assert "script" not in root.tags()


def test_over_tls_only_clients_with_a_certificate_see_it(make: Make, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    other = Authority(tmp_path, "Other CA")
    ours = authority.issue(NAME)
    service = make()
    text = service.config_path.read_text()
    files = f'tls_certificate = "{ours.path}"\ntls_key = "{ours.path}"\n'
    files += f'tls_client_ca = "{authority.path}"\n'
    service.config_path.write_text(text.replace("[store]", f"{files}[store]", 1))
    service.start()

    def context(issuer: Authority | None) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(authority.path))
        made.check_hostname = False  # it is asked by its address
        if issuer is not None:
            made.load_cert_chain(issuer.issue("prometheus.example.org").path)
        return made

    for path in ("/", "/readyz", "/healthz", "/metrics"):
        for stranger in (None, other):
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
                ask(service, path, tls=context(stranger))
        status, _, body = ask(service, path, tls=context(authority))
        assert status == (503 if path == "/readyz" else 200)
        assert body
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(service, "/")
