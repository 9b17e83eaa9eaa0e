"""Checks of this host: real sockets, real files, scripted servers."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from requiretls_milter.config import Config
from requiretls_milter.doctor import host
from requiretls_milter.doctor.attachment import attachments
from requiretls_milter.doctor.finding import Finding, Severity
from requiretls_milter.doctor.host import MtaAuthorities
from requiretls_milter.engine.web.certificate import tls_context
from requiretls_milter.engine.web.exposition import Readings
from requiretls_milter.engine.web.scrape import MetricsServer
from requiretls_milter.evidence.dns import Resolver
from requiretls_milter.mirror.section import mirror
from requiretls_milter.syntax.endpoint import DNS_PORT, Nameserver
from tests.support.authority import Authority
from tests.support.dnsserver import DnsServer, bogus, failure, found
from tests.support.postfixes import postfix, service


def configured(**sections: dict[str, Any]) -> Config:
    return Config.model_validate(sections)


# ---------------------------------------------------------------- the milter's socket


@contextmanager
def listening(path: Path, answer: bytes | None) -> Iterator[None]:
    """A listener that answers anything with *answer*; None: not at all."""
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(path))
        server.listen()
        done = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                if answer is None:
                    done.wait(10)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def at(path: Path) -> Config:
    return configured(milter={"socket": f"unix:{path}"})


def test_a_milter_that_negotiates_is_there(tmp_path: Path) -> None:
    with listening(tmp_path / "m", b"\0\0\0\x0dO\0\0\0\x06" + b"\0" * 8):
        assert host.milter_answers(at(tmp_path / "m")).severity is Severity.OK


def test_another_listener_on_the_socket_is_no_milter(tmp_path: Path) -> None:
    with listening(tmp_path / "m", b"220 hello\r\n"):
        assert "no milter" in host.milter_answers(at(tmp_path / "m")).found
    with listening(tmp_path / "n", b""):
        assert "no milter" in host.milter_answers(at(tmp_path / "n")).found


def test_a_milter_that_is_stuck_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "ANSWER_TIMEOUT", 0.1)
    with listening(tmp_path / "m", None):
        assert "does not answer" in host.milter_answers(at(tmp_path / "m")).found


def test_no_milter_is_an_error(tmp_path: Path) -> None:
    finding = host.milter_answers(at(tmp_path / "m"))
    assert (finding.severity, "No such file" in finding.found) == (Severity.ERROR, True)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    finding = host.milter_answers(configured(milter={"socket": f"inet:{port}@127.0.0.1"}))
    assert "refused" in finding.found


UID, GID, OTHER = 61125, 61126, 61127
"""Of the user postfix in the root below, of its group, of a group that it was put into."""


@pytest.fixture
def root() -> Iterator[Path]:
    """What a Postfix in a container sees as /, with the milter's socket in its queue directory.

    Not pytest's own directory: a unix socket's path has at most 107 bytes.
    """
    with tempfile.TemporaryDirectory(prefix="rtls-") as name:
        root = Path(name)
        (root / "etc").mkdir()
        (root / "etc/passwd").write_text(f"root:x:0:0::/:\npostfix:x:{UID}:{GID}::/:\nbad line\n")
        (root / "etc/group").write_text(f"postfix:x:{GID}:\nreqtls:x:{OTHER}:x,postfix\n")
        directory = root / "var/spool/postfix/requiretls-milter"
        directory.mkdir(parents=True)
        for inner in (directory, *directory.parents[:3]):
            inner.chmod(0o755)  # whatever the umask
        with closing(socket.socket(socket.AF_UNIX)) as server:
            server.bind(str(directory / "milter.sock"))
        yield root


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")
@pytest.mark.parametrize(
    ("owner", "group", "mode", "directory_mode", "closed"),
    [
        (0, GID, 0o660, 0o755, ""),
        (0, OTHER, 0o660, 0o755, ""),
        (UID, 0, 0o600, 0o755, ""),
        (0, 0, 0o666, 0o755, ""),
        (0, 0, 0o660, 0o755, "no write permission"),
        (0, GID, 0o640, 0o755, "no write permission"),
        (UID, GID, 0o060, 0o755, "no write permission"),  # the owner's bits count alone
        (0, GID, 0o660, 0o750, "no search permission"),
    ],
)
@pytest.mark.parametrize("chroot", [True, False])
def test_postfixs_user_has_to_reach_and_write_the_socket(
    root: Path,
    owner: int,
    group: int,
    mode: int,
    directory_mode: int,
    closed: str,
    chroot: bool,
) -> None:
    path = root / "var/spool/postfix/requiretls-milter/milter.sock"
    os.chown(path, owner, group)
    path.chmod(mode)
    path.parent.chmod(directory_mode)
    made = replace(postfix(service("smtpd", "smtp", "inet", chroot=chroot)), root=root)
    config = at(path)
    (finding,) = host.socket_permissions(config, made, list(attachments(config, made)))
    assert finding.severity is (Severity.ERROR if closed else Severity.OK)
    assert closed in finding.found


def test_without_a_mail_owner_nothing_is_claimed(root: Path) -> None:
    path = root / "var/spool/postfix/requiretls-milter/milter.sock"
    made = replace(postfix(mail_owner="nobody-here"), root=root)
    config = at(path)
    (finding,) = host.socket_permissions(config, made, list(attachments(config, made)))
    assert finding.severity is Severity.WARNING


# ---------------------------------------------------------------- the running service


@pytest.mark.parametrize(
    ("greeting", "severity"),
    [(b"220 mail ESMTP\r\n", Severity.OK), (b"421 no\r\n", Severity.ERROR)],
)
def test_the_mta_that_takes_mail_of_the_watch_has_to_greet(
    greeting: bytes, severity: Severity
) -> None:
    with server_that_says(greeting) as server:
        watch = {"mail_to": ["a@example.org"], "mail_server": server}
        (finding,) = host.watch(configured(watch=watch))
    assert (finding.check, finding.severity) == ("watch_mail", severity)


def test_what_tells_of_watched_domains_is_tried_before_anything_breaks() -> None:
    mail = {"mail_to": ["a@example.org"], "mail_server": "127.0.0.1:1"}
    (refused,) = host.watch(configured(watch=mail))
    assert (refused.check, refused.severity) == ("watch_mail", Severity.ERROR)
    (missing,) = host.watch(configured(watch={"notify": "/nonexistent/program"}))
    assert (missing.check, missing.severity) == ("watch_notify", Severity.ERROR)
    assert not list(host.watch(configured(watch={"notify": "/bin/true"})))
    assert not list(host.watch(configured()))


def test_a_postfix_that_does_not_run_is_told(tmp_path: Path) -> None:
    """Its master(8) holds a lock on a file that stays when it has ended."""
    installed = replace(postfix(), root=tmp_path)
    lock = installed.queue / "pid" / "master.pid"
    (missing,) = host.postfix_runs(installed)
    lock.parent.mkdir(parents=True)
    lock.write_text("1\n")
    (stopped,) = host.postfix_runs(installed)
    assert {missing.check, stopped.check} == {"postfix_stopped"}
    assert "does not run" in stopped.found
    with lock.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert list(host.postfix_runs(installed)) == []


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
            (found,) = host.service(configured(engine={"socket": str(path)}))
        finally:
            os.seteuid(0)
    assert "permission denied: only root and the user of the service may ask it" in found.found
    assert found.advice == "Run doctor as root."


def test_no_engine_is_an_error(tmp_path: Path) -> None:
    (finding,) = host.service(configured(engine={"socket": str(tmp_path / "e.sock")}))
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
        assert host.metrics(config).severity is Severity.OK


@pytest.mark.parametrize(("status", "body"), [(200, b"hello"), (404, b""), (200, b"\xff")])
def test_metrics_of_another_program_are_an_error(status: int, body: bytes) -> None:
    with web(status, body) as config:
        assert host.metrics(config).severity is Severity.ERROR


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
    assert host.metrics(config).severity is Severity.ERROR  # nothing listens there
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
        finding = host.metrics(config)
        assert finding.severity is Severity.OK
        assert ("client certificate" in finding.found) is with_clients
        file.write_bytes(renewed.path.read_bytes())
        finding = host.metrics(config)
        assert finding.severity is Severity.ERROR
        assert "is not that of" in finding.found
    finally:
        done.set()
        thread.join()


def test_metrics_that_are_not_there_are_an_error_switched_off_ones_are_none() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    finding = host.metrics(configured(metrics={"listen": f"127.0.0.1:{port}"}))
    assert finding.severity is Severity.ERROR
    assert host.metrics(configured(metrics={"listen": ""})).severity is Severity.OK


# ---------------------------------------------------------------- trust


BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


def severities(findings: Iterator[Finding]) -> list[Severity]:
    return [finding.severity for finding in findings]


def test_a_ca_file_that_is_not_postfixs_is_told(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.pem", tmp_path / "theirs.pem"
    ours.write_bytes(BUNDLE.read_bytes())
    config = configured(probe={"ca_file": str(ours)})
    made = postfix(smtp_tls_CAfile=str(theirs))
    assert severities(host.authorities(config, MtaAuthorities.of_postfix(made, mirror(made)))) == [
        Severity.WARNING
    ]
    theirs.write_bytes(ours.read_bytes())
    assert severities(host.authorities(config, MtaAuthorities.of_postfix(made, mirror(made)))) == [
        Severity.OK
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "severity"),
    [
        ("", "", Severity.OK),
        (str(BUNDLE), str(BUNDLE), Severity.OK),
        (str(BUNDLE), "", Severity.OK),
        ("", str(BUNDLE), Severity.OK),
        ("", "/etc/postfix/partners.pem", Severity.WARNING),
    ],
)
def test_the_systems_store_is_the_same_by_any_name(
    ours: str, theirs: str, severity: Severity
) -> None:
    made = postfix(smtp_tls_CAfile=theirs)
    config = configured(probe={"ca_file": ours})
    assert severities(host.authorities(config, MtaAuthorities.of_postfix(made, mirror(made)))) == [
        severity
    ]
    assert severities(host.authorities(config, None)) == [Severity.OK]


def test_a_ca_file_that_others_cannot_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(BUNDLE.read_bytes())
    path.chmod(stat.S_IRUSR)
    config = configured(probe={"ca_file": str(path)})
    findings = list(host.authorities(config, None))
    assert [finding.severity for finding in findings] == [Severity.WARNING, Severity.OK]
    path.unlink()
    assert severities(host.authorities(config, None)) == [Severity.ERROR]


@contextmanager
def resolver(**answers: Any) -> Iterator[str]:
    """A scripted resolver in a thread: answers by kind of name."""
    server = DnsServer()
    kinds = {
        "secure": found("signed.test. 60 IN A 192.0.2.1", ad=True),
        "bogus": bogus("bogus.test. 60 IN A 192.0.2.1"),
        "insecure": found("unsigned.test. 60 IN A 192.0.2.1", ad=False),
        **answers,
    }
    names = {"secure": "signed.test", "bogus": "bogus.test", "insecure": "unsigned.test"}
    for kind, answer in kinds.items():
        server.set(names[kind], "A", answer)
    up, loop = threading.Event(), asyncio.new_event_loop()
    done = asyncio.Event()

    async def serve() -> None:
        async with server:
            up.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert up.wait(10)
        yield server.address
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
        loop.close()


def named(*addresses: str) -> Config:
    return configured(
        dns={
            "nameservers": list(addresses),
            "timeout": 0.5,
            "selftest_secure": "signed.test",
            "selftest_bogus": "bogus.test",
            "selftest_insecure": "unsigned.test",
        }
    )


@pytest.mark.parametrize(
    ("answers", "severity"),
    [
        ({}, Severity.OK),
        ({"secure": found("signed.test. 60 IN A 192.0.2.1", ad=False)}, Severity.ERROR),
        ({"secure": failure()}, Severity.WARNING),
        ({"bogus": failure(), "insecure": failure()}, Severity.WARNING),
        ({"bogus": failure()}, Severity.OK),
        ({"insecure": failure()}, Severity.OK),
    ],
)
def test_r20_a_resolver_that_does_not_validate_is_an_error(
    answers: dict[str, Any], severity: Severity
) -> None:
    with resolver(**answers) as address:
        findings = list(host.resolvers(named(address), None, None))
    assert [(one.check, one.severity) for one in findings] == [
        ("resolver_trusted", Severity.OK),
        ("resolver", severity),
    ]


def test_r20_each_server_is_tested_by_itself() -> None:
    with resolver() as good, resolver(secure=failure()) as blind:
        found = list(host.resolvers(named(good, blind), None, None))
    findings = [one for one in found if one.check == "resolver"]
    assert [one.severity for one in findings] == [Severity.OK, Severity.WARNING]
    assert good in findings[0].found
    assert "nothing shows" in findings[1].found


def test_r20_a_resolver_on_an_untrusted_path_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(nameservers: Sequence[Nameserver], timeout: float) -> Resolver:
        """The resolver of a host whose resolv.conf names one on another host."""
        resolver = Resolver([Nameserver("192.0.2.53", DNS_PORT)], timeout)
        resolver.path_trusted = False
        return resolver

    monkeypatch.setattr(host, "Resolver", elsewhere)
    config = configured(dns={"timeout": 0.1})
    findings = list(host.resolvers(config, None, None))
    assert (findings[0].check, findings[0].severity) == ("resolver_trusted", Severity.ERROR)


def mta_findings(root: Path, chroot: bool, level: str, address: str) -> list[Finding]:
    main = {"smtp_tls_security_level": level, "smtp_dns_support_level": "dnssec"}
    made = replace(postfix(service("smtp", chroot=chroot, main=main), **main), root=root)
    findings = host.resolvers(named(address), made, mirror(made))
    return [finding for finding in findings if finding.check == "mta_resolver"]


@pytest.mark.parametrize("chroot", [True, False])
def test_a_resolver_of_postfixs_own_is_told_and_tested_where_dane_needs_it(
    root: Path, chroot: bool
) -> None:
    etc = root / "var/spool/postfix/etc" if chroot else root / "etc"
    etc.mkdir(exist_ok=True)
    with resolver() as address:
        (finding,) = mta_findings(root, chroot, "may", address)
        assert "names no resolver" in finding.found
        (etc / "resolv.conf").write_text("nameserver 127.0.0.77\n")
        (finding,) = mta_findings(root, chroot, "may", address)
        assert "127.0.0.77" in finding.found
        told, tested = mta_findings(root, chroot, "dane", address)
        assert told == finding
        assert "nothing shows that 127.0.0.77 validates" in tested.found  # nothing answers there


# ---------------------------------------------------------------- the world outside


@contextmanager
def server_that_says(greeting: bytes) -> Iterator[str]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(greeting)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_nothing_outside_is_tried_unasked() -> None:
    finding = host.outside("", Config())
    assert (finding.severity, "not tried" in finding.found) == (Severity.OK, True)


@pytest.mark.parametrize(
    ("greeting", "severity"),
    [
        (b"220 mx.example ESMTP\r\n", Severity.OK),
        (b"554 go away\r\n", Severity.ERROR),
        (b"", Severity.ERROR),
        (b"\xff\xfe", Severity.ERROR),
    ],
)
def test_a_server_outside_has_to_greet(greeting: bytes, severity: Severity) -> None:
    with server_that_says(greeting) as target:
        assert host.outside(target, Config()).severity is severity


@pytest.mark.parametrize("target", ["127.0.0.1:1", "a.invalid", "\udcff"])
def test_a_server_outside_that_cannot_be_reached_is_an_error(target: str) -> None:
    config = configured(probe={"connect_timeout": 2})
    assert host.outside(target, config).severity is Severity.ERROR
