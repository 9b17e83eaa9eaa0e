"""By the letter: which of several failures decides, and what is told of each."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from requiretls_milter.model import (
    DnsOutcome,
    DomainEvidence,
    Forecast,
    HopKind,
    HostEvidence,
    MtaProfile,
    MtaStsEvidence,
    MxEvidence,
    NextHop,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reading,
    Reply,
)
from tests.support.build import BAD, RFC8689, certificate, clear, domain, forecast, host, probe

GOOD = certificate().tlsa()
EVERY_MX = replace(RFC8689, reading=Reading(every_mx=True))
SERVER = "mx1.example.org[192.0.2.1]"


def broken(stage: ProbeStage, failure: ProbeFailure, error: str = "") -> ProbeEvidence:
    return replace(probe(), stage=stage, failure=failure, error=error, requiretls=None)


# ---------------------------------------------------------------- which failure decides

DELIVERS = host(GOOD)
NOT_SEEN = host(GOOD, seen=ProbeEvidence("192.0.2.1"))
FAILS_FOR_NOW = host(GOOD, seen=broken(ProbeStage.CONNECT, ProbeFailure.REFUSED))
LACKS_REQUIRETLS = host(GOOD, seen=probe(requiretls=False))
NOT_AUTHENTIC = host(BAD)
FROM_BEST_TO_WORST = (
    ("2.0.0", DELIVERS),
    ("unknown", NOT_SEEN),
    ("4.4.1", FAILS_FOR_NOW),
    ("5.7.30", LACKS_REQUIRETLS),
    ("5.7.10", NOT_AUTHENTIC),
)
PAIRS = list(itertools.combinations(FROM_BEST_TO_WORST, 2))


def at(number: int, seen: HostEvidence) -> HostEvidence:
    """The same at an MX host, name and address of its own."""
    name, address = f"mx{number}.example.org", f"192.0.2.{number}"
    return replace(
        seen,
        host=name,
        preference=number,
        addresses=replace(seen.addresses, addresses=(address,), canonical=name),
        tlsa=replace(seen.tlsa, base_domain="mx1.example.org"),
        probes=tuple(replace(item, address=address) for item in seen.probes),
    )


@pytest.mark.parametrize(("milder", "graver"), PAIRS, ids=lambda pair: pair[0])
@pytest.mark.parametrize("turned", [False, True])
def test_r12_of_two_servers_the_milder_failure_decides_in_either_order(
    milder: tuple[str, HostEvidence], graver: tuple[str, HostEvidence], turned: bool
) -> None:
    """Temporary before permanent, a missing REQUIRETLS before a missing authentication."""
    first, second = (graver, milder) if turned else (milder, graver)
    result = forecast(domain(at(1, first[1]), at(2, second[1])), RFC8689)
    assert (result.status, result.mx) == (milder[0], f"mx{1 + turned}.example.org")


@pytest.mark.parametrize(("milder", "graver"), PAIRS, ids=lambda pair: pair[0])
@pytest.mark.parametrize("turned", [False, True])
def test_choice_5_where_every_mx_must_satisfy_the_graver_failure_decides_in_either_order(
    milder: tuple[str, HostEvidence], graver: tuple[str, HostEvidence], turned: bool
) -> None:
    first, second = (graver, milder) if turned else (milder, graver)
    result = forecast(domain(at(1, first[1]), at(2, second[1])), EVERY_MX)
    assert (result.status, result.mx) == (graver[0], f"mx{2 - turned}.example.org")


@pytest.mark.parametrize("seen", [item for _, item in FROM_BEST_TO_WORST])
@pytest.mark.parametrize("profile", [RFC8689, EVERY_MX], ids=["one", "every"])
def test_of_two_servers_that_end_alike_the_better_preferred_is_told(
    seen: HostEvidence, profile: MtaProfile
) -> None:
    assert forecast(domain(at(1, seen), at(2, seen)), profile).mx == "mx1.example.org"


# ---------------------------------------------------------------- what is told


def with_policy_error(evidence: DomainEvidence) -> DomainEvidence:
    return replace(evidence, mta_sts=MtaStsEvidence(error="the policy host is silent"))


def without_servers(outcome: DnsOutcome, error: str = "") -> DomainEvidence:
    return DomainEvidence(NextHop(HopKind.MX, "example.org"), MxEvidence(outcome, error=error))


REFUSES_STARTTLS = replace(
    clear(), starttls_offered=True, starttls_reply=Reply(454, "4.7.0", "not today")
)


@pytest.mark.parametrize(
    ("evidence", "status", "reason", "words"),
    [
        (
            domain(host(), secure=False, sts=("mx9.example.org",)),
            "4.7.0",
            "mx_not_in_mta_sts_policy",
            ["mx1.example.org", "policy of example.org"],
        ),
        (
            with_policy_error(domain(host(), secure=False)),
            "4.7.0",
            "policy_lookup_failed",
            ["example.org", "the policy host is silent"],
        ),
        (
            domain(host(), secure=False),
            "5.7.10",
            "mx_lookup_insecure",
            ["records of example.org"],
        ),
        (
            domain(host(tlsa_outcome=DnsOutcome.ERROR)),
            "4.7.5",
            "policy_lookup_failed",
            ["TLSA", "mx1.example.org"],
        ),
        (
            domain(host(seen=REFUSES_STARTTLS)),
            "5.7.10",
            "starttls_refused",
            [SERVER, "454", "not today"],
        ),
        (domain(host(seen=clear())), "5.7.10", "starttls_not_offered", [SERVER, "STARTTLS"]),
        (
            domain(host(seen=broken(ProbeStage.HANDSHAKE, ProbeFailure.PROTOCOL, "bad mac"))),
            "5.7.10",
            "tls_handshake_failed",
            [SERVER, "bad mac"],
        ),
        (
            domain(host(seen=broken(ProbeStage.HANDSHAKE, ProbeFailure.CLOSED))),
            "5.7.10",
            "tls_handshake_failed",
            [SERVER, "closed"],
        ),
        (
            domain(host(seen=replace(probe(), tls_version="TLSv1.1"))),
            "5.7.10",
            "tls_handshake_failed",
            [SERVER, "TLSv1.1"],
        ),
        (
            domain(host(BAD)),
            "5.7.10",
            "certificate_not_verified",
            [SERVER, "no TLSA record matches"],
        ),
        (
            domain(host(BAD, seen=replace(probe(), chain_cut=True))),
            "unknown",
            "unknown",
            [SERVER, "more certificates", "no TLSA record matches"],
        ),
        (
            domain(host(GOOD, seen=probe(requiretls=False))),
            "5.7.30",
            "requiretls_not_offered",
            [SERVER, "REQUIRETLS"],
        ),
        (domain(host(GOOD)), "2.0.0", "ok", [SERVER, "REQUIRETLS"]),
    ],
)
def test_the_forecast_names_the_server_and_what_was_wrong_with_it(
    evidence: DomainEvidence, status: str, reason: str, words: list[str]
) -> None:
    result = forecast(evidence, RFC8689)
    assert (result.status, result.reason, result.mx) == (status, reason, "mx1.example.org")
    assert_told(result, words)


@pytest.mark.parametrize(
    ("evidence", "status", "reason", "words"),
    [
        (
            without_servers(DnsOutcome.ERROR, "SERVFAIL"),
            "4.4.3",
            "dns_failure",
            ["example.org", "SERVFAIL"],
        ),
        (without_servers(DnsOutcome.NXDOMAIN), "5.4.4", "no_such_domain", ["example.org"]),
        (
            replace(
                without_servers(DnsOutcome.FOUND), mx=MxEvidence(DnsOutcome.FOUND, null_mx=True)
            ),
            "5.1.0",
            "null_mx",
            ["example.org", "null MX"],
        ),
    ],
)
def test_without_a_server_to_try_the_forecast_names_the_domain_and_what_was_wrong_with_it(
    evidence: DomainEvidence, status: str, reason: str, words: list[str]
) -> None:
    result = forecast(evidence, RFC8689)
    assert (result.status, result.reason, result.mx) == (status, reason, "")
    assert_told(result, words)


def assert_told(result: Forecast, words: list[str]) -> None:
    """The text has all of the words, and no gap that was filled by nothing."""
    assert isinstance(result.text, str)
    assert all(word in result.text for word in words), result.text
    assert "None" not in result.text
