"""What was not asked, since a budget is spent, is neither there nor missing: ``unknown``."""

from __future__ import annotations

from dataclasses import replace

import pytest

from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    DomainEvidence,
    HostEvidence,
    MtaProfile,
    MtaSts,
    MtaStsEvidence,
    MxEvidence,
    Outcome,
    ProbeEvidence,
    ProfileName,
    Requirement,
    TlsaEvidence,
    TlsLevel,
)
from requiretls_milter.syntax.nexthop import parse
from tests.support.build import RFC8689, certificate, domain, forecast, host

WHY = "over budget: limits.x"
GOOD = host(certificate().tlsa())
PROFILES = pytest.mark.parametrize(
    "profile",
    [
        MtaProfile(tls_security_level=TlsLevel.DANE),
        MtaProfile(tls_security_level=TlsLevel.MAY),
        RFC8689,
    ],
)


def assert_unknown(evidence: DomainEvidence, profile: MtaProfile) -> None:
    result = forecast(evidence, profile)
    assert (result.outcome, result.reason.value) == (Outcome.UNKNOWN, "unknown")
    assert WHY in result.text


@PROFILES
def test_mx_records_that_were_not_looked_up(profile: MtaProfile) -> None:
    mx = MxEvidence(DnsOutcome.ERROR, error=WHY, unasked=True)
    assert_unknown(replace(domain(), mx=mx), profile)


def unresolved(one: HostEvidence = GOOD, preference: int = 10) -> HostEvidence:
    addresses = AddressLookup(DnsOutcome.ERROR, error=WHY, unasked=True)
    return HostEvidence(one.host, preference, addresses)


@PROFILES
def test_a_host_that_was_not_looked_up(profile: MtaProfile) -> None:
    assert_unknown(domain(unresolved()), profile)


def test_a_better_host_that_was_not_looked_up_may_be_any_server() -> None:
    better = unresolved(replace(GOOD, host="mx0.example.org"), preference=5)
    assert_unknown(domain(better, GOOD), MtaProfile(tls_security_level=TlsLevel.DANE))


def test_a_worse_one_changes_nothing_of_a_delivery() -> None:
    worse = unresolved(replace(GOOD, host="mx2.example.org"), preference=20)
    result = forecast(domain(GOOD, worse), MtaProfile(tls_security_level=TlsLevel.DANE))
    assert result.outcome is Outcome.DELIVER


@PROFILES
def test_a_host_of_which_one_family_was_not_looked_up(profile: MtaProfile) -> None:
    partly = replace(GOOD, addresses=replace(GOOD.addresses, error=WHY, unasked=True))
    assert_unknown(domain(partly), profile)


@PROFILES
def test_tlsa_records_that_were_not_looked_up(profile: MtaProfile) -> None:
    tlsa = TlsaEvidence(queried=True, outcome=DnsOutcome.ERROR, error=WHY, unasked=True)
    assert_unknown(domain(replace(GOOD, tlsa=tlsa)), profile)


@pytest.mark.parametrize("name", ProfileName)
def test_a_server_that_was_not_called(name: ProfileName) -> None:
    uncalled = replace(GOOD, probes=(ProbeEvidence("192.0.2.1", error=WHY),))
    profile = MtaProfile(name=name, tls_security_level=TlsLevel.DANE)
    assert_unknown(domain(uncalled), profile)


def test_what_policy_alone_decides_stays_decided() -> None:
    uncalled = replace(host(), probes=(ProbeEvidence("192.0.2.1", error=WHY),))
    result = forecast(domain(uncalled), MtaProfile(tls_security_level=TlsLevel.MAY))
    assert result.status == "5.7.10"


# ---------------------------------------------------------------- MTA-STS

UNASKED = MtaStsEvidence(error=WHY, unasked=True)


def test_a_policy_that_may_confirm_the_names_was_not_asked_for() -> None:
    unsigned = replace(domain(GOOD, secure=False), mta_sts=UNASKED)
    assert_unknown(unsigned, RFC8689)
    assert_unknown(unsigned, MtaProfile(tls_security_level=TlsLevel.DANE))


@pytest.mark.parametrize("applied", [MtaSts.MATCH, MtaSts.MX_PATTERNS])
def test_a_policy_that_the_mta_applies_was_not_asked_for(applied: MtaSts) -> None:
    profile = MtaProfile(tls_security_level=TlsLevel.DANE, mta_sts=applied)
    assert_unknown(replace(domain(GOOD), mta_sts=UNASKED), profile)


def test_a_policy_of_no_consequence_was_not_asked_for() -> None:
    signed = replace(domain(GOOD), mta_sts=UNASKED)
    assert forecast(signed, RFC8689).outcome is Outcome.DELIVER
    ordinary = replace(domain(GOOD, secure=False), mta_sts=UNASKED)
    result = forecast(ordinary, MtaProfile(), Requirement.NONE)
    assert result.outcome is Outcome.DELIVER


def test_a_policy_that_is_known_applies_if_it_may_not_be_asked_for_anew() -> None:
    known = domain(GOOD, secure=False, sts=("mx1.example.org",))
    evidence = replace(known, mta_sts=replace(known.mta_sts, error=WHY))
    assert forecast(evidence, RFC8689).outcome is Outcome.DELIVER


def test_a_policy_of_a_smart_host_matters_only_where_the_mta_applies_it() -> None:
    """Its name needs no confirmation: a next hop in brackets names its server."""
    named = DomainEvidence(
        parse("[mx1.example.org]"), MxEvidence(DnsOutcome.NODATA), UNASKED, hosts=(GOOD,)
    )
    dane = MtaProfile(tls_security_level=TlsLevel.DANE)
    assert forecast(named, dane).status == "2.0.0"
    assert_unknown(named, replace(dane, mta_sts=MtaSts.MATCH))
