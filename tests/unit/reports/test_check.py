"""What ``check`` reports on a next hop, from evidence alone."""

from __future__ import annotations

from typing import Any, cast

import pytest

from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    DomainEvidence,
    HopKind,
    HostEvidence,
    MtaProfile,
    MtaStsMode,
    MxEvidence,
    NextHop,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reply,
    Requirement,
)
from requiretls_milter.reports.carrying import Asking
from requiretls_milter.reports.check import (
    NextHopReport,
    exit_status,
    next_hop_report,
    starttls_word,
)
from requiretls_milter.reports.observation import Observation
from tests.support import build
from tests.support.asking import NEW_MTA, OLD_MTA, asks
from tests.support.build import clear, domain, host, probe, replace

DANE_RECORD = build.certificate().tlsa(3, 1, 1)


def reported(evidence: DomainEvidence, profile: MtaProfile = build.DANE) -> NextHopReport:
    return next_hop_report(
        "Example.ORG",
        Observation(evidence),
        asking=asks(),
        profile=profile,
        trust=build.trust(),
        now=build.NOW,
    )


def test_the_next_hop_stays_as_given() -> None:
    report = reported(domain(host(DANE_RECORD)))
    assert (report["nexthop"], report["requirement"]) == ("Example.ORG", "requiretls")


def test_the_forecast_stands_beside_that_of_rfc_8689() -> None:
    report = reported(domain(host(DANE_RECORD), secure=False))
    assert report["forecast"]["status"] == "2.0.0"
    assert report["forecast"]["compliant"] is False
    assert report["rfc8689"] == {"status": "5.7.10", "reason": "mx_lookup_insecure"}
    only = reported(domain(host(DANE_RECORD), secure=False), build.RFC8689)
    assert only["forecast"]["status"] == only["rfc8689"]["status"] == "5.7.10"


def test_a_time_is_rfc_3339_in_utc_and_no_end_is_null() -> None:
    evidence = domain(host(DANE_RECORD))
    assert reported(evidence)["forecast"]["valid_until"] is None
    seen = replace(probe(), expires=1_700_000_000.9)
    found = reported(domain(host(DANE_RECORD, seen=seen)))["forecast"]["valid_until"]
    assert found == "2023-11-14T22:13:20Z"


def test_without_an_mx_lookup_its_security_is_null() -> None:
    evidence = domain(host(DANE_RECORD))
    alone = replace(evidence, nexthop=NextHop(HopKind.HOST, "mx1.example.org"))
    assert reported(alone)["mx_lookup_secure"] is None
    assert reported(evidence)["mx_lookup_secure"] is True
    assert reported(domain(host(), secure=False))["mx_lookup_secure"] is False


@pytest.mark.parametrize(
    ("patterns", "mode", "match"),
    [
        (None, MtaStsMode.ENFORCE, None),
        (("mx1.example.org",), MtaStsMode.ENFORCE, True),
        (("*.example.net",), MtaStsMode.ENFORCE, False),
        (("*.example.org",), MtaStsMode.TESTING, True),
        (("*.example.org",), MtaStsMode.NONE, None),
    ],
)
def test_a_host_is_matched_against_the_mta_sts_policy(
    patterns: tuple[str, ...] | None, mode: MtaStsMode, match: bool | None
) -> None:
    report = reported(domain(host(), sts=patterns, mode=mode))
    (found,) = report["hosts"]
    assert found["mta_sts_match"] is match
    policy = report["mta_sts"]
    assert (policy and policy["mx"]) == (list(patterns) if patterns else None)


def test_tlsa_records_are_in_presentation_form_and_useless_ones_marked() -> None:
    useless = replace(DANE_RECORD, usage=0)
    (found,) = reported(domain(host(DANE_RECORD, useless)))["hosts"]
    digest = DANE_RECORD.data.hex()
    assert found["tlsa"] == [f"3 1 1 {digest}", f"0 1 1 {digest} (unusable)"]


