"""In a bare Debian with its own Postfix, Unbound and Prometheus: the package and one step.

Then mail is tagged and counted, its delivery compared with the forecast, and an alert comes and
goes. ``PACKAGE_RELEASES=12,13`` does so in both releases, as ``make test-long`` does. With
``ALERTS=shipped`` the alert has to last as long as the rules say, and the milter notices by itself
what became of its resolver.
"""

from __future__ import annotations

import os
import re
import shutil
import smtplib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.lab import inside
from tests.lab.debian import Debian, Packages
from tests.lab.errors import LabUnavailable
from tests.lab.fixtures import unavailable
from tests.lab.lab import MYDOMAIN, Lab
from tests.lab.labconfig import SELFTEST_NAMES
from tests.support import addresses
from tests.support.prometheusserver import PrometheusApi
from tests.support.scenario import Scenario
from tests.support.waiting import PATIENCE, eventually

pytestmark = [
    pytest.mark.alone,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("PACKAGE_RELEASES" not in os.environ, reason="make test-long does so"),
]

RELEASES = os.environ.get("PACKAGE_RELEASES", "12").split(",")
SHIPPED = os.environ.get("ALERTS") == "shipped"

NAME = "requiretls-milter"
PARTNER = Scenario("debian-partner")
MONITORING = f"/usr/share/doc/{NAME}/monitoring"

UNBOUND = """
server:
    trust-anchor-file: /etc/unbound/lab.ds
    root-hints: /etc/unbound/lab.hints
    do-not-query-localhost: no
    do-ip6: no
    local-zone: "test." nodefault
"""
"""The root that is signed and served here in the place of the public one."""

HERE = f"""
[dns]
{"".join(f'{key} = "{name}"{chr(10)}' for key, name in SELFTEST_NAMES.items())}
[probe]
allow_networks = ["127.0.0.0/8"]
[rules.recipient."{PARTNER.domain_name(PARTNER.domains[0])}"]
require = true
"""
"""What a host without the public DNS, and with partners on loopback, has to say besides; and a rule
that asks for REQUIRETLS: these Postfixes refuse a client that does so by the parameter."""

SWITCHED_OFF = "/etc/unbound/unbound.conf.d/zz-no-validation.conf"
NOT_VALIDATING = (
    'ALERTS{alertname="RequiretlsMilterResolverNotValidating",alertstate="firing",'
    'severity="critical"}'
)

LONGEST = 900.0 if SHIPPED else PATIENCE
"""Seconds until the alert fires: 5 minutes until the next self-test, 5 that it has to last."""


class Host:
    """The Debian, and how long each step took, in seconds."""

    def __init__(self, debian: Debian, lab: Lab, package: str) -> None:
        self.debian = debian
        self.lab = lab
        self.package = package
        self.times: dict[str, float] = {}
        self.prometheus = PrometheusApi(9090)

    def timed(self, step: str, work: Callable[[], object]) -> None:
        began = time.monotonic()
        work()
        self.times[step] = time.monotonic() - began

    def say_to_unbound(self, name: str, text: str) -> None:
        self.debian.write({name: text})
        self.debian.run("systemctl", "restart", "unbound")


@pytest.fixture(scope="module", params=RELEASES)
def host(request: pytest.FixtureRequest, packages: Packages) -> Iterator[Host]:
    with ExitStack() as stack:
        try:
            package = packages.built(request.param)
            debian = stack.enter_context(packages.debian(request.param))
            shutil.copy(package, debian.root / "root")
            _before(debian, f"/root/{package.name}")
            lab = stack.enter_context(Lab([PARTNER], front=False))
            if not lab.isolated:
                raise LabUnavailable("it needs a network of its own")
            debian.boot()
        except LabUnavailable as reason:
            unavailable(reason)
        yield Host(debian, lab, f"/root/{package.name}")


def _before(debian: Debian, package: str) -> None:
    """A mail host with Postfix. What apt-get will want is fetched: there is no way out later."""
    debian.write({"etc/hostname": f"mail.{MYDOMAIN}\n"})
    debian.install("systemd-sysv", "postfix")
    debian.run("postconf", "-e", "inet_interfaces = loopback-only", f"myhostname = mail.{MYDOMAIN}")
    fetch = ("apt-get", "install", "-y", "-q", "--download-only")
    debian.run(*fetch, package)
    debian.run(*fetch, "--no-install-recommends", "prometheus")
    debian.write({"etc/resolv.conf": "nameserver 127.0.0.1\n"})


