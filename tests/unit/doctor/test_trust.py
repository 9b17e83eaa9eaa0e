"""What ``doctor`` says of certification authorities and resolvers."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from requiretls_milter.config import Config
from requiretls_milter.doctor import trust
from requiretls_milter.doctor.finding import Finding, Severity
from requiretls_milter.doctor.trust import MtaAuthorities
from requiretls_milter.evidence.dns import Resolver
from requiretls_milter.mirror.section import mirror
from requiretls_milter.syntax.endpoint import DNS_PORT, Nameserver
from tests.support.dnsserver import DnsServer, bogus, failure, found
from tests.support.postfixes import postfix, service
from tests.support.threaded import held_open


def configured(**sections: dict[str, Any]) -> Config:
    return Config.model_validate(sections)


# ---------------------------------------------------------------- certification authorities


BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


def severities(findings: Iterator[Finding]) -> list[Severity]:
    return [finding.severity for finding in findings]


def test_a_ca_file_that_is_not_postfixs_is_told(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.pem", tmp_path / "theirs.pem"
    ours.write_bytes(BUNDLE.read_bytes())
    config = configured(probe={"ca_file": str(ours)})
    made = postfix(smtp_tls_CAfile=str(theirs))
    assert severities(trust.authorities(config, MtaAuthorities.of_postfix(made, mirror(made)))) == [
        Severity.WARNING
    ]
    theirs.write_bytes(ours.read_bytes())
    assert severities(trust.authorities(config, MtaAuthorities.of_postfix(made, mirror(made)))) == [
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
    assert severities(trust.authorities(config, MtaAuthorities.of_postfix(made, mirror(made)))) == [
        severity
    ]
    assert severities(trust.authorities(config, None)) == [Severity.OK]


def test_a_ca_file_that_others_cannot_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(BUNDLE.read_bytes())
    path.chmod(stat.S_IRUSR)
    config = configured(probe={"ca_file": str(path)})
    findings = list(trust.authorities(config, None))
    assert [finding.severity for finding in findings] == [Severity.WARNING, Severity.OK]
    path.unlink()
    assert severities(trust.authorities(config, None)) == [Severity.ERROR]


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
    with held_open(server):
        yield server.address


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
        findings = list(trust.resolvers(named(address), None, None))
    assert [(one.check, one.severity) for one in findings] == [
        ("resolver_trusted", Severity.OK),
        ("resolver", severity),
    ]


def test_r20_each_server_is_tested_by_itself() -> None:
    with resolver() as good, resolver(secure=failure()) as blind:
        found = list(trust.resolvers(named(good, blind), None, None))
    findings = [one for one in found if one.check == "resolver"]
    assert [one.severity for one in findings] == [Severity.OK, Severity.WARNING]
    assert good in findings[0].found
    assert "nothing shows" in findings[1].found


def test_r20_a_resolver_on_an_untrusted_path_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(nameservers: Sequence[Nameserver], timeout: float) -> Resolver:
        """The resolver of a host whose resolv.conf names one on another trust."""
        resolver = Resolver([Nameserver("192.0.2.53", DNS_PORT)], timeout)
        resolver.path_trusted = False
        return resolver

    monkeypatch.setattr(trust, "Resolver", elsewhere)
    config = configured(dns={"timeout": 0.1})
    findings = list(trust.resolvers(config, None, None))
    assert (findings[0].check, findings[0].severity) == ("resolver_trusted", Severity.ERROR)


def mta_findings(root: Path, chroot: bool, level: str, address: str) -> list[Finding]:
    main = {"smtp_tls_security_level": level, "smtp_dns_support_level": "dnssec"}
    made = replace(postfix(service("smtp", chroot=chroot, main=main), **main), root=root)
    findings = trust.resolvers(named(address), made, mirror(made))
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
