"""Which servers a message comes to: limits, address families, the MTA itself, and none at all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    DomainEvidence,
    HopKind,
    HostEvidence,
    MtaProfile,
    MtaSts,
    MxEvidence,
    MxRecord,
    NextHop,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
)
from tests.support.build import DANE, RFC8689, certificate, domain, forecast, host, probe

GOOD = certificate().tlsa()
OWN = "192.0.2.25"
"""The address of the MTA itself, where it has one."""

PROFILES = pytest.mark.parametrize("profile", [DANE, RFC8689], ids=["postfix", "rfc8689"])


def server(
    name: str, preference: int, address: str = "192.0.2.1", *, up: bool = True
) -> HostEvidence:
    """A host with one address, where REQUIRETLS mail is taken if it is *up*."""
    seen = probe(address)
    if not up:
        seen = ProbeEvidence(address, ProbeStage.CONNECT, ProbeFailure.REFUSED)
    found = host(GOOD, name=f"{name}.example.org", preference=preference, seen=seen)
    return replace(found, tlsa=replace(found.tlsa, base_domain="mx1.example.org"))


def nameless(
    name: str,
    preference: int,
    outcome: DnsOutcome = DnsOutcome.NXDOMAIN,
    error: str = "",
) -> HostEvidence:
    """A host without an address."""
    return HostEvidence(f"{name}.example.org", preference, AddressLookup(outcome, error=error))


# ---------------------------------------------------------------- how many


def tried(families: str, limit: int, profile: MtaProfile) -> list[int]:
    """Of servers one better preferred than the next, those at which a message may arrive.

    A server is tried if the message gets through where it alone is up.
    """

    def of(number: int, family: str, up: bool) -> HostEvidence:
        address = f"192.0.2.{number}" if family == "4" else f"2001:db8::{number}"
        return server(f"mx{number}", number, address, up=up)

    arrives = []
    for wanted in range(len(families)):
        hosts = [of(number, family, number == wanted) for number, family in enumerate(families)]
        result = forecast(domain(*hosts), replace(profile, mx_address_limit=limit))
        if result.status == "2.0.0":
            arrives.append(wanted)
    return arrives


@PROFILES
@pytest.mark.parametrize(
    ("families", "limit", "expected"),
    [
        ("4444", 2, [0, 1]),
        ("4444", 4, [0, 1, 2, 3]),
        ("4444", 5, [0, 1, 2, 3]),
        ("4444", 0, [0, 1, 2, 3]),
        ("6666", 3, [0, 1, 2]),
        ("4466", 0, [0, 1, 2, 3]),
        ("4466", 4, [0, 1, 2, 3]),
        ("46", 1, [0]),
        ("64", 1, [0]),
    ],
)
def test_so_many_servers_are_tried_as_the_limit_allows_and_0_is_no_limit(
    profile: MtaProfile, families: str, limit: int, expected: list[int]
) -> None:
    assert tried(families, limit, profile) == expected


@PROFILES
@pytest.mark.parametrize(
    ("families", "limit", "expected"),
    [
        ("446", 2, [0, 2]),
        ("664", 2, [0, 2]),
        ("444446", 5, [0, 1, 2, 3, 5]),
        ("666664", 5, [0, 1, 2, 3, 5]),
        ("444466", 4, [0, 1, 4, 5]),
        ("666644", 4, [0, 1, 4, 5]),
        ("444666", 4, [0, 1, 3, 4]),
        ("44666", 4, [0, 1, 2, 3]),
        ("664444", 5, [0, 1, 2, 3, 4]),
        ("446666", 5, [0, 1, 2, 3, 4]),
    ],
)
def test_neither_address_family_crowds_the_other_out(
    profile: MtaProfile, families: str, limit: int, expected: list[int]
) -> None:
    assert tried(families, limit, profile) == expected


@PROFILES
@pytest.mark.parametrize(
    ("families", "limit", "expected"),
    [
        ("444666", 3, [0, 1, 3]),
        ("666444", 3, [0, 1, 3]),
        ("466644", 3, [0, 1, 4]),
        ("644466", 3, [0, 1, 4]),
        ("44446666", 5, [0, 1, 2, 4, 5]),
        ("66664444", 5, [0, 1, 2, 4, 5]),
    ],
)
def test_the_odd_server_is_of_the_family_of_the_first(
    profile: MtaProfile, families: str, limit: int, expected: list[int]
) -> None:
    assert tried(families, limit, profile) == expected


@PROFILES
def test_a_host_with_several_addresses_counts_for_each(profile: MtaProfile) -> None:
    addresses = ("192.0.2.1", "192.0.2.2")
    down = tuple(ProbeEvidence(a, ProbeStage.CONNECT, ProbeFailure.REFUSED) for a in addresses)
    first = server("mx1", 10)
    first = replace(first, addresses=replace(first.addresses, addresses=addresses), probes=down)
    evidence = domain(first, server("mx2", 20, "192.0.2.3"))
    assert forecast(evidence, replace(profile, mx_address_limit=2)).status == "4.4.1"
    assert forecast(evidence, replace(profile, mx_address_limit=3)).status == "2.0.0"


# ---------------------------------------------------------------- the MTA itself


def itself(profile: MtaProfile) -> MtaProfile:
    return replace(profile, my_addresses=(OWN,))


@PROFILES
@pytest.mark.parametrize(
    ("hosts", "status", "reason", "mx"),
    [
        ((server("mx1", 10), server("mx2", 20, OWN)), "2.0.0", "ok", "mx1.example.org"),
        (
            (server("mx1", 10, up=False), server("mx2", 20, OWN), server("mx3", 20, "192.0.2.3")),
            "4.4.1",
            "unreachable",
            "mx1.example.org",
        ),
        (
            (server("mx1", 10, up=False), server("mx2", 20, OWN), server("mx3", 30, "192.0.2.3")),
            "4.4.1",
            "unreachable",
            "mx1.example.org",
        ),
        (
            (
                server("mx1", 10, up=False),
                server("mx2", 20, "192.0.2.2"),
                server("mx3", 30, OWN),
                server("mx4", 40, OWN),
            ),
            "2.0.0",
            "ok",
            "mx2.example.org",
        ),
        ((server("mx1", 10, OWN), server("mx2", 20)), "5.4.6", "mail_loop", ""),
        ((server("mx1", 10, OWN), server("mx2", 10)), "5.4.6", "mail_loop", ""),
        ((nameless("mx1", 10), server("mx2", 20, OWN)), "4.4.4", "mail_loop", ""),
        (
            (nameless("mx1", 10), server("mx2", 20, OWN), server("mx3", 30, "192.0.2.3")),
            "4.4.4",
            "mail_loop",
            "",
        ),
    ],
)
def test_only_servers_better_preferred_than_the_mta_itself_are_tried(
    profile: MtaProfile, hosts: tuple[HostEvidence, ...], status: str, reason: str, mx: str
) -> None:
    """RFC 5321 section 5.1; whether the best one is the MTA, or only the best that is found."""
    result = forecast(domain(*hosts), itself(profile))
    assert (result.status, result.reason, result.mx) == (status, reason, mx)
    assert "example.org" in result.text
    assert "None" not in result.text


@PROFILES
@pytest.mark.parametrize(
    ("kind", "outcome"),
    [(HopKind.HOST, DnsOutcome.NODATA), (HopKind.MX, DnsOutcome.NODATA)],
    ids=["named", "implicit"],
)
def test_a_host_that_is_looked_up_without_mx_records_is_the_mta_itself_by_any_address(
    profile: MtaProfile, kind: HopKind, outcome: DnsOutcome
) -> None:
    both = server("mx1", 0)
    seen = (probe("192.0.2.1"), probe(OWN))
    lookup = replace(both.addresses, addresses=("192.0.2.1", OWN))
    evidence = DomainEvidence(
        NextHop(kind, "mx1.example.org"),
        MxEvidence(outcome, True),
        hosts=(replace(both, addresses=lookup, probes=seen),),
    )
    assert forecast(evidence, profile).status == "2.0.0"
    result = forecast(evidence, itself(profile))
    assert (result.status, result.reason) == ("5.4.6", "mail_loop")
    assert "mx1.example.org" in result.text


# ---------------------------------------------------------------- unseen


@PROFILES
def test_of_hosts_that_were_not_looked_at_the_first_is_named_and_how_many_there_are(
    profile: MtaProfile,
) -> None:
    evidence = domain(server("mx1", 10, up=False))
    further = (MxRecord(20, "mx2.example.org"), MxRecord(30, "mx3.example.org"))
    mx = replace(evidence.mx, records=evidence.mx.records + further)
    result = forecast(replace(evidence, mx=mx), profile)
    assert (result.status, result.mx) == ("unknown", "mx2.example.org")
    assert "1 of the 3 MX hosts of example.org" in result.text


@PROFILES
def test_a_host_with_more_addresses_than_are_looked_at_is_named(profile: MtaProfile) -> None:
    crowded = server("mx1", 10)
    crowded = replace(crowded, addresses=replace(crowded.addresses, partial=True))
    result = forecast(domain(crowded), profile)
    assert (result.status, result.mx) == ("unknown", "mx1.example.org")
    assert "mx1.example.org" in result.text


def test_even_the_best_preference_of_all_may_not_be_among_the_records_that_postfix_keeps() -> None:
    evidence = domain(server("mx1", 0))
    result = forecast(replace(evidence, mx=replace(evidence.mx, partial=True)))
    assert (result.status, result.mx) == ("unknown", "")
    assert "example.org" in result.text


def test_a_server_that_greets_as_the_mta_makes_a_loop_only_where_none_is_better_preferred() -> None:
    """A host without an address does not count as better, and one that is down does."""
    named = replace(DANE, myhostname="mta.example.net")
    loop = server("mx2", 20, "192.0.2.2")
    loop = replace(loop, probes=(replace(loop.probes[0], ehlo_name="mta.example.net"),))
    for alone in (domain(loop), domain(nameless("mx1", 10), loop)):
        assert forecast(alone, named).status == "5.4.6"
    assert forecast(domain(server("mx1", 20, up=False), loop), named).status == "5.4.6"
    assert forecast(domain(server("mx1", 10, up=False), loop), named).status == "4.4.6"


# ---------------------------------------------------------------- no server at all


@PROFILES
@pytest.mark.parametrize(
    ("hosts", "status", "reason", "words"),
    [
        ((nameless("mx1", 10),), "5.4.4", "no_such_domain", ["example.org"]),
        ((nameless("mx1", 10, DnsOutcome.NODATA),), "5.4.4", "no_such_domain", ["example.org"]),
        (
            (nameless("mx1", 10, DnsOutcome.ERROR, "SERVFAIL"),),
            "4.4.3",
            "dns_failure",
            ["example.org", "SERVFAIL"],
        ),
        (
            (nameless("mx1", 10, DnsOutcome.ERROR),),
            "4.4.3",
            "dns_failure",
            ["example.org", "no answer"],
        ),
        (
            (nameless("mx1", 10, DnsOutcome.ERROR, "SERVFAIL"), nameless("mx2", 20)),
            "4.4.4",
            "dns_failure",
            ["example.org", "SERVFAIL"],
        ),
        (
            (nameless("mx1", 10), nameless("mx2", 20, DnsOutcome.ERROR, "SERVFAIL")),
            "4.4.3",
            "dns_failure",
            ["example.org", "SERVFAIL"],
        ),
        ((), "5.4.4", "no_such_domain", ["example.org"]),
    ],
)
def test_where_no_host_has_an_address_the_last_lookup_decides_and_a_failed_one_is_named(
    profile: MtaProfile,
    hosts: tuple[HostEvidence, ...],
    status: str,
    reason: str,
    words: list[str],
) -> None:
    result = forecast(domain(*hosts), profile)
    assert (result.status, result.reason, result.mx) == (status, reason, "")
    assert all(word in result.text for word in words), result.text
    assert "None" not in result.text


@PROFILES
@pytest.mark.parametrize(
    ("mx", "status", "reason"),
    [
        (MxEvidence(DnsOutcome.ERROR, error="SERVFAIL"), "4.4.3", "dns_failure"),
        (MxEvidence(DnsOutcome.NXDOMAIN), "5.4.4", "no_such_domain"),
        (MxEvidence(DnsOutcome.FOUND, null_mx=True), "5.1.0", "null_mx"),
        (MxEvidence(DnsOutcome.FOUND, null_among=True), "5.1.0", "null_mx"),
    ],
)
def test_a_domain_that_takes_no_mail_is_named(
    profile: MtaProfile, mx: MxEvidence, status: str, reason: str
) -> None:
    evidence = DomainEvidence(NextHop(HopKind.MX, "example.org"), mx)
    result = forecast(evidence, profile)
    assert (result.status, result.reason) == (status, reason)
    assert "example.org" in result.text
    assert mx.error in result.text


def test_what_a_failed_lookup_leaves_recorded_is_told_where_no_server_is_tried() -> None:
    """Mail for a server that MTA-STS passes over has only the other host's lookup to tell of."""
    profile = replace(DANE, mta_sts=MtaSts.MX_PATTERNS)
    evidence = domain(nameless("mx1", 10), server("mx2", 20), sts=("mx1.example.org",))
    result = forecast(evidence, profile)
    assert (result.status, result.reason) == ("5.4.4", "no_such_domain")
    assert "mx1.example.org" in result.text
    assert "server of example.org" in result.text
