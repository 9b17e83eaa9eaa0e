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
    MtaStsMode,
    NextHop,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reply,
    Requirement,
)
from requiretls_milter.report import (
    HostReport,
    NextHopReport,
    exit_status,
    report,
    starttls_word,
)
from requiretls_milter.report_text import to_text
from tests.unit.forecast.build import (
    BAD,
    DANE,
    NOW,
    certificate,
    clear,
    domain,
    host,
    probe,
    trust,
)

IPV6 = "2001:db8::1"


def reported(evidence: DomainEvidence, profile: MtaProfile = DANE) -> NextHopReport:
    return report(
        "example.org",
        evidence,
        requirement=Requirement.REQUIRETLS,
        profile=profile,
        trust=trust(),
        now=NOW,
    )


def host_of(evidence: HostEvidence, profile: MtaProfile = DANE) -> HostReport:
    return reported(domain(evidence), profile)["hosts"][0]


def with_addresses(evidence: HostEvidence, *probes: ProbeEvidence) -> HostEvidence:
    addresses = tuple(probe.address for probe in probes)
    return replace(
        evidence, addresses=replace(evidence.addresses, addresses=addresses), probes=probes
    )


@pytest.mark.parametrize(
    ("seen", "word"),
    [
        (ProbeEvidence("192.0.2.1"), "unknown"),
        (ProbeEvidence("192.0.2.1", ProbeStage.CONNECT, ProbeFailure.FORBIDDEN), "unknown"),
        (ProbeEvidence("192.0.2.1", ProbeStage.CONNECT, ProbeFailure.REFUSED), "unreachable"),
        (ProbeEvidence("192.0.2.1", ProbeStage.BANNER, ProbeFailure.TIMEOUT), "unreachable"),
        (ProbeEvidence("192.0.2.1", ProbeStage.EHLO, ProbeFailure.CLOSED), "unreachable"),
        (
            ProbeEvidence(
                "192.0.2.1", ProbeStage.DONE, starttls_offered=True, starttls_reply=Reply(454)
            ),
            "refused",
        ),
        (
            ProbeEvidence(
                "192.0.2.1", ProbeStage.STARTTLS, ProbeFailure.CLOSED, starttls_offered=True
            ),
            "failed",
        ),
        (
            ProbeEvidence(
                "192.0.2.1", ProbeStage.HANDSHAKE, ProbeFailure.PROTOCOL, starttls_offered=True
            ),
            "failed",
        ),
        (
            ProbeEvidence(
                "192.0.2.1", ProbeStage.EHLO_TLS, ProbeFailure.CLOSED, starttls_offered=True
            ),
            "offered",
        ),
        (clear(), "not_offered"),
        (probe(), "offered"),
    ],
)
def test_each_end_of_a_session_has_its_word_for_starttls(seen: ProbeEvidence, word: str) -> None:
    assert starttls_word(seen) == word


def test_a_server_verified_by_dane_and_one_by_a_trusted_authority() -> None:
    by_dane = host_of(host(certificate().tlsa()))
    assert by_dane["certificate"] == {"verified_by": "dane", "error": None}
    by_pkix = host_of(host())
    assert by_pkix["certificate"] == {"verified_by": "pkix", "error": None}
    assert by_pkix["tlsa"] == []


def test_a_certificate_that_does_not_verify_says_why() -> None:
    found = host_of(host(BAD))["certificate"]
    assert found["verified_by"] is None
    assert found["error"]


def test_nothing_is_said_of_a_certificate_that_was_not_seen() -> None:
    found = host_of(host(certificate().tlsa(), seen=clear()))
    assert found["certificate"] == {"verified_by": None, "error": None}
    assert found["requiretls"] is None
    assert found["tls_version"] is None


@pytest.mark.rule(34)
def test_r34_insecure_tlsa_records_are_not_shown() -> None:
    assert host_of(host(certificate().tlsa(), tlsa_secure=False))["tlsa"] == []


@pytest.mark.rule(21)
def test_r21_a_tlsa_lookup_that_failed_is_null_and_never_none() -> None:
    assert host_of(host(tlsa_outcome=DnsOutcome.ERROR))["tlsa"] is None


@pytest.mark.rule(36)
def test_r36_an_unusable_tlsa_record_is_marked() -> None:
    found = host_of(host(replace(BAD, matching_type=99)))
    assert found["tlsa"] == [f"3 1 99 {'00' * 32} (unusable)"]


def test_a_server_s_status_is_its_own_whatever_the_others_do() -> None:
    good = host(certificate().tlsa(), preference=20)
    lacking = host(
        certificate("mx2.example.org").tlsa(),
        name="mx2.example.org",
        seen=probe("192.0.2.2", certificate("mx2.example.org"), requiretls=False),
    )
    found = reported(domain(lacking, good))
    assert [(item["status"], item["reason"]) for item in found["hosts"]] == [
        ("5.7.30", "requiretls_not_offered"),
        ("2.0.0", "ok"),
    ]
    assert found["forecast"]["status"] == "2.0.0"


