"""MTA-STS of smart hosts (RFC 8461 section 3.4), with the real postfix-mta-sts-resolver."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.lab.errors import LabUnavailable
from tests.lab.fixtures import unavailable
from tests.lab.lab import Lab
from tests.lab.policyservice import LivePolicies, PolicyService
from tests.lab.stsresolver import StsResolver
from tests.lab.test_next_hops import Site, forecast
from tests.support.scenario import Domain, Mx, Scenario, Server, Sts

pytestmark = pytest.mark.lab

RESOLVER, TLSPOL = 8471, 8472
"""Ports of the services."""

_ASKS = {
    "smtp_tls_security_level": "may",
    "smtp_requiretls_policy": "enforce",
    "smtp_tls_enforce_sts_mx_patterns": "no",
}
PROFILES = {
    "smart-resolver": {
        **_ASKS,
        "smtp_tls_policy_maps": f"socketmap:inet:127.0.0.1:{RESOLVER}:postfix",
    },
    "smart-tlspol": {
        **_ASKS,
        "smtp_tls_policy_maps": f"socketmap:inet:127.0.0.1:{TLSPOL}:QUERY",
    },
}


def smart_host(name: str, patterns: str = "@DOM@", **server: str) -> Scenario:
    """A host that is its own policy domain."""
    return Scenario(
        f"smart-{name}",
        "may/enforce",
        (
            Domain(
                zone="uns",
                kind="implicit",
                sts=Sts(style="old", patterns=(patterns,)),
                mx=(Mx(zone="uns", tlsa=(), server=Server(**server)),),  # type: ignore[arg-type]
            ),
        ),
    )


GOOD = smart_host("good")
LACKING = smart_host("lacking", requiretls="none")
ELSEWHERE = smart_host("elsewhere", "mail.elsewhere.uns.test")
PLAIN = Scenario(
    "smart-plain",
    "may/enforce",
    (Domain(zone="uns", kind="implicit", mx=(Mx(zone="uns", tlsa=()),)),),
)

SENT = ("2.0.0", "secure/requiretls")
UNVERIFIED = ("5.7.10", "may?/!requiretls:nocertmatch")


@dataclass(frozen=True)
class Case:
    """A next hop (``@`` is the smart host) over a transport, and what it ends with."""

    profile: str
    nexthop: str
    ends: tuple[str, str]
    host: Scenario = GOOD


CASES = (
    Case("smart-resolver", "[@]", SENT),
    Case("smart-resolver", "[@]:25", SENT),
    Case("smart-resolver", "[@]:smtp", SENT),
    Case("smart-resolver", "@:25", SENT),
    Case("smart-resolver", "@", SENT),
    Case("smart-resolver", "[@]:25", ("5.7.30", "secure/!requiretls:none"), LACKING),
    Case("smart-resolver", "[@]", ("5.7.10", "!secure/!requiretls:nocertmatch"), ELSEWHERE),
    Case("smart-resolver", "[@]:25", UNVERIFIED, PLAIN),
    Case("smart-tlspol", "@", SENT),
    Case("smart-tlspol", "@:25", UNVERIFIED),
    Case("smart-tlspol", "[@]", UNVERIFIED),
    Case("smart-tlspol", "[@]:25", UNVERIFIED),
)


@pytest.fixture(scope="module")
def site(lab: Lab) -> Iterator[Site]:
    lab.add([GOOD, LACKING, ELSEWHERE, PLAIN])
    lab.add_transports(PROFILES)
    bare_names_only = LivePolicies("old", lab.ca_file)
    try:
        resolver = StsResolver(RESOLVER, lab.ca_file)
    except LabUnavailable as reason:
        unavailable(reason)
    with resolver, PolicyService(bare_names_only, TLSPOL):
        yield Site(lab, {})


def test_r54_the_smart_hosts_name_is_the_policy_domain_as_the_service_has_it(site: Site) -> None:
    ways = {}
    for number, case in enumerate(CASES):
        name = case.host.domain_name(case.host.domains[0])
        ways[f"smart{number}.hops.test"] = (case.profile, case.nexthop.replace("@", name))
    site.route(ways)
    config = site.config()

    def both(domain: str) -> tuple[object, object]:
        profile, nexthop = ways[domain]
        return forecast(config, nexthop, profile), site.ends(f"x@{domain}")

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(both, ways))
    names = [f"{case.profile} {case.nexthop} {case.host.id}" for case in CASES]
    ends = dict(zip(names, (case.ends for case in CASES), strict=True))
    assert dict(zip(names, (was for _, was in found), strict=True)) == ends
    assert dict(zip(names, (ours for ours, _ in found), strict=True)) == ends
