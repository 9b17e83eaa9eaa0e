"""What vouched for a policy is remembered by what it is: a file's name vouches for nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.authority import Authority
from tests.support.command import PROGRAM
from tests.support.dnsserver import found, nodata
from tests.support.internet import Internet, loopback_internet
from tests.support.redisserver import RedisServer
from tests.support.service import Service
from tests.support.waiting import eventually

POLICY_HOST = f"127.0.44.{1 + int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0')[2:])}"
"""Where the policy host listens, on the port of HTTPS: one for each process of tests."""

POLICY = b"version: STSv1\nmode: enforce\nmx: mx.good.test\nmax_age: 31557600\n"

KEPT = "forecast=2.0.0; reason=ok"
"""The forecast while a policy vouches for the name of the server: the MX records are not signed."""

REFUSED = "reason=policy_lookup_failed"
"""The forecast if the policy host is not to be believed."""


class Publisher(BaseHTTPRequestHandler):
    """Answers with the policy, whatever is asked."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(POLICY)))
        self.end_headers()
        self.wfile.write(POLICY)

    def log_message(self, *_: object) -> None:
        """Say nothing: what the milter does is looked at."""


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with loopback_internet(tmp_path_factory.mktemp("world")) as one:
        one.dns.set("sts.test", "MX", found("sts.test. 300 IN MX 10 mx.good.test.", ad=False))
        record = found('_mta-sts.sts.test. 300 IN TXT "v=STSv1; id=1"')
        one.dns.set("_mta-sts.sts.test", "TXT", record)
        one.dns.set("mta-sts.sts.test", "A", found(f"mta-sts.sts.test. 300 IN A {POLICY_HOST}"))
        one.dns.set("mta-sts.sts.test", "AAAA", nodata())
        yield one


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    """The authority of a policy host that answers for as long as the module runs."""
    authority = Authority(tmp_path_factory.mktemp("publisher"), "Policy CA")
    context = authority.issue("mta-sts.sts.test").server_context()
    with ThreadingHTTPServer((POLICY_HOST, 443), Publisher) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield authority
        server.shutdown()
        thread.join(10)


class Trusting:
    """Services with one configuration, whose file of authorities changes under its name."""

    def __init__(
        self,
        make: Callable[..., Service],
        internet: Internet,
        publisher: Authority,
        path: Path,
        store: str,
    ) -> None:
        self._make = make
        self._servers = internet.ca_file.read_bytes()
        self._publisher = publisher.path.read_bytes()
        self._path = path
        self._store = store
        config = internet.config.replace('tls_security_level = "dane"', 'profile = "rfc8689"')
        self._config = config.replace(str(internet.ca_file), str(path))
        self.trust(publisher=True)

    def trust(self, *, publisher: bool) -> None:
        """Write the file, with or without the authority of the policy host."""
        self._path.write_bytes(self._servers + (self._publisher if publisher else b""))

    def start(self) -> Service:
        service = self._make(self._config, workers=1)
        text = service.config_path.read_text().replace('url = "memory:"', f'url = "{self._store}"')
        service.config_path.write_text(text)
        return service.start()


@pytest.fixture
def trusting(
    make: Callable[..., Service], internet: Internet, publisher: Authority, tmp_path: Path
) -> Callable[[str], Trusting]:
    """Makes services with a store of this URL."""
    return lambda store: Trusting(make, internet, publisher, tmp_path / "ca.pem", store)


def checked(service: Service) -> Any:
    """What ``check --refresh`` tells, of the running engine or by itself."""
    asked = ("sts.test", "--refresh", "--carried", "requiretls", "--format", "json")
    command = [*PROGRAM, "check", *asked]
    command += ["--config", str(service.config_path)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    (report,) = json.loads(done.stdout)
    return report


def reload(service: Service) -> None:
    before = len(service.events("reloaded"))
    service.send_signal(signal.SIGHUP)
    eventually(lambda: len(service.events("reloaded")) > before)


def assert_that_what_was_taken_off_vouches_for_nothing(trusting: Trusting) -> None:
    service = trusting.start()
    assert KEPT in service.send("<bob@sts.test>")[0]
    assert checked(service)["mta_sts"]["mode"] == "enforce"
    trusting.trust(publisher=False)
    report = checked(service)  # the engine that runs still trusts the others, and is not asked
    assert (report["mta_sts"], report["forecast"]["reason"]) == (None, "policy_lookup_failed")
    reload(service)
    assert REFUSED in service.send("<bob@sts.test>")[0]
    assert checked(service)["mta_sts"] is None
    assert service.stop() == 0
    again = trusting.start()
    assert REFUSED in again.send("<bob@sts.test>")[0]
    trusting.trust(publisher=True)
    reload(again)
    assert KEPT in again.send("<bob@sts.test>")[0]


def test_an_authority_that_was_taken_off_the_file_vouches_for_no_kept_policy(
    trusting: Callable[[str], Trusting], tmp_path: Path
) -> None:
    """After a reload, a restart and ``check --refresh``; put back, it vouches for it again."""
    assert_that_what_was_taken_off_vouches_for_nothing(trusting(f"sqlite://{tmp_path}/state.db"))


def test_nor_does_it_for_one_that_is_kept_for_a_fleet(
    trusting: Callable[[str], Trusting], redis: RedisServer
) -> None:
    assert_that_what_was_taken_off_vouches_for_nothing(trusting(redis.url))


def test_milters_of_a_fleet_with_one_path_and_different_files_share_no_policy(
    trusting: Callable[[str], Trusting], redis: RedisServer
) -> None:
    fleet = trusting(redis.url)
    one = fleet.start()
    assert KEPT in one.send("<bob@sts.test>")[0]
    fleet.trust(publisher=False)
    other = fleet.start()
    assert REFUSED in other.send("<bob@sts.test>")[0]
    assert KEPT in one.send("<bob@sts.test>")[0], "its own authorities are those that it read"


def test_another_store_of_the_system_vouches_for_nothing_either(
    make: Callable[..., Service],
    internet: Internet,
    publisher: Authority,
    tmp_path: Path,
) -> None:
    """Without ``probe.ca_file``; OpenSSL is told of another system."""
    certs = tmp_path / "certs"
    certs.mkdir()
    (certs / "00000000.0").write_bytes(internet.ca_file.read_bytes())
    (certs / "00000001.0").write_bytes(publisher.path.read_bytes())
    config = internet.config.replace('tls_security_level = "dane"', 'profile = "rfc8689"')
    config = config.replace(f'ca_file = "{internet.ca_file}"', "")
    system = {"SSL_CERT_FILE": "/nonexistent", "SSL_CERT_DIR": str(certs)}
    service = make(config, workers=1, environ=system)
    text = service.config_path.read_text()
    url = f'url = "sqlite://{tmp_path}/state.db"'
    service.config_path.write_text(text.replace('url = "memory:"', url))
    service.start()
    assert KEPT in service.send("<bob@sts.test>")[0]
    (certs / "00000001.0").unlink()
    reload(service)
    assert REFUSED in service.send("<bob@sts.test>")[0]