def test_tlsa_records_that_are_not_secure_are_none_and_a_failed_lookup_is_null() -> None:
    (insecure,) = reported(domain(host(DANE_RECORD, tlsa_secure=False)))["hosts"]
    assert insecure["tlsa"] == []
    (failed,) = reported(domain(host(tlsa_outcome=DnsOutcome.ERROR)))["hosts"]
    assert failed["tlsa"] is None


@pytest.mark.parametrize(
    ("host_evidence", "by", "error"),
    [
        (host(DANE_RECORD), "dane", False),
        (host(), "pkix", False),
        (host(build.BAD), None, True),
        (host(seen=clear()), None, False),
    ],
)
def test_the_certificate_says_what_verified_it(
    host_evidence: HostEvidence, by: str | None, error: bool
) -> None:
    (found,) = reported(domain(host_evidence))["hosts"]
    assert found["certificate"]["verified_by"] == by
    assert bool(found["certificate"]["error"]) is error


def test_a_host_is_judged_as_if_it_were_the_only_one() -> None:
    good, bad = host(DANE_RECORD), host(name="mx2.example.org", preference=20, seen=clear())
    report = reported(domain(good, bad))
    assert [found["status"][0] for found in report["hosts"]] == ["2", "5"]
    assert report["forecast"]["status"] == "2.0.0"


def two_addresses(first: ProbeEvidence, second: ProbeEvidence) -> HostEvidence:
    both = AddressLookup(DnsOutcome.FOUND, True, (first.address, second.address))
    return replace(host(DANE_RECORD), addresses=both, probes=(first, second))


def test_a_host_has_the_values_of_the_address_that_decides() -> None:
    good, bad = probe("192.0.2.2"), probe("192.0.2.1", requiretls=False)
    (found,) = reported(domain(two_addresses(bad, good)))["hosts"]
    assert (found["status"], found["requiretls"]) == ("2.0.0", True)
    assert [one["status"] for one in found["addresses"]] == ["5.7.30", "2.0.0"]


def test_an_address_that_the_mta_never_tries_is_unknown_and_does_not_count() -> None:
    v4 = replace(build.DANE, inet_protocols=("ipv4",))
    evidence = domain(two_addresses(probe("2001:db8::1", requiretls=False), probe("192.0.2.2")))
    (found,) = reported(evidence, v4)["hosts"]
    assert [one["status"] for one in found["addresses"]] == ["unknown", "2.0.0"]
    assert found["status"] == "2.0.0"


def test_a_host_without_addresses_is_unknown_in_all_it_shows() -> None:
    nowhere = AddressLookup(DnsOutcome.NODATA, True, ())
    (found,) = reported(domain(replace(host(), addresses=nowhere, probes=())))["hosts"]
    assert (found["starttls"], found["tls_version"], found["addresses"]) == ("unknown", None, [])
    assert found["status"][0] in "45"


def test_a_domain_without_hosts_has_none() -> None:
    nothing = replace(domain(), mx=MxEvidence(DnsOutcome.NXDOMAIN, True, ()))
    assert reported(nothing)["hosts"] == []


