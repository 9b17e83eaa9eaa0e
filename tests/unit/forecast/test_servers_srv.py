"""Servers that SRV records name (use_srv_lookup of Postfix, RFC 2782)."""

from __future__ import annotations

from typing import Any

import pytest

from requiretls_milter.model import (
    DnsOutcome,
    DomainEvidence,
    HostEvidence,
    MxEvidence,
    MxRecord,
)
from requiretls_milter.syntax.nexthop import parse
from tests.support.build import answers, certificate, forecast, host, probe

SRV = parse("srv:example.org:submission")


def by_srv(*hosts: HostEvidence, **mx: Any) -> DomainEvidence:
    records = tuple(MxRecord(item.preference, item.host, 587) for item in hosts)
    found = MxEvidence(
        **{
            "outcome": DnsOutcome.FOUND,
            "secure": True,
            "records": records,
            "canonical": SRV.srv_name,
            **mx,
        }
    )
    return DomainEvidence(SRV, found, hosts=hosts)


def test_srv_records_are_judged_as_mx_records_are() -> None:
    good = host(certificate().tlsa())
    assert answers(forecast(by_srv(good))) == ("2.0.0", "ok")
    assert forecast(by_srv(good, secure=False)).tls == "halfdane/requiretls"


@pytest.mark.parametrize(
    ("mx", "expected"),
    [
        ({"outcome": DnsOutcome.NXDOMAIN}, ("5.4.4", "no_such_domain")),
        ({"outcome": DnsOutcome.NODATA}, ("5.4.4", "no_such_domain")),
        ({"outcome": DnsOutcome.ERROR}, ("4.4.3", "dns_failure")),
        ({"null_mx": True}, ("5.1.0", "null_mx")),
    ],
)
def test_without_srv_records_no_server_is_tried(
    mx: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert answers(forecast(by_srv(**{"records": (), **mx}))) == expected


def test_the_name_that_was_queried_counts_for_a_trust_anchor() -> None:
    """dane_init() adds the owner of the SRV records, not the domain."""
    named = certificate(SRV.srv_name)
    good = host(named.tlsa(2), seen=probe(presented=named))
    assert forecast(by_srv(good)).status == "2.0.0"
    domain_only = certificate("example.org")
    bad = host(domain_only.tlsa(2), seen=probe(presented=domain_only))
    assert forecast(by_srv(bad)).status == "5.7.10"
