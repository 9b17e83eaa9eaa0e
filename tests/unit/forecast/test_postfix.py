"""Static entries of smtp_tls_policy_maps take the place of the transport's TLS level."""

from __future__ import annotations

from dataclasses import replace

import pytest

from requiretls_milter.forecast.profiles import tls_policy
from requiretls_milter.model import (
    DomainEvidence,
    HopKind,
    MailProtocol,
    MtaProfile,
    MtaSts,
    NextHop,
    Reason,
    Requirement,
    TlsLevel,
    TlsPolicy,
)
from tests.support.build import (
    BAD,
    certificate,
    clear,
    domain,
    forecast,
    host,
    probe,
)

NAMED = probe(presented=certificate("mx1.example.org"))


def profile(
    level: TlsLevel = TlsLevel.MAY, sts: MtaSts = MtaSts.OFF, **table: TlsPolicy
) -> MtaProfile:
    """One with the entries ``own`` (example.org), ``parent`` (.org) and ``other``."""
    names = {"own": "example.org", "parent": ".org", "other": ".example.net"}
    entries = tuple((names[key], policy) for key, policy in table.items())
    return MtaProfile(tls_security_level=level, mta_sts=sts, tls_policy=entries)


def token(evidence: DomainEvidence, by: MtaProfile, asked: Requirement = Requirement.NONE) -> str:
    result = forecast(evidence, by, asked)
    return f"{result.status} {result.tls}"


ENCRYPT, NONE = TlsPolicy(TlsLevel.ENCRYPT), TlsPolicy(TlsLevel.NONE)


def test_an_entry_takes_the_place_of_the_level() -> None:
    evidence = domain(host(seen=clear()))
    assert token(evidence, profile()) == "2.0.0 may:none"
    assert token(evidence, profile(own=ENCRYPT)) == "4.7.4 !encrypt"
    assert token(evidence, profile(parent=ENCRYPT)) == "4.7.4 !encrypt"
    assert token(evidence, profile(other=ENCRYPT)) == "2.0.0 may:none"
    assert token(evidence, profile(TlsLevel.SECURE, own=NONE)) == "2.0.0 none"


def test_the_domains_own_entry_comes_before_its_parents() -> None:
    evidence = domain(host(seen=clear()))
    assert token(evidence, profile(parent=ENCRYPT, own=NONE)) == "2.0.0 none"


def test_a_next_hop_with_brackets_or_a_port_is_sought_by_its_own_name_only() -> None:
    at_host = replace(domain(host(seen=clear())), nexthop=NextHop(HopKind.HOST, "example.org"))
    assert token(at_host, profile(own=ENCRYPT, parent=ENCRYPT)) == "2.0.0 may:none"
    exact = MtaProfile(tls_policy=(("[example.org]", ENCRYPT),))
    assert token(at_host, exact) == "4.7.4 !encrypt"
    at_port = replace(at_host, nexthop=NextHop(HopKind.MX, "example.org", 587))
    assert token(at_port, profile(own=ENCRYPT, parent=ENCRYPT)) == "2.0.0 may:none"
    exact = MtaProfile(tls_policy=(("example.org:587", ENCRYPT),))
    assert token(at_port, exact) == "4.7.4 !encrypt"


@pytest.mark.parametrize(
    "nexthop",
    [
        NextHop(HopKind.SRV, "example.org"),
        NextHop(HopKind.HOST, "example.org", 24, MailProtocol.LMTP, given="example.org"),
    ],
)
def test_a_name_alone_has_its_parents_entries_whatever_names_its_servers(nexthop: NextHop) -> None:
    table = dict(profile(parent=ENCRYPT).tls_policy)
    assert tls_policy(profile(parent=ENCRYPT), nexthop) == (table[".org"], False)
    assert tls_policy(profile(own=NONE, parent=ENCRYPT), nexthop) == (NONE, True)


def test_an_address_has_no_parents() -> None:
    by = MtaProfile(tls_policy=((".2.1", ENCRYPT),))
    assert tls_policy(by, NextHop(HopKind.ADDRESS, "192.0.2.1", given="192.0.2.1")) == (None, False)


def test_an_entry_may_ask_for_dane_where_the_transport_does_not() -> None:
    evidence = domain(host(BAD))
    assert token(evidence, profile()) == "2.0.0 may"
    dane = TlsPolicy(TlsLevel.DANE)
    assert token(evidence, profile(own=dane)) == "4.7.5 !dane"
    only = TlsPolicy(TlsLevel.DANE_ONLY)
    assert forecast(domain(host()), profile(own=only), Requirement.NONE).status == "4.7.5"


@pytest.mark.parametrize(
    ("match", "verified"),
    [
        ((), True),  # nexthop:dot-nexthop, and the certificate names mx1.example.org
        (("hostname",), True),
        (("dot-nexthop",), True),
        (("nexthop",), False),
        (("mx1.example.org",), True),
        ((".example.org",), True),
        (("mx2.example.org", "example.net"), False),
    ],
)
def test_match_names_what_the_certificate_must_have(match: tuple[str, ...], verified: bool) -> None:
    by = profile(own=TlsPolicy(TlsLevel.SECURE, match))
    expected = "2.0.0 secure" if verified else "4.7.5 !secure"
    assert token(domain(host(seen=NAMED)), by) == expected


def test_an_entry_for_the_name_comes_before_mta_sts_and_one_for_a_parent_after_it() -> None:
    evidence = domain(host(seen=NAMED), sts=("elsewhere.example",))
    assert token(evidence, profile(sts=MtaSts.MATCH)) == "4.7.5 !secure"
    assert token(evidence, profile(sts=MtaSts.MATCH, parent=ENCRYPT)) == "4.7.5 !secure"
    assert token(evidence, profile(sts=MtaSts.MATCH, own=ENCRYPT)) == "2.0.0 encrypt"
    passed_over = forecast(evidence, profile(sts=MtaSts.MX_PATTERNS), Requirement.NONE)
    assert passed_over.reason is Reason.MX_NOT_IN_MTA_STS_POLICY
    assert token(evidence, profile(sts=MtaSts.MX_PATTERNS, own=ENCRYPT)) == "2.0.0 encrypt"


def test_r13_tls_required_no_looks_into_no_table() -> None:
    evidence = domain(host(seen=clear()))
    by = profile(own=ENCRYPT)
    assert token(evidence, by, Requirement.TLS_REQUIRED_NO) == "2.0.0 may:none"


def test_an_entry_that_verifies_lets_requiretls_mail_through() -> None:
    evidence = domain(host(seen=NAMED))
    asked = Requirement.REQUIRETLS
    assert forecast(evidence, profile(), asked).status == "5.7.10"
    verify = profile(own=TlsPolicy(TlsLevel.VERIFY))
    result = forecast(evidence, verify, asked)
    assert (result.status, result.tls) == ("2.0.0", "verify/requiretls")
    assert result.compliant is True
