"""What a forecast carries from its evidence: until when it is good, and since when it is worse."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import pytest

from requiretls_milter.forecast.certificate import next_validity_change
from requiretls_milter.forecast.judge import judge
from requiretls_milter.model import (
    DomainEvidence,
    HopKind,
    MtaProfile,
    NextHop,
    ProbeEvidence,
    Requirement,
    TlsaRecord,
    TlsLevel,
)
from tests.support.build import DANE, NOW, RFC8689, certificate, domain, forecast, host, probe
from tests.support.chains import VALIDITIES, Make, issue, trusting

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


HOST = "mx1.example.org"
IN_AN_HOUR = NOW + 3600
IN_A_MONTH = NOW + 30 * 86_400
LEAF = Make(HOST, 1, (HOST,), ca=False)


def presenting(*chain: bytes) -> ProbeEvidence:
    return replace(probe(), chain=chain)


def judged(evidence: DomainEvidence, authority: bytes, now: float = NOW) -> tuple[str, float]:
    """The status by the letter of RFC 8689, and until when it is good."""
    asked = Requirement.REQUIRETLS
    result = judge(
        evidence, asked=asked, carried=asked, profile=RFC8689, trust=trusting(authority), now=now
    )
    assert result.proven_until == result.valid_until, "nothing but proofs ends here"
    return result.status, result.valid_until


def test_the_end_of_a_proof_is_told_apart_from_that_of_a_ttl() -> None:
    evidence = domain(host(GOOD))
    evidence = replace(evidence, mx=replace(evidence.mx, expires=NOW + 60))
    assert forecast(evidence).proven_until == 0.0
    policy = domain(host(GOOD), sts=("mx1.example.org",)).mta_sts
    policy = replace(policy, fetched_at=NOW - 60, expires=NOW + 300)
    assert forecast(replace(evidence, mta_sts=policy)).proven_until == NOW - 60 + 86_400


def test_r44_an_authority_that_the_server_does_not_send_ends_what_it_vouches_for() -> None:
    for valid, end in (("ending", IN_AN_HOUR), ("now", IN_A_MONTH)):
        root = Make("Root", 3, ca=True, valid=valid)
        evidence = domain(host(seen=presenting(issue(LEAF, root))))
        assert judged(evidence, issue(root, None)) == ("2.0.0", end)
        assert judged(evidence, issue(root, None), end + 1)[0] == "5.7.10"


def test_r44_so_does_an_issuer_on_the_path() -> None:
    root, middle = Make("Root", 3, ca=True), Make("Middle", 2, ca=True, valid="ending")
    seen = presenting(issue(LEAF, middle), issue(middle, root))
    assert judged(domain(host(seen=seen)), issue(root, None)) == ("2.0.0", IN_AN_HOUR)


def test_r44_and_an_anchor_that_stands_in_a_tlsa_record_alone() -> None:
    root = Make("Root", 3, ca=True, valid="ending")
    anchor = TlsaRecord(2, 0, 0, issue(root, None))
    evidence = domain(host(anchor, seen=presenting(issue(LEAF, root))))
    unrelated = issue(Make("Other", 4, ca=True), None)
    assert judged(evidence, unrelated) == ("2.0.0", IN_AN_HOUR)
    assert judged(evidence, unrelated, IN_AN_HOUR + 1)[0] == "5.7.10"


def test_a_certificate_that_a_record_names_has_no_end() -> None:
    """RFC 7672 section 3.1.1: the dates of a DANE-EE certificate do not count."""
    leaf = issue(replace(LEAF, valid="ending"), None)
    record = TlsaRecord(3, 0, 1, hashlib.sha256(leaf).digest())
    unrelated = issue(Make("Other", 4, ca=True), None)
    assert judged(domain(host(record, seen=presenting(leaf))), unrelated) == ("2.0.0", 0.0)


def test_what_is_not_verified_yet_is_judged_again_when_it_may_be() -> None:
    root = Make("Root", 3, ca=True, valid="soon")
    evidence = domain(host(seen=presenting(issue(LEAF, root))))
    assert judged(evidence, issue(root, None)) == ("5.7.10", IN_AN_HOUR)
    assert judged(evidence, issue(root, None), IN_AN_HOUR) == ("2.0.0", IN_A_MONTH)


@pytest.mark.parametrize("profile", [replace(DANE, tls_security_level=TlsLevel.VERIFY), RFC8689])
def test_a_verdict_rests_on_each_server_that_was_tried_before_the_one_that_decides(
    profile: MtaProfile,
) -> None:
    """The first one may be verified soon: the second one would not be tried any more."""
    root = Make("Root", 3, ca=True)
    good = Make("mx2.example.org", 2, ("mx2.example.org",), ca=False)
    coming = host(seen=presenting(issue(replace(LEAF, valid="soon"), root)))
    other = host(
        name="mx2.example.org",
        preference=20,
        seen=replace(presenting(issue(good, root)), address="192.0.2.2"),
    )
    result = judge(
        domain(coming, other),
        asked=Requirement.REQUIRETLS,
        carried=Requirement.REQUIRETLS,
        profile=profile,
        trust=trusting(issue(root, None)),
        now=NOW,
    )
    assert (result.status, result.mx) == ("2.0.0", "mx2.example.org")
    assert result.valid_until == IN_AN_HOUR


def test_servers_in_random_order_count_all_of_them() -> None:
    root = Make("Root", 3, ca=True)
    leaves = (issue(replace(LEAF, valid=valid), root) for valid in ("now", "ending"))
    one, other = (
        replace(presenting(leaf), address=f"192.0.2.{number}")
        for number, leaf in enumerate(leaves, 1)
    )
    both = host(seen=one)
    both = replace(
        both,
        addresses=replace(both.addresses, addresses=("192.0.2.1", "192.0.2.2")),
        probes=(one, other),
    )
    asked = Requirement.REQUIRETLS
    verify = replace(DANE, tls_security_level=TlsLevel.VERIFY)
    trust = trusting(issue(root, None))
    result = judge(domain(both), asked=asked, carried=asked, profile=verify, trust=trust, now=NOW)
    assert (result.status, result.valid_until) == ("2.0.0", IN_AN_HOUR)


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
