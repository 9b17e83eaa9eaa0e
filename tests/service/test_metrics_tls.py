"""The metrics endpoint over TLS, in a whole service: renewed at SIGHUP, and never made worse."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.service.conftest import QUIET
from tests.service.test_reload import reload
from tests.support.authority import Authority
from tests.support.service import Service

Make = Callable[..., Service]

NAME = "metrics.example.org"


def shown(service: Service, authority: Authority) -> bytes:
    """The certificate with which the endpoint answers, verified as Prometheus does it."""
    context = ssl.create_default_context(cafile=str(authority.path))
    with (
        socket.create_connection(("127.0.0.1", service.metrics_port), timeout=5) as connection,
        context.wrap_socket(connection, server_hostname=NAME) as tls,
    ):
        tls.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert tls.recv(1000).startswith(b"HTTP/1.0 200 ")
        certificate = tls.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


def configure(service: Service, certificate: Path, key: Path) -> None:
    text = service.config_path.read_text()
    files = f'tls_certificate = "{certificate}"\ntls_key = "{key}"\n'
    service.config_path.write_text(text.replace("[store]", f"{files}[store]", 1))


def test_a_renewed_certificate_is_taken_at_sighup_and_a_bad_one_is_not(
    make: Make, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    first, second, third = (authority.issue(NAME) for _ in range(3))
    file, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    file.write_bytes(first.path.read_bytes())
    key.write_bytes(first.path.read_bytes())
    service = make()
    service.configure(QUIET)
    configure(service, file, key)
    service.start()
    before = service.children
    assert shown(service, authority) == first.der

    file.write_bytes(second.path.read_bytes())
    key.write_bytes(second.path.read_bytes())
    assert shown(service, authority) == first.der  # not by itself
    reload(service)
    assert len(service.events("reloaded")) == 1
    assert shown(service, authority) == second.der

    file.write_bytes(third.path.read_bytes())  # and its key comes a moment later
    reload(service)
    (failed,) = service.events("reload_failed")
    assert "metrics.tls_key" in failed["error"]
    assert "no certificate with its key" in failed["error"]
    assert shown(service, authority) == second.der

    file.unlink()
    reload(service)
    (mistake,) = service.events("reload_mistake")
    assert "metrics.tls_certificate" in mistake["mistake"]
    assert "cannot be read" in mistake["mistake"]
    assert shown(service, authority) == second.der
    assert service.children == before


def test_a_key_of_another_certificate_is_told_before_anything_is_served(
    make: Make, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    one, other = authority.issue(NAME), authority.issue(NAME)
    service = make()
    configure(service, one.path, other.path)
    service.start(ready=False)
    assert service.wait() == 1
    (told,) = service.events("cannot_start")
    assert "metrics.tls_key" in told["error"]
    checked = subprocess.run(
        [sys.executable, "-m", "requiretls_milter", "config", "check", service.config_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 2
    assert "are no certificate with its key" in checked.stderr