def _into_the_lab(host: Host) -> None:
    """Its Unbound begins at the lab's root, and it knows the lab's authority."""
    hints = f". 60 NS ns.lab.\nns.lab. 60 A {addresses.NAMESERVER}\n"
    host.debian.write(
        {
            "etc/unbound/lab.ds": f"{host.lab.dns.trust_anchor}\n",
            "etc/unbound/lab.hints": hints,
            "usr/local/share/ca-certificates/lab.crt": host.lab.ca_file.read_text(),
        }
    )
    host.debian.run("update-ca-certificates")
    host.say_to_unbound("etc/unbound/unbound.conf.d/root-auto-trust-anchor-file.conf", UNBOUND)
    config = f"etc/{NAME}/config.toml"
    host.debian.write({config: (host.debian.root / config).read_text() + HERE})


def _send(host: Host) -> None:
    with smtplib.SMTP("127.0.0.1", 25, timeout=PATIENCE) as client:
        client.sendmail(
            f"alice@{MYDOMAIN}",
            host.lab.recipients(PARTNER),
            "Subject: hello\r\n\r\nHello.\r\n",
        )


def _received(host: Host) -> str:
    return "".join(text for session in host.lab.sessions() for text in session.messages)


def test_the_package_and_one_step_and_mail_is_tagged(host: Host) -> None:
    host.timed("install", lambda: host.debian.install(host.package, recommended=True))
    _into_the_lab(host)
    shown: list[str] = []
    attach = f"/usr/share/{NAME}/attach-postfix"
    host.timed("step", lambda: shown.append(host.debian.run(attach)))
    assert "no errors" in shown[0]

    def message() -> None:
        _send(host)
        eventually(lambda: _received(host))

    host.timed("message", message)
    (tag,) = re.findall(r"^X-RequireTLS: (.*)", _received(host), re.MULTILINE)
    assert tag.startswith("requirement=requiretls; source=rule; forecast=2.0.0; ")


def test_the_step_can_be_repeated(host: Host) -> None:
    before = host.debian.run("postconf", "-n")
    host.debian.run(f"/usr/share/{NAME}/attach-postfix")
    assert host.debian.run("postconf", "-n") == before


def test_a_query_of_prometheus_returns_its_count(host: Host) -> None:
    host.timed("prometheus", lambda: host.debian.install("prometheus"))
    for file in ("recording.yml", "alerts.yml", "prometheus.yml"):
        host.debian.run("cp", f"{MONITORING}/{file}", "/etc/prometheus/")
    if not SHIPPED:
        quick = r"s/for: .*/for: 0s/; s/_\(interval\|timeout\): .*/_\1: 1s/"
        files = ("/etc/prometheus/alerts.yml", "/etc/prometheus/prometheus.yml")
        host.debian.run("sed", "-i", quick, *files)
    host.debian.run("promtool", "check", "config", "/etc/prometheus/prometheus.yml")
    counted = 'requiretls_milter_messages_total{requirement="requiretls",action="accept"} == 1'

    def scraped() -> None:
        host.debian.run("systemctl", "restart", "prometheus")
        eventually(host.prometheus.answers)
        host.prometheus.wait_for(counted, 60)

    host.timed("query", scraped)


def test_the_unit_of_audit_reads_the_journal_from_within_its_sandbox(host: Host) -> None:
    unit = f"{NAME}-audit"

    def follows() -> bool:
        return "event=audit_following" in host.debian.run("journalctl", "-o", "cat", "-u", unit)

    host.debian.run("systemctl", "start", unit)
    eventually(follows)
    _send(host)
    eventually(lambda: inside.EQUAL in host.debian.run("cat", str(inside.AUDIT_FILE)), wait=60)


def test_an_alert_fires_when_the_resolver_stops_validating_and_resolves_when_it_is_mended(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not host.prometheus.query(NOT_VALIDATING)
    host.say_to_unbound(SWITCHED_OFF, 'server:\n    module-config: "iterator"\n')
    _look_now(host)
    host.timed("fires", lambda: host.prometheus.wait_for(NOT_VALIDATING, LONGEST))

    host.debian.run("rm", SWITCHED_OFF)
    host.debian.run("systemctl", "restart", "unbound")
    _look_now(host)
    host.timed(
        "resolves",
        lambda: eventually(lambda: not host.prometheus.query(NOT_VALIDATING), wait=LONGEST),
    )
    with capsys.disabled():
        print({step: round(seconds, 1) for step, seconds in host.times.items()})


def _look_now(host: Host) -> None:
    """A milter that runs tests its resolver each five minutes, and each minute after a failure."""
    if not SHIPPED:
        host.debian.run("systemctl", "restart", NAME)
