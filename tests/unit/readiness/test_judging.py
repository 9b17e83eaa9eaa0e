"""What is told of one next hop: its state, its policy, and the steps that it still lacks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from requiretls_milter.model import (
    DnsOutcome,
    DomainEvidence,
    MtaProfile,
    MtaStsEvidence,
    MtaStsMode,
    MxEvidence,
    Reason,
    Requirement,
    TlsaRecord,
    TlsLevel,
    unknown_forecast,
)
from requiretls_milter.readiness.judging import destination, policy_of
from requiretls_milter.readiness.values import HopReadiness, HopState, Policy, Step
from tests.support import build
from tests.support.build import DANE, certificate, clear, domain, host, probe

TLSA = certificate().tlsa()
MAY = MtaProfile(tls_security_level=TlsLevel.MAY)


def judged(
    evidence: DomainEvidence,
    profile: MtaProfile = DANE,
    carried: Requirement = Requirement.REQUIRETLS,
) -> HopReadiness:
    return destination(
        "example.org",
        7,
        evidence,
        build.forecast(evidence, profile, carried=carried),
        profile=profile,
        trust=build.trust(),
        now=build.NOW,
    )


def test_a_next_hop_that_has_all_is_ready_and_lacks_nothing() -> None:
    one = judged(domain(host(TLSA)))
    assert (one.state, one.status, one.reason) == (HopState.READY, "2.0.0", Reason.OK)
    assert one.missing == ()
    assert (one.policy, one.level, one.tls_version) == (Policy.DANE, "dane", "TLSv1.3")
    assert (one.nexthop, one.mail, one.mx) == ("example.org", 7, "mx1.example.org")


def test_a_delivery_that_is_not_as_the_rfc_requires_is_not_ready() -> None:
    one = judged(domain(host(TLSA), secure=False))
    assert one.state is HopState.NONCOMPLIANT
    assert one.missing == (Step.MX_NAME,)


@pytest.mark.parametrize(
    ("evidence", "steps"),
    [
        (domain(host(TLSA, seen=probe(requiretls=False))), (Step.REQUIRETLS,)),
        (domain(host(build.BAD)), (Step.CERTIFICATE,)),
        (domain(host(), secure=False), (Step.MX_NAME,)),
        (
            domain(host(TLSA, seen=clear())),
            (Step.STARTTLS, Step.CERTIFICATE, Step.REQUIRETLS),
        ),
        (
            domain(host(TLSA, seen=replace(probe(), tls_version="TLSv1.1"))),
            (Step.STRONG_TLS,),
        ),
    ],
    ids=["no REQUIRETLS", "wrong TLSA", "unsigned MX", "no STARTTLS", "TLS 1.1"],
)
def test_the_steps_that_are_missing_are_those_of_rfc_8689(
    evidence: DomainEvidence, steps: tuple[Step, ...]
) -> None:
    one = judged(evidence)
    assert one.state is not HopState.READY
    assert one.missing == steps
    assert one.is_just_below is (len(steps) == 1)


def test_what_counts_is_the_server_that_lacks_least() -> None:
    worse = host(build.BAD, name="mx1.example.org", seen=probe("192.0.2.1", requiretls=False))
    better = host(
        certificate("mx2.example.org").tlsa(),
        name="mx2.example.org",
        preference=20,
        seen=probe("192.0.2.2", certificate("mx2.example.org"), requiretls=False),
    )
    assert judged(domain(worse, better)).missing == (Step.REQUIRETLS,)


def test_a_next_hop_that_has_all_fails_by_our_own_settings() -> None:
    one = judged(domain(host(TLSA)), MAY)
    assert one.reason is Reason.TLS_LEVEL_DOES_NOT_VERIFY
    assert one.missing == (Step.OWN_SETTINGS,)
    assert one.level == "may"


def test_an_mta_without_requiretls_that_verifies_nobody_is_what_is_missing() -> None:
    one = judged(domain(host(TLSA)), MAY, carried=Requirement.NONE)
    assert one.state is HopState.NONCOMPLIANT
    assert one.missing == (Step.OWN_SETTINGS,)


def test_of_a_server_that_was_not_seen_nothing_is_said() -> None:
    evidence = domain(host(TLSA, seen=replace(clear(), starttls_offered=None)))
    evidence = replace(evidence, mx=MxEvidence(DnsOutcome.ERROR, error="timeout"), hosts=())
    one = judged(evidence)
    assert one.state is HopState.DEFER
    assert one.missing is None
    assert not one.is_just_below


def test_an_unknown_forecast_lacks_nothing_that_is_known() -> None:
    evidence = domain(host(TLSA))
    one = destination(
        "example.org",
        1,
        evidence,
        unknown_forecast("busy"),
        profile=DANE,
        trust=build.trust(),
        now=build.NOW,
    )
    assert (one.state, one.missing) == (HopState.UNKNOWN, None)


# ---------------------------------------------------------------- policies

ENFORCED = domain(host(), secure=False, sts=("mx1.example.org",))


@pytest.mark.parametrize(
    ("evidence", "policy"),
    [
        (domain(host(TLSA)), Policy.DANE),
        (domain(host(TLSA), sts=("mx1.example.org",)), Policy.BOTH),
        (ENFORCED, Policy.MTA_STS),
        (domain(host(), sts=("mx1.example.org",), mode=MtaStsMode.TESTING), Policy.NEITHER),
        (domain(host(), sts=("other.example.org",)), Policy.NEITHER),
        (domain(host()), Policy.NEITHER),
        (domain(host(TLSA), secure=False), Policy.NEITHER),
        (domain(host(TLSA, tlsa_secure=False)), Policy.NEITHER),
        (domain(host(tlsa_outcome=DnsOutcome.ERROR)), Policy.UNKNOWN),
        (replace(domain(host()), mta_sts=MtaStsEvidence(error="timeout")), Policy.UNKNOWN),
        (replace(domain(host()), mta_sts=MtaStsEvidence(unasked=True)), Policy.UNKNOWN),
    ],
)
def test_a_policy_is_told_only_if_senders_may_rely_on_it(
    evidence: DomainEvidence, policy: Policy
) -> None:
    assert policy_of(evidence) is policy


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "ECDHE-RSA-RC4-SHA"])
def test_a_cipher_suite_that_rfc_9325_forbids_is_a_step_that_is_missing(cipher: str) -> None:
    weak = replace(probe(), tls_version="TLSv1.2", cipher=cipher)
    one = judged(domain(host(TLSA, seen=weak)))
    assert one.reason is Reason.NONCOMPLIANT_WEAK_TLS
    assert one.missing == (Step.STRONG_TLS,)


@pytest.mark.parametrize("carried", [Requirement.REQUIRETLS, Requirement.NONE])
@pytest.mark.parametrize("profile", [DANE, build.RFC8689], ids=["postfix", "rfc8689"])
@pytest.mark.parametrize("requiretls", [True, False])
@pytest.mark.parametrize("record", [TLSA, build.BAD], ids=["good", "bad"])
@pytest.mark.parametrize("secure", [True, False])
def test_nothing_is_missing_exactly_where_mail_is_ready(
    carried: Requirement, profile: MtaProfile, requiretls: bool, record: TlsaRecord, secure: bool
) -> None:
    evidence = domain(host(record, seen=probe(requiretls=requiretls)), secure=secure)
    one = judged(evidence, profile, carried)
    assert (one.missing == ()) is (one.state is HopState.READY)
    has_all = requiretls and secure and record is TLSA
    assert (one.state is HopState.READY or one.missing == (Step.OWN_SETTINGS,)) is has_all
