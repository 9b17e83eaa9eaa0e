"""MTA-STS of smart hosts: which next hops have a policy depends on the policy service."""

from __future__ import annotations

import pytest

from requiretls_milter.model import (
    DnsOutcome,
    DomainEvidence,
    MtaProfile,
    MtaSts,
    MtaStsEvidence,
    MtaStsMode,
    MtaStsPolicy,
    MtaStsService,
    MxEvidence,
)
from requiretls_milter.syntax.nexthop import parse
from tests.support.build import certificate, forecast, host, probe

NAME = "relay.example"
POLICY = MtaStsEvidence(MtaStsPolicy(MtaStsMode.ENFORCE, (NAME,), 86400, "1"))
SEEN = host(name=NAME, seen=probe(presented=certificate(NAME)))


def status(nexthop: str, service: MtaStsService, way: MtaSts = MtaSts.MATCH) -> str:
    evidence = DomainEvidence(parse(nexthop), MxEvidence(DnsOutcome.NODATA), POLICY, hosts=(SEEN,))
    return forecast(evidence, MtaProfile(mta_sts=way, mta_sts_service=service)).status


@pytest.mark.parametrize("way", [MtaSts.MATCH, MtaSts.MX_PATTERNS])
@pytest.mark.parametrize("nexthop", [f"[{NAME}]", f"[{NAME}]:25", f"{NAME}:25", NAME])
def test_a_service_that_strips_brackets_and_port_has_a_policy_for_all(
    nexthop: str, way: MtaSts
) -> None:
    assert status(nexthop, MtaStsService.RESOLVER, way) == "2.0.0"


@pytest.mark.parametrize("way", [MtaSts.MATCH, MtaSts.MX_PATTERNS])
@pytest.mark.parametrize(
    ("nexthop", "expected"),
    [
        (NAME, "2.0.0"),
        (f"{NAME}:25", "5.7.10"),
        (f"[{NAME}]", "5.7.10"),
        (f"[{NAME}]:25", "5.7.10"),
    ],
)
def test_a_service_that_takes_bare_names_has_none_for_the_others(
    nexthop: str, expected: str, way: MtaSts
) -> None:
    assert status(nexthop, MtaStsService.TLSPOL, way) == expected