@pytest.mark.parametrize(
    ("seen", "word"),
    [
        (probe(), "offered"),
        (clear(), "not_offered"),
        (replace(clear(), starttls_reply=Reply(454)), "refused"),
        (ProbeEvidence("192.0.2.1"), "unknown"),
        (ProbeEvidence("192.0.2.1", ProbeStage.CONNECT, ProbeFailure.REFUSED), "unreachable"),
        (ProbeEvidence("192.0.2.1", ProbeStage.BANNER, ProbeFailure.TIMEOUT), "unreachable"),
        (ProbeEvidence("192.0.2.1", ProbeStage.EHLO, ProbeFailure.CLOSED), "unreachable"),
        (ProbeEvidence("192.0.2.1", ProbeStage.CONNECT, ProbeFailure.FORBIDDEN), "unknown"),
        (ProbeEvidence("192.0.2.1", ProbeStage.EHLO, ProbeFailure.LIMIT), "unknown"),
        (ProbeEvidence("192.0.2.1", ProbeStage.STARTTLS, ProbeFailure.CLOSED), "failed"),
        (ProbeEvidence("192.0.2.1", ProbeStage.HANDSHAKE, ProbeFailure.PROTOCOL), "failed"),
        (
            ProbeEvidence("192.0.2.1", ProbeStage.EHLO_TLS, starttls_offered=True),
            "offered",
        ),
    ],
)
def test_starttls_is_one_word(seen: ProbeEvidence, word: str) -> None:
    assert starttls_word(seen) == word


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([], 0),
        (["deliver accept"], 0),
        (["deliver accept", "defer accept"], 75),
        (["deliver accept", "unknown accept"], 75),
        (["unknown accept", "bounce accept", "deliver accept"], 1),
        (["defer accept", "bounce accept"], 1),
        (["deliver accept", "deliver defer"], 75),
        (["deliver reject", "unknown accept"], 1),
        (["bounce defer"], 1),
    ],
)
def test_the_worst_outcome_is_the_exit_status(outcomes: list[str], status: int) -> None:
    reports = [
        cast(NextHopReport, {"forecast": {"outcome": outcome}, "rule": {"action": action}})
        for outcome, action in map(str.split, outcomes)
    ]
    assert exit_status(reports) == status


# ---------------------------------------------------------------- this host


def judged(asking: Asking) -> NextHopReport:
    """A domain whose server verifies, but does not offer REQUIRETLS."""
    return next_hop_report(
        "example.org",
        Observation(domain(host(DANE_RECORD, seen=probe(requiretls=False)))),
        asking=asking,
        profile=build.DANE,
        trust=build.trust(),
        now=build.NOW,
    )


def test_what_the_mta_carries_decides_over_the_forecast() -> None:
    new, old = judged(asks(NEW_MTA)), judged(asks(OLD_MTA))
    assert (new["forecast"]["status"], new["carried"]) == ("5.7.30", "requiretls")
    assert (new["carried_by"], new["mta"]) == ("service", "Postfix 3.11.7")
    assert (old["forecast"]["status"], old["carried"]) == ("2.0.0", "none")
    assert (old["carried_by"], old["mta"]) == ("postconf", "Postfix 3.7.11")
    assert old["forecast"]["reason"] == "noncompliant_not_offered"


def test_the_strict_verdict_is_the_same_whatever_the_mta_carries() -> None:
    strict = {"status": "5.7.30", "reason": "requiretls_not_offered"}
    assert judged(asks(NEW_MTA))["rfc8689"] == judged(asks(OLD_MTA))["rfc8689"] == strict


@pytest.mark.parametrize(
    ("rules", "action", "status"),
    [
        ({"mode": "monitor"}, "accept", 0),
        ({"mode": "reject"}, "reject", 1),
        ({"mode": "defer"}, "defer", 75),
        ({"mode": "reject", "on_noncompliant": "accept"}, "accept", 0),
    ],
)
def test_a_noncompliant_delivery_is_what_the_rule_makes_of_it(
    rules: dict[str, Any], action: str, status: int
) -> None:
    report = judged(asks(OLD_MTA, **rules))
    assert report["rule"]["action"] == action
    assert (report["rule"]["reply"] is None) == (action == "accept")
    assert exit_status([report]) == status


def test_no_mta_acts_on_what_a_rule_requires() -> None:
    report = judged(asks(NEW_MTA, mode="reject", require=True))
    assert (report["carried"], report["carried_by"]) == ("none", "rule")
    assert report["rule"]["reply"] == (
        "550 5.7.30 REQUIRETLS cannot be honoured for example.org: "
        "mx1.example.org does not offer REQUIRETLS; a rule of this system requires REQUIRETLS"
    )


def test_what_if_it_were_carried() -> None:
    report = judged(asks(OLD_MTA, Requirement.REQUIRETLS))
    assert (report["forecast"]["status"], report["carried_by"]) == ("5.7.30", "option")
