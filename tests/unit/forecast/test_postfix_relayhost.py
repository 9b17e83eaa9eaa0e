"""relayhost: what fails for good before any session is deferred (4.3.5)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from requiretls_milter.model import (
    DnsOutcome,
    DomainEvidence,
    HostEvidence,
    MtaProfile,
    MxEvidence,
    RequiretlsPolicy,
    TlsLevel,
)
from requiretls_milter.syntax.nexthop import parse
from tests.support.build import DANE, DOMAIN, answers, certificate, domain, forecast, host, probe

RELAYED = MtaProfile(
    relayhost="[relay.example]", requiretls_policy=(("*", RequiretlsPolicy.ENFORCE),)
)
"""At level may, which verifies nothing: 5.7.10 before any session."""


def at_hop(text: str, *hosts: HostEvidence) -> DomainEvidence:
    """What is known of a next hop in this notation, which needs no MX lookup."""
    return DomainEvidence(parse(text), MxEvidence(DnsOutcome.NODATA), hosts=hosts)


@pytest.mark.parametrize(
    ("nexthop", "relayhost", "status"),
    [
        ("[relay.example]", "[relay.example]", "4.3.5"),
        ("[relay.example]:25", "[relay.example]:25", "4.3.5"),
        ("192.0.2.25", "192.0.2.25", "4.3.5"),
        ("[relay.example]:25", "[relay.example]", "5.7.10"),
        ("[relay.example]", "[relay.example]:25", "5.7.10"),
        ("[relay.example]", "[relay.example], [other.example]", "5.7.10"),
        ("[other.example]", "[relay.example]", "5.7.10"),
        ("[relay.example]", "", "5.7.10"),
        ("lmtp:inet:[relay.example]", "[relay.example]", "5.7.10"),
    ],
)
def test_what_fails_for_good_at_relayhost_before_a_session_is_deferred(
    nexthop: str, relayhost: str, status: str
) -> None:
    result = forecast(
        at_hop(nexthop, host(name="relay.example")), replace(RELAYED, relayhost=relayhost)
    )
    assert result.status == status
    assert result.reason == "tls_level_does_not_verify"
    assert result.tls == "may?/!requiretls:nocertmatch"


@pytest.mark.parametrize(
    ("mx", "reason"),
    [
        (MxEvidence(DnsOutcome.NXDOMAIN), "no_such_domain"),
        (MxEvidence(DnsOutcome.FOUND, null_mx=True), "null_mx"),
    ],
)
def test_a_relayhost_that_is_not_to_be_found_defers(mx: MxEvidence, reason: str) -> None:
    evidence = DomainEvidence(parse("relay.example"), mx)
    assert answers(forecast(evidence, MtaProfile(relayhost="relay.example"))) == ("4.3.5", reason)


def test_what_fails_inside_a_session_at_relayhost_stays_as_it_is() -> None:
    silent = host(certificate().tlsa(), name="relay.example", seen=probe(requiretls=False))
    profile = replace(RELAYED, tls_security_level=TlsLevel.DANE)
    assert answers(forecast(at_hop("[relay.example]", silent), profile)) == (
        "5.7.30",
        "requiretls_not_offered",
    )


def test_the_last_server_decides_whether_it_was_a_session() -> None:
    """5.7.30 of the first server is not reported if the last one is never called."""
    silent = host(certificate().tlsa(), seen=probe(requiretls=False))
    unsigned = host(name="mx2.example.org", preference=20, seen=probe("192.0.2.2"))
    profile = replace(DANE, relayhost=DOMAIN)
    assert forecast(domain(silent, unsigned), profile).status == "4.3.5"
    unsigned, silent = replace(unsigned, preference=5), silent
    assert forecast(domain(unsigned, silent), profile).status == "5.7.30"