def test_ok_is_said_of_no_server_that_makes_a_noncompliant_delivery() -> None:
    found = reported(domain(host(certificate().tlsa()), secure=False))
    assert found["forecast"]["compliant"] is False
    assert found["hosts"][0]["status"] == "2.0.0"
    assert found["hosts"][0]["reason"] == "noncompliant_mx_insecure"
    assert found["hosts"][0]["addresses"][0]["reason"] == "noncompliant_mx_insecure"


def test_a_host_with_several_addresses_is_as_bad_as_its_worst() -> None:
    found = host_of(
        with_addresses(
            host(certificate().tlsa()),
            probe("192.0.2.1"),
            probe("192.0.2.2", requiretls=False),
        )
    )
    assert [item["status"] for item in found["addresses"]] == ["2.0.0", "5.7.30"]
    assert found["requiretls"] in (True, False)
    assert found["status"] == next(
        item["status"] for item in found["addresses"] if item["requiretls"] == found["requiretls"]
    )


def test_an_address_that_was_not_looked_at_is_unknown_and_does_not_count() -> None:
    found = host_of(
        with_addresses(host(certificate().tlsa()), probe("192.0.2.1"), ProbeEvidence("192.0.2.2"))
    )
    assert [item["status"] for item in found["addresses"]] == ["2.0.0", "unknown"]
    assert found["addresses"][1]["starttls"] == "unknown"
    assert found["status"] == "2.0.0"


def test_an_address_of_a_family_that_the_mta_does_not_use_is_unknown() -> None:
    found = host_of(
        with_addresses(host(certificate().tlsa()), probe(IPV6), probe("192.0.2.1")),
        replace(DANE, inet_protocols=("ipv4",)),
    )
    assert [item["status"] for item in found["addresses"]] == ["unknown", "2.0.0"]
    assert found["status"] == "2.0.0"


@pytest.mark.parametrize(
    ("outcome", "status", "reason"),
    [
        (DnsOutcome.ERROR, "4.4.3", "dns_failure"),
        (DnsOutcome.NXDOMAIN, "5.4.4", "no_such_domain"),
    ],
)
def test_a_host_without_an_address_says_so(outcome: DnsOutcome, status: str, reason: str) -> None:
    found = host_of(replace(host(), addresses=AddressLookup(outcome), probes=()))
    assert (found["status"], found["reason"]) == (status, reason)
    assert found["starttls"] == "unknown"
    assert found["addresses"] == []


@pytest.mark.parametrize(
    ("mode", "patterns", "matches"),
    [
        (MtaStsMode.ENFORCE, ("*.example.org",), True),
        (MtaStsMode.ENFORCE, ("mx.example.net",), False),
        (MtaStsMode.TESTING, ("mx1.example.org",), True),
        (MtaStsMode.NONE, (), None),
    ],
)
def test_an_mta_sts_policy_is_shown_and_compared(
    mode: MtaStsMode, patterns: tuple[str, ...], matches: bool | None
) -> None:
    found = reported(domain(host(), sts=patterns, mode=mode))
    assert found["mta_sts"] == {
        "mode": mode.value,
        "mx": list(patterns),
        "max_age": 86400,
        "id": "1",
    }
    assert found["hosts"][0]["mta_sts_match"] is matches


def test_without_a_policy_there_is_nothing_to_match() -> None:
    found = reported(domain(host()))
    assert found["mta_sts"] is None
    assert found["hosts"][0]["mta_sts_match"] is None


def test_of_a_named_server_there_is_no_mx_lookup() -> None:
    evidence = replace(domain(host()), nexthop=NextHop(HopKind.HOST, "mx1.example.org"))
    found = reported(evidence)
    assert found["mx_lookup_secure"] is None
    assert "no MX lookup" in to_text([found], width=100)


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        (["deliver"], 0),
        (["deliver", "defer"], 75),
        (["deliver", "unknown"], 75),
        (["bounce", "unknown", "deliver"], 1),
        (["defer", "bounce"], 1),
    ],
)
def test_the_exit_status_is_the_worst(outcomes: list[str], status: int) -> None:
    reports = []
    for outcome in outcomes:
        found = reported(domain(host()))
        found["forecast"]["outcome"] = outcome
        reports.append(found)
    assert exit_status(reports) == status


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_text_fits_any_terminal(width: int) -> None:
    found = reported(
        domain(
            host(certificate().tlsa()), host(BAD, name="mx2.example.org"), sts=("*.example.org",)
        )
    )
    lines = to_text([found, found], width=width).splitlines()
    assert all(len(line) <= width for line in lines)
