"""What a forecast carries from its evidence: until when it is good, and since when it is worse."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from requiretls_milter.forecast.certificate import next_validity_change
from requiretls_milter.model import HopKind, MtaProfile, NextHop, Requirement
from tests.support.build import DANE, NOW, RFC8689, certificate, domain, forecast, host, probe
from tests.support.chains import VALIDITIES, Make, issue

GOOD = certificate().tlsa()


def test_since_when_something_is_missing_is_passed_on_and_0_where_nothing_is() -> None:
    evidence = domain(host(GOOD))
    assert forecast(evidence).downgraded_at == 0.0
    assert forecast(replace(evidence, downgraded_at=NOW - 60)).downgraded_at == NOW - 60


@pytest.mark.parametrize("piece", ["mx", "mta_sts", "addresses", "tlsa", "probe"])
def test_r44_a_forecast_is_good_as_long_as_each_piece_of_its_evidence(piece: str) -> None:
    """One that never ends says 0 and counts for nothing."""
    ends = {"mx": 0.0, "mta_sts": 0.0, "addresses": 0.0, "tlsa": 0.0, "probe": 0.0}

    def until() -> float:
        seen = replace(probe(), expires=ends["probe"])
        one = host(GOOD, seen=seen)
        one = replace(
            one,
            addresses=replace(one.addresses, expires=ends["addresses"]),
            tlsa=replace(one.tlsa, expires=ends["tlsa"]),
        )
        evidence = domain(one)
        evidence = replace(
            evidence,
            mx=replace(evidence.mx, expires=ends["mx"]),
            mta_sts=replace(evidence.mta_sts, expires=ends["mta_sts"]),
        )
        return forecast(evidence).valid_until

    assert until() == 0.0
    ends[piece] = NOW + 60
    assert until() == NOW + 60
    for other in ends:
        ends[other] = NOW + 100
    ends[piece] = NOW + 60
    assert until() == NOW + 60


def test_a_chain_changes_where_the_next_of_its_certificates_begins_or_ends() -> None:
    leaf = issue(Make("a.test", 1, valid="now"), None)
    late = issue(Make("a.test", 1, valid="future"), None)
    begin, end = (moment.timestamp() for moment in VALIDITIES["now"])
    coming, _ = (moment.timestamp() for moment in VALIDITIES["future"])
    for chain in ((leaf,), (leaf, b"no certificate"), (b"no certificate", leaf)):
        assert next_validity_change(chain, begin - 1) == begin
        assert next_validity_change(chain, begin) == end
        assert next_validity_change(chain, end) == math.inf
    assert next_validity_change((leaf, late), NOW) == coming
    assert next_validity_change((), NOW) == math.inf


def test_what_is_delivered_on_this_host_needs_no_evidence() -> None:
    local = replace(domain(), nexthop=NextHop(HopKind.LOCAL, ""))
    result = forecast(local)
    assert (result.status, result.reason.value, result.mx) == ("2.0.0", "local", "")


@pytest.mark.parametrize("profile", [DANE, RFC8689], ids=["postfix", "rfc8689"])
def test_what_the_letter_says_of_mail_that_asks_nothing_is_what_the_level_says(
    profile: MtaProfile,
) -> None:
    evidence = domain(host(GOOD, seen=probe(requiretls=False)))
    for requirement in (Requirement.NONE, Requirement.TLS_REQUIRED_NO):
        result = forecast(evidence, profile, requirement)
        assert result.rfc8689 is not None
        assert (result.rfc8689.status, result.rfc8689.reason) == (result.status, result.reason)
        assert result.compliant is (None if requirement is Requirement.NONE else True)


def test_only_postfixs_profile_has_a_token_of_postfixs_log() -> None:
    assert forecast(domain(host(GOOD))).tls == "dane/requiretls"
    assert forecast(domain(host(GOOD)), RFC8689).tls is None
