"""The rules of RFC 8689, 7672 and 8461 as the judge applies them, one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from requiretls_milter.model import (
    AddressLookup,
    AddressPreference,
    DnsOutcome,
    DomainEvidence,
    HopKind,
    HostEvidence,
    MtaProfile,
    MtaSts,
    MtaStsMode,
    MxEvidence,
    MxRecord,
    NextHop,
    Outcome,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reading,
    Reply,
    Requirement,
    RequiretlsPolicy,
    TlsaEvidence,
    TlsaRecord,
    TlsLevel,
)
from tests.support.build import (
    BAD,
    DANE,
    NOW,
    RFC8689,
    answers,
    certificate,
    clear,
    domain,
    forecast,
    host,
    probe,
)

OK = ("2.0.0", "ok")
DAY = 86400
GOOD = certificate().tlsa()
UNUSABLE = TlsaRecord(3, 1, 99, bytes(32))
"""A matching type that Postfix takes and OpenSSL does not."""


def refused(address: str = "192.0.2.9") -> ProbeEvidence:
    return ProbeEvidence(address, ProbeStage.CONNECT, ProbeFailure.REFUSED)


# ---------------------------------------------------------------- RFC 8689


def test_r03_requiretls_counts_only_in_the_ehlo_inside_tls() -> None:
    seen = probe(requiretls=False)
    assert answers(forecast(domain(host(GOOD, seen=seen))))[0] == "5.7.30"


@pytest.mark.parametrize(
    ("secure", "sts", "expected"),
    [
        (True, None, OK),
        (False, ("mx1.example.org",), OK),
        (True, ("mx1.example.org",), OK),
        (False, None, ("5.7.10", "mx_lookup_insecure")),
    ],
)
def test_r05_the_mx_name_is_authenticated_by_dnssec_or_by_mta_sts(
    secure: bool, sts: tuple[str, ...] | None, expected: tuple[str, str]
) -> None:
    evidence = domain(host(), secure=secure, sts=sts)
    assert answers(forecast(evidence, RFC8689)) == expected


def test_r05_mta_sts_in_testing_mode_authenticates_nothing() -> None:
    evidence = domain(host(), secure=False, sts=("mx1.example.org",), mode=MtaStsMode.TESTING)
    assert answers(forecast(evidence, RFC8689)) == ("5.7.10", "mx_lookup_insecure")


@pytest.mark.parametrize("kind", ["selfsigned", "untrusted", "expired", "wrongname"])
def test_r06_encrypted_but_unverified_is_never_enough(kind: str) -> None:
    seen = probe(presented=certificate("mx1.example.org", kind))
    result = forecast(domain(host(seen=seen)), RFC8689)
    assert answers(result) == ("5.7.10", "certificate_not_verified")


def test_r06_a_certificate_verified_by_pkix_or_by_dane_is_enough() -> None:
    selfsigned = certificate("mx1.example.org", "selfsigned")
    assert answers(forecast(domain(host()), RFC8689)) == OK
    by_dane = host(selfsigned.tlsa(), seen=probe(presented=selfsigned))
    assert answers(forecast(domain(by_dane), RFC8689)) == OK


def test_r11_every_mx_is_tried_and_one_that_satisfies_is_enough() -> None:
    bad = host(BAD, name="mx2.example.org", preference=5, seen=probe("192.0.2.2"))
    for profile in (DANE, RFC8689):
        result = forecast(domain(bad, host(GOOD)), profile)
        assert (answers(result), result.mx) == (OK, "mx1.example.org")


@pytest.mark.parametrize("profile", [DANE, RFC8689], ids=["postfix", "rfc8689"])
def test_r12_a_missing_capability_is_5730_and_missing_authentication_5710(
    profile: MtaProfile,
) -> None:
    without = host(GOOD, seen=probe(requiretls=False))
    assert forecast(domain(without), profile).status == "5.7.30"
    assert forecast(domain(host(BAD)), profile).status == "5.7.10"


def test_r12_no_starttls_is_5710_by_the_letter_and_5730_for_postfix() -> None:
    evidence = domain(host(GOOD, seen=clear()))
    assert answers(forecast(evidence, RFC8689)) == ("5.7.10", "starttls_not_offered")
    assert answers(forecast(evidence, DANE)) == ("5.7.30", "starttls_not_offered")


def test_r13_tls_required_no_ignores_dane_and_mta_sts() -> None:
    mismatch = domain(host(BAD), sts=("other.example.net",))
    for profile in (DANE, replace(DANE, mta_sts=MtaSts.MX_PATTERNS), RFC8689):
        result = forecast(mismatch, profile, Requirement.TLS_REQUIRED_NO)
        assert answers(result) == OK
    in_clear = domain(host(GOOD, seen=clear()))
    assert answers(forecast(in_clear, DANE, Requirement.TLS_REQUIRED_NO)) == OK


def test_r18_a_server_that_needs_starttls_wins_over_tls_required_no() -> None:
    broken = ProbeEvidence(
        "192.0.2.1", ProbeStage.HANDSHAKE, ProbeFailure.CLOSED, starttls_offered=True
    )
    result = forecast(domain(host(GOOD, seen=broken)), DANE, Requirement.TLS_REQUIRED_NO)
    assert answers(result) == ("4.7.5", "tls_handshake_failed")


@pytest.mark.parametrize(
    "nexthop",
    [
        NextHop(HopKind.ADDRESS, "192.0.2.1"),
        NextHop(HopKind.HOST, "localhost"),
        NextHop(HopKind.HOST, "mail.own.example"),
        NextHop(HopKind.MX, "own.example"),
    ],
)
def test_r19_own_domains_localhost_and_addresses_are_opportunistic_by_default(
    nexthop: NextHop,
) -> None:
    evidence = replace(domain(host(seen=clear())), nexthop=nexthop)
    result = forecast(evidence, replace(DANE, mydomain="own.example"))
    assert (result.status, result.tls) == ("2.0.0", "may:none/requiretls:none")
    assert result.compliant is False


def test_r19_a_policy_table_is_searched_as_postfix_does() -> None:
    table = (
        ("example.org", RequiretlsPolicy.ENFORCE),
        (".example.org", RequiretlsPolicy.OPPORTUNISTIC),
        ("*", RequiretlsPolicy.DISABLE),
    )
    profile = replace(DANE, requiretls_policy=table)
    evidence = domain(host(seen=clear()))
    subdomain = replace(evidence, nexthop=NextHop(HopKind.MX, "a.b.example.org"))
    other = replace(evidence, nexthop=NextHop(HopKind.MX, "example.net"))
    assert forecast(evidence, profile).status == "5.7.10"
    assert forecast(subdomain, profile).tls == "may:none/requiretls:none"
    assert forecast(other, profile).tls == "may:none"


# ---------------------------------------------------------------- DANE


@pytest.mark.parametrize("profile", [DANE, RFC8689], ids=["postfix", "rfc8689"])
def test_r21_a_failed_tlsa_lookup_is_temporary_and_never_no_records(profile: MtaProfile) -> None:
    result = forecast(domain(host(tlsa_outcome=DnsOutcome.ERROR)), profile)
    assert answers(result) == ("4.7.5", "policy_lookup_failed")


def test_r23_unsigned_mx_gives_no_dane_guarantee_and_bogus_mx_defers() -> None:
    result = forecast(domain(host(GOOD), secure=False))
    assert answers(result) == ("2.0.0", "noncompliant_mx_insecure")
    bogus = replace(domain(), mx=MxEvidence(DnsOutcome.ERROR, error="bogus"))
    assert answers(forecast(bogus)) == ("4.4.3", "dns_failure")


@pytest.mark.parametrize(("secure", "compliant"), [(True, True), (False, False)])
def test_r24_an_implicit_mx_is_authenticated_only_by_a_signed_denial(
    secure: bool, compliant: bool
) -> None:
    own = host(certificate("example.org").tlsa(), name="example.org", preference=0)
    own = replace(own, probes=(probe(presented=certificate("example.org")),))
    evidence = replace(domain(own), mx=MxEvidence(DnsOutcome.NODATA, secure))
    assert forecast(evidence).compliant is compliant
    assert forecast(evidence, RFC8689).status == ("2.0.0" if secure else "5.7.10")


def test_r24_no_such_domain_and_null_mx_are_different_outcomes() -> None:
    gone = replace(domain(), mx=MxEvidence(DnsOutcome.NXDOMAIN))
    null = replace(domain(), mx=MxEvidence(DnsOutcome.FOUND, True, null_mx=True))
    assert answers(forecast(gone)) == ("5.4.4", "no_such_domain")
    assert answers(forecast(null)) == ("5.1.0", "null_mx")


@pytest.mark.parametrize("profile", [DANE, RFC8689], ids=["postfix", "rfc8689"])
def test_r32_a_tlsa_mismatch_does_not_fall_back_to_a_good_pkix_certificate(
    profile: MtaProfile,
) -> None:
    result = forecast(domain(host(BAD)), profile)
    assert answers(result) == ("5.7.10", "certificate_not_verified")


@pytest.mark.parametrize("record", [TlsaRecord(3, 1, 99, b"x"), TlsaRecord(0, 1, 1, bytes(32))])
def test_r33_unusable_records_demand_tls_but_authenticate_no_server(record: TlsaRecord) -> None:
    in_clear = domain(host(record, seen=clear()))
    assert forecast(in_clear, DANE, Requirement.NONE).status == "4.7.4"
    assert answers(forecast(domain(host(record)), RFC8689)) == (
        "5.7.10",
        "certificate_not_verified",
    )


def test_r34_insecure_tlsa_is_as_good_as_none() -> None:
    evidence = domain(host(BAD, tlsa_secure=False))
    assert answers(forecast(evidence, DANE, Requirement.NONE)) == OK
    assert answers(forecast(evidence, RFC8689)) == OK


@pytest.mark.parametrize("usage", [0, 1])
def test_r35_certificate_usages_0_and_1_are_unusable(usage: int) -> None:
    result = forecast(domain(host(certificate().tlsa(usage))))
    assert (result.status, result.tls) == ("5.7.10", "encrypt?/!requiretls:nocertmatch")


@pytest.mark.parametrize(
    "record",
    [
        TlsaRecord(3, 2, 1, bytes(32)),
        TlsaRecord(3, 1, 3, bytes(32)),
        TlsaRecord(3, 1, 1, bytes(31)),
        TlsaRecord(3, 1, 2, bytes(32)),
        TlsaRecord(3, 0, 0, b"\x30\x03garbage"),
        TlsaRecord(3, 1, 0, b""),
        TlsaRecord(3, 1, 0, certificate().chain[0]),
        TlsaRecord(3, 0, 0, certificate().key),
    ],
)
def test_r36_malformed_or_unknown_tlsa_records_are_unusable(record: TlsaRecord) -> None:
    result = forecast(domain(host(record)), RFC8689)
    assert result.status == "5.7.10"
    beside_a_good_one = forecast(domain(host(record, GOOD)), RFC8689)
    assert answers(beside_a_good_one) == OK


@pytest.mark.parametrize("kind", ["expired", "wrongname", "selfsigned", "untrusted"])
def test_r37_dane_ee_looks_neither_at_the_name_nor_at_dates_nor_at_the_chain(kind: str) -> None:
    presented = certificate("mx1.example.org", kind, chain=False)
    for matching in (0, 1, 2):
        for selector in (0, 1):
            evidence = domain(
                host(presented.tlsa(3, selector, matching), seen=probe(presented=presented))
            )
            assert answers(forecast(evidence)) == OK


def test_r38_dane_ta_needs_the_authority_in_the_chain_or_in_dns_and_no_public_root() -> None:
    stranger = certificate("mx1.example.org", "untrusted")
    anchor = stranger.chain[1]
    in_dns = TlsaRecord(2, 0, 0, anchor)
    alone = probe(presented=replace(stranger, chain=stranger.chain[:1]))
    assert answers(forecast(domain(host(in_dns, seen=alone)))) == OK
    by_digest = replace(stranger, ca=anchor).tlsa(2, 0, 1)
    sent = probe(presented=stranger)
    assert answers(forecast(domain(host(by_digest, seen=sent)))) == OK
    assert forecast(domain(host(by_digest, seen=alone))).status == "5.7.10"


def test_r38_dane_ta_checks_dates_and_names() -> None:
    for kind in ("expired", "wrongname"):
        presented = certificate("mx1.example.org", kind)
        evidence = domain(host(presented.tlsa(2), seen=probe(presented=presented)))
        assert answers(forecast(evidence)) == ("5.7.10", "certificate_not_verified")
    good = domain(host(certificate().tlsa(2)))
    assert answers(forecast(good)) == OK
    assert forecast(good, now=NOW + 40 * DAY).status == "5.7.10"


@pytest.mark.parametrize(
    ("name", "matches"),
    [
        ("mx1.example.org", True),  # the TLSA base domain
        ("example.org", True),  # the next-hop domain
        ("expanded.example.net", True),  # the next-hop domain after CNAME expansion
        ("mx2.example.org", False),
    ],
)
def test_r39_reference_names_of_dane_ta(name: str, matches: bool) -> None:
    presented = certificate(name)
    evidence = domain(host(presented.tlsa(2), seen=probe(presented=presented)))
    evidence = replace(evidence, mx=replace(evidence.mx, canonical="expanded.example.net"))
    assert (forecast(evidence).status == "2.0.0") is matches


@pytest.mark.parametrize("name", ["example.org", "expanded.example.net"])
def test_r39_with_unsigned_mx_records_only_the_host_s_name_proves_anything(name: str) -> None:
    """Postfix delivers; but whoever writes the MX records may be the one with that certificate."""
    for presented, good in ((certificate(name), False), (certificate("mx1.example.org"), True)):
        seen = probe(presented=presented)
        evidence = domain(
            host(presented.tlsa(2), seen=seen), secure=False, sts=("mx1.example.org",)
        )
        evidence = replace(evidence, mx=replace(evidence.mx, canonical="expanded.example.net"))
        result = forecast(evidence)
        assert result.tls == "halfdane/requiretls"
        assert result.rfc8689 is not None
        if good:
            assert answers(result) == OK
            assert result.rfc8689.status == "2.0.0"
        else:
            assert answers(result) == ("2.0.0", "noncompliant_unverified")
            assert result.rfc8689.reason == "certificate_not_verified"


def test_r39_without_mx_records_only_the_base_domain_counts() -> None:
    presented = certificate("example.org")
    own = host(presented.tlsa(2), seen=probe(presented=presented))
    evidence = replace(domain(own), nexthop=NextHop(HopKind.HOST, "mx1.example.org"))
    assert forecast(evidence).status == "5.7.10"


def test_r39_without_mx_records_the_alias_of_the_base_domain_counts_by_the_rfc() -> None:
    """RFC 7672 section 3.2.2; Postfix has no name but that of the base domain."""
    presented = certificate("alias.example.org")
    own = host(presented.tlsa(2), name="alias.example.org", seen=probe(presented=presented))
    own = replace(own, tlsa=replace(own.tlsa, base_domain="mx1.example.org"))
    evidence = replace(domain(own), nexthop=NextHop(HopKind.HOST, "alias.example.org"))
    result = forecast(evidence)
    assert result.status == "5.7.10"
    assert result.rfc8689 is not None
    assert result.rfc8689.status == "2.0.0"


def test_r40_end_entity_and_trust_anchor_records_are_alternatives_in_any_order() -> None:
    wrong_anchor = TlsaRecord(2, 1, 1, bytes(32))
    for records in ((GOOD, wrong_anchor), (wrong_anchor, GOOD)):
        assert answers(forecast(domain(host(*records)))) == OK
    for records in ((BAD, certificate().tlsa(2)), (certificate().tlsa(2), BAD)):
        assert answers(forecast(domain(host(*records)))) == OK


def test_r41_only_the_strongest_digest_of_a_usage_and_selector_counts() -> None:
    stale = TlsaRecord(3, 1, 2, bytes(64))
    assert forecast(domain(host(GOOD, stale))).status == "5.7.10"
    other_selector = TlsaRecord(3, 0, 2, bytes(64))
    assert forecast(domain(host(GOOD, other_selector))).status == "2.0.0"
    full = certificate().tlsa(3, 1, 0)
    assert forecast(domain(host(full, stale))).status == "2.0.0"


def test_r43_a_dane_mismatch_delays_ordinary_mail_and_fails_requiretls_at_the_last_mx() -> None:
    mismatch = host(BAD)
    assert forecast(domain(mismatch), DANE, Requirement.NONE).status == "4.7.5"
    assert forecast(domain(mismatch)).status == "5.7.10"
    then_refused = host(GOOD, name="mx2.example.org", preference=20, seen=refused())
    assert forecast(domain(mismatch, then_refused)).status == "4.4.1"


def unproven(evidence: DomainEvidence) -> DomainEvidence:
    """The same, of a resolver of which nothing has been shown: AD came, and counts for nothing."""
    hosts = tuple(
        replace(
            one,
            addresses=replace(one.addresses, secure=False, unproven=one.addresses.secure),
            tlsa=TlsaEvidence(),
        )
        for one in evidence.hosts
    )
    mx = replace(evidence.mx, secure=False, unproven=evidence.mx.secure)
    return replace(evidence, mx=mx, hosts=hosts)


@pytest.mark.parametrize("profile", [DANE, RFC8689], ids=["postfix", "rfc8689"])
@pytest.mark.parametrize("record", [GOOD, BAD], ids=["good", "bad"])
def test_r20_what_an_unproven_resolver_might_have_made_secure_is_unknown(
    profile: MtaProfile, record: TlsaRecord
) -> None:
    result = forecast(unproven(domain(host(record))), profile)
    assert (answers(result), result.outcome) == (("unknown", "unknown"), Outcome.UNKNOWN)
    assert result.compliant is None
    assert result.rfc8689 is not None
    assert result.rfc8689.status == "unknown"
    assert "nothing has shown yet" in result.text


def test_r20_a_delivery_that_is_not_compliant_for_want_of_proof_is_unknown() -> None:
    opportunistic = replace(DANE, requiretls_policy=(("*", RequiretlsPolicy.OPPORTUNISTIC),))
    evidence = domain(host(GOOD))
    assert forecast(evidence, opportunistic).compliant
    assert answers(forecast(unproven(evidence), opportunistic))[0] == "unknown"


def test_r20_what_rests_on_no_signature_is_forecast_with_an_unproven_resolver_too() -> None:
    by_sts = unproven(domain(host(GOOD), sts=("mx1.example.org",)))
    assert answers(forecast(by_sts, RFC8689)) == OK
    down = unproven(domain(host(seen=refused()), sts=("mx1.example.org",)))
    assert answers(forecast(down, RFC8689))[0] == "4.4.1"
    ordinary = forecast(unproven(domain(host(GOOD))), DANE, Requirement.NONE)
    assert answers(ordinary) == OK


def test_r20_without_the_ad_bit_there_is_nothing_to_prove() -> None:
    unsigned = unproven(domain(host(secure=False), secure=False))
    assert answers(forecast(unsigned, DANE)) == ("5.7.10", "tls_level_does_not_verify")


# ---------------------------------------------------------------- MTA-STS


def test_r45_an_mta_sts_success_never_overrides_a_dane_failure() -> None:
    sts = ("mx1.example.org",)
    assert forecast(domain(host(BAD), sts=sts), RFC8689).status == "5.7.10"
    failed = domain(host(tlsa_outcome=DnsOutcome.ERROR), sts=sts)
    assert forecast(failed, RFC8689).status == "4.7.5"


def test_r56_a_certificate_for_the_pattern_only_is_delivered_but_not_compliant() -> None:
    by_pattern = certificate("other.example.org")
    evidence = domain(host(seen=probe(presented=by_pattern)), secure=False, sts=("*.example.org",))
    old_style = forecast(evidence, replace(DANE, mta_sts=MtaSts.MATCH))
    assert answers(old_style) == ("2.0.0", "noncompliant_unverified")
    new_style = forecast(evidence, replace(DANE, mta_sts=MtaSts.MX_PATTERNS))
    assert answers(new_style) == ("5.7.10", "certificate_not_verified")


def test_r57_in_enforce_mode_other_mx_are_skipped_and_none_left_is_temporary() -> None:
    profile = replace(DANE, mta_sts=MtaSts.MX_PATTERNS)
    foreign = host(name="mx.example.net", preference=5, seen=probe("192.0.2.5"))
    both = forecast(domain(foreign, host(), secure=False, sts=("mx1.example.org",)), profile)
    assert (answers(both), both.mx) == (OK, "mx1.example.org")
    none_left = domain(foreign, secure=False, sts=("mx1.example.org",))
    assert answers(forecast(none_left, profile)) == ("4.3.0", "mx_not_in_mta_sts_policy")
    assert forecast(none_left, RFC8689).outcome is Outcome.DEFER


@pytest.mark.parametrize("mode", [MtaStsMode.TESTING, MtaStsMode.NONE])
def test_r57_testing_and_none_never_block(mode: MtaStsMode) -> None:
    evidence = domain(host(seen=clear(), secure=False), sts=("other.example.net",), mode=mode)
    for style in (MtaSts.MATCH, MtaSts.MX_PATTERNS):
        result = forecast(evidence, replace(DANE, mta_sts=style), Requirement.NONE)
        assert answers(result) == OK


def test_r61_a_failed_handshake_is_temporary_and_a_refused_starttls_is_not() -> None:
    broken = ProbeEvidence(
        "192.0.2.1", ProbeStage.HANDSHAKE, ProbeFailure.CLOSED, starttls_offered=True
    )
    result = forecast(domain(host(GOOD, seen=broken)))
    assert answers(result) == ("4.7.5", "tls_handshake_failed")
    assert forecast(domain(host(GOOD, seen=clear()))).outcome is Outcome.BOUNCE


# ---------------------------------------------------------------- servers in turn


def test_equal_preference_forecasts_the_worst_that_can_happen_and_says_so() -> None:
    without = host(
        GOOD, name="mx2.example.org", seen=probe("192.0.2.2", requiretls=False), preference=10
    )
    down = host(GOOD, seen=refused())
    for order in ((without, down), (down, without)):
        result = forecast(domain(*order))
        assert result.status == "5.7.30"
        assert "random order" in result.text


def test_among_equals_one_that_satisfies_decides_whatever_the_order() -> None:
    down = host(GOOD, name="mx2.example.org", seen=refused())
    for order in ((host(GOOD), down), (down, host(GOOD))):
        result = forecast(domain(*order))
        assert answers(result) == OK
        assert "random" not in result.text


OPPORTUNISTIC = replace(DANE, requiretls_policy=(("*", RequiretlsPolicy.OPPORTUNISTIC),))


def test_among_equals_that_deliver_one_that_does_not_satisfy_is_forecast() -> None:
    lacking = host(GOOD, name="mx2.example.org", seen=probe("192.0.2.2", requiretls=False))
    for order in ((host(GOOD), lacking), (lacking, host(GOOD))):
        result = forecast(domain(*order), OPPORTUNISTIC)
        assert answers(result) == ("2.0.0", "noncompliant_not_offered")
        assert result.compliant is False
        assert "random order" in result.text


def test_equals_that_fail_alike_with_another_token_are_told_to_differ() -> None:
    lacking = host(GOOD, name="mx2.example.org", seen=probe("192.0.2.2", requiretls=False))
    in_clear = host(GOOD, seen=clear())
    result = forecast(domain(lacking, in_clear))
    assert result.status == "5.7.30"
    assert "random order" in result.text
    assert "random order" not in forecast(domain(lacking, lacking)).text


@pytest.mark.parametrize(
    ("preference", "status", "certain"),
    [("any", "5.7.30", False), ("ipv4", "4.4.1", True), ("ipv6", "5.7.30", True)],
)
def test_a_preferred_address_family_comes_first(
    preference: str, status: str, certain: bool
) -> None:
    dual = host(GOOD)
    dual = replace(
        dual,
        addresses=replace(dual.addresses, addresses=("2001:db8::1", "192.0.2.1")),
        probes=(refused("2001:db8::1"), probe("192.0.2.1", requiretls=False)),
    )
    profile = replace(DANE, address_preference=AddressPreference(preference))
    result = forecast(domain(dual), profile)
    assert result.status == status
    assert ("random order" not in result.text) is certain


@pytest.mark.parametrize("kind", [HopKind.MX, HopKind.HOST, HopKind.ADDRESS])
def test_a_host_without_mx_records_that_is_the_mta_itself_is_a_loop(kind: HopKind) -> None:
    """Also where it has other addresses; and only at port 25 does Postfix look for itself."""
    profile = replace(DANE, my_addresses=("192.0.2.1",))
    dual = host(GOOD, preference=0)
    dual = replace(
        dual,
        addresses=replace(dual.addresses, addresses=("192.0.2.1", "192.0.2.2")),
        probes=(probe("192.0.2.1"), probe("192.0.2.2")),
    )
    evidence = replace(domain(dual), nexthop=NextHop(kind, "example.org"))
    evidence = replace(evidence, mx=MxEvidence(DnsOutcome.NODATA, True))
    assert answers(forecast(evidence, profile)) == ("5.4.6", "mail_loop")
    elsewhere = replace(evidence, nexthop=NextHop(kind, "example.org", 587))
    assert forecast(elsewhere, profile).status == "2.0.0"


def unresolved(outcome: DnsOutcome, preference: int = 10) -> HostEvidence:
    """A host of which there is no address."""
    error = "SERVFAIL" if outcome is DnsOutcome.ERROR else ""
    return HostEvidence(f"{outcome}.example.org", preference, AddressLookup(outcome, error=error))


ERROR, NODATA = DnsOutcome.ERROR, DnsOutcome.NODATA


@pytest.mark.parametrize(
    ("hosts", "status", "certain"),
    [
        ((unresolved(NODATA), unresolved(NODATA)), "5.4.4", True),
        ((unresolved(ERROR), unresolved(ERROR)), "4.4.3", True),
        ((unresolved(NODATA), unresolved(ERROR, 20)), "4.4.3", True),
        ((unresolved(ERROR), unresolved(NODATA, 20)), "4.4.4", True),
        ((unresolved(ERROR), unresolved(NODATA)), "4.4.3", False),
        ((unresolved(NODATA), unresolved(ERROR)), "4.4.3", False),
        ((unresolved(ERROR), unresolved(NODATA, 20), unresolved(ERROR, 20)), "4.4.3", False),
    ],
)
def test_the_host_that_is_looked_up_last_decides_how_a_failed_lookup_is_told(
    hosts: tuple[HostEvidence, ...], status: str, certain: bool
) -> None:
    result = forecast(domain(*hosts))
    assert result.status == status
    assert ("random order" not in result.text) is certain


@pytest.mark.parametrize(("error", "status"), [("A: SERVFAIL", "4.4.3"), ("", "5.4.4")])
def test_only_lookups_of_a_protocol_that_the_transport_speaks_count(
    error: str, status: str
) -> None:
    """The engine asks for both families where some other transport speaks both."""
    found = AddressLookup(DnsOutcome.FOUND, True, ("2001:db8::1",), "mx1.example.org", error=error)
    evidence = domain(replace(host(GOOD, seen=probe("2001:db8::1")), addresses=found))
    assert forecast(evidence).status == "2.0.0"
    assert forecast(evidence, replace(DANE, inet_protocols=("ipv4",))).status == status


def test_a_server_that_says_ehlo_by_the_mtas_own_name_is_a_loop() -> None:
    """The best one ends it; another one is passed over, and its failure counts like any."""
    profile = replace(DANE, myhostname="mta.example.net")
    own = replace(probe(), ehlo_name="MTA.example.net")
    lacking = probe("192.0.2.2", requiretls=False)
    looping = domain(host(GOOD, seen=own), host(GOOD, name="mx2.example.org", preference=20))
    assert answers(forecast(looping, profile)) == ("5.4.6", "mail_loop")
    assert answers(forecast(looping)) == OK, "a name that is not known is nobody's"
    elsewhere = replace(looping, nexthop=NextHop(HopKind.MX, "example.org", 587))
    assert answers(forecast(elsewhere, profile)) == OK
    behind = domain(
        host(GOOD, name="mx2.example.org", seen=lacking), host(GOOD, seen=own, preference=20)
    )
    assert answers(forecast(behind, profile)) == ("4.4.6", "mail_loop")
    last = host(GOOD, name="mx3.example.org", seen=replace(lacking, address="192.0.2.3"))
    between = domain(*behind.hosts, replace(last, preference=30))
    assert forecast(between, profile).status == "5.7.30"


def test_no_more_addresses_are_tried_than_the_limit_allows() -> None:
    failing = [
        host(BAD, name=f"mx{n}.example.org", preference=n, seen=probe(f"192.0.2.{n}"))
        for n in range(1, 6)
    ]
    last = host(GOOD, name="mx1.example.org", preference=9, seen=probe("192.0.2.99"))
    evidence = domain(*failing, last)
    assert forecast(evidence).status == "5.7.10"
    for limit in (6, 0):  # 0 is no limit
        assert forecast(evidence, replace(DANE, mx_address_limit=limit)).status == "2.0.0"


def test_ipv6_does_not_crowd_ipv4_out() -> None:
    addresses = (*(f"2001:db8::{n}" for n in range(1, 7)), "192.0.2.1")
    many = host(GOOD)
    many = replace(
        many,
        addresses=AddressLookup(DnsOutcome.FOUND, True, addresses, canonical=many.host),
        probes=(*(refused(address) for address in addresses[:-1]), probe("192.0.2.1")),
    )
    assert answers(forecast(domain(many))) == OK
    v6_only = replace(DANE, inet_protocols=("ipv6",))
    assert forecast(domain(many), v6_only).status == "4.4.1"


def test_an_address_that_was_not_probed_makes_the_forecast_unknown() -> None:
    unseen = ProbeEvidence("192.0.2.1")
    forbidden = ProbeEvidence("192.0.2.1", ProbeStage.CONNECT, ProbeFailure.FORBIDDEN)
    for seen in (unseen, forbidden):
        for profile in (DANE, RFC8689):
            result = forecast(domain(host(GOOD, seen=seen)), profile)
            assert (result.status, result.compliant) == ("unknown", None)


BEHIND = [MxRecord(50, f"behind{n}.example.org") for n in range(3)]


@pytest.mark.parametrize("profile", [DANE, RFC8689])
def test_unprobed_hosts_matter_only_if_the_mta_comes_to_them(
    profile: MtaProfile,
) -> None:
    def of(first: HostEvidence) -> str:
        evidence = domain(first)
        records = (*evidence.mx.records, *BEHIND)
        return forecast(replace(evidence, mx=replace(evidence.mx, records=records)), profile).status

    assert of(host(GOOD)) == "2.0.0"
    for first in (host(GOOD, seen=refused()), host(BAD), NO_ADDRESS):
        assert of(first) == "unknown"


NO_ADDRESS = HostEvidence("mx1.example.org", 10, AddressLookup(DnsOutcome.NXDOMAIN))


def test_unprobed_hosts_do_not_matter_behind_the_last_that_is_tried() -> None:
    evidence = domain(host(BAD))
    evidence = replace(evidence, mx=replace(evidence.mx, records=(*evidence.mx.records, *BEHIND)))
    assert forecast(evidence, replace(DANE, mx_address_limit=1)).status == "5.7.10"


def test_which_of_too_many_mx_records_postfix_keeps_nobody_can_say() -> None:
    """It may keep others than the best, and one that does not satisfy instead of one that does."""
    evidence = domain(host(GOOD))
    evidence = replace(evidence, mx=replace(evidence.mx, partial=True))
    result = forecast(evidence)
    assert answers(result) == ("unknown", "unknown")
    assert (result.mx, result.compliant) == ("", None)
    assert "more MX records" in result.text
    # A client that knows all of them tries the best first.
    assert forecast(evidence, RFC8689).status == "2.0.0"


def test_a_null_mx_among_too_many_records_may_never_be_seen() -> None:
    evidence = domain(host(GOOD))
    among = replace(evidence, mx=replace(evidence.mx, null_among=True))
    assert forecast(among).status == "5.1.0"
    assert forecast(replace(among, mx=replace(among.mx, partial=True))).status == "unknown"
    # nor is any host, where none of those that are kept can be one
    nobody = replace(evidence, mx=MxEvidence(DnsOutcome.FOUND, partial=True), hosts=())
    assert forecast(nobody).status == "unknown"


IPV6_FIRST = replace(DANE, address_preference=AddressPreference.IPV6)


def test_an_unseen_server_may_be_of_either_family() -> None:
    """It may come first among its equals, and take places that the limit leaves to others."""
    good6 = host(GOOD, seen=probe("2001:db8::1"))
    many = replace(good6, host="mx2.example.org", addresses=replace(good6.addresses, partial=True))
    for profile in (DANE, IPV6_FIRST, replace(DANE, mx_address_limit=0)):
        assert forecast(domain(good6, many), profile).status == "unknown"
    lacking = [probe(f"192.0.2.{number}", requiretls=False) for number in range(1, 6)]
    worse = replace(
        host(GOOD),
        addresses=AddressLookup(
            DnsOutcome.FOUND,
            True,
            tuple(seen.address for seen in lacking),
            canonical="mx1.example.org",
        ),
        probes=tuple(lacking),
    )
    for profile in (DANE, RFC8689):
        assert forecast(domain(worse), profile).status == "5.7.30"
        behind = domain(worse, replace(many, preference=20))
        assert forecast(behind, profile).status == "unknown"
    five = [f"192.0.2.{number}" for number in range(1, 6)]
    best = replace(
        host(GOOD),
        addresses=AddressLookup(DnsOutcome.FOUND, True, tuple(five), canonical="mx1.example.org"),
        probes=(*map(refused, five[:4]), probe(five[4])),
    )
    assert answers(forecast(domain(best))) == OK
    assert forecast(domain(best, replace(many, preference=20))).status == "unknown"


@pytest.mark.parametrize("profile", [DANE, RFC8689])
@pytest.mark.parametrize("what", ["addresses", "tlsa"])
def test_of_a_host_with_too_many_records_nobody_can_say_which_are_seen(
    profile: MtaProfile, what: str
) -> None:
    good = host(GOOD)
    many = replace(good, **{what: replace(getattr(good, what), partial=True)})
    assert answers(forecast(domain(many), profile)) == ("unknown", "unknown")
    better = host(GOOD, preference=1, name="mx1.example.org", seen=probe("192.0.2.7"))
    assert answers(forecast(domain(better, many), profile)) == OK


@pytest.mark.parametrize("profile", [DANE, RFC8689])
def test_a_chain_that_was_cut_proves_what_it_proves_and_disproves_nothing(
    profile: MtaProfile,
) -> None:
    cut = replace(probe(), chain_cut=True)
    assert answers(forecast(domain(host(GOOD, seen=cut)), profile)) == OK
    result = forecast(domain(host(BAD, seen=cut)), profile)
    assert answers(result) == ("unknown", "unknown")
    assert "more certificates than we keep" in result.text


def broken(
    stage: ProbeStage, failure: ProbeFailure = ProbeFailure.CLOSED, reply: Reply | None = None
) -> ProbeEvidence:
    """A session that ended at *stage*, with all that a probe has seen by then."""
    inside = stage is ProbeStage.EHLO_TLS
    return replace(
        probe(requiretls=None),
        stage=stage,
        failure=failure,
        reply=reply,
        starttls_offered=None if stage in (ProbeStage.BANNER, ProbeStage.EHLO) else True,
        tls_version="TLSv1.3" if inside else "",
        chain=certificate().chain if inside else (),
    )


def test_a_server_that_breaks_the_protocol_is_a_lost_connection() -> None:
    for stage in (ProbeStage.BANNER, ProbeStage.EHLO, ProbeStage.STARTTLS, ProbeStage.EHLO_TLS):
        seen = broken(stage, ProbeFailure.PROTOCOL)
        assert answers(forecast(domain(host(GOOD, seen=seen)))) == ("4.4.2", "unreachable")


def test_a_server_that_says_more_than_we_read_is_not_judged() -> None:
    """An MTA would read on; what it would find then is not known."""
    for stage in (ProbeStage.BANNER, ProbeStage.EHLO, ProbeStage.EHLO_TLS):
        evidence = domain(host(GOOD, seen=broken(stage, ProbeFailure.LIMIT)))
        for profile in (DANE, RFC8689):
            assert answers(forecast(evidence, profile)) == ("unknown", "unknown")


def test_the_certificate_is_looked_at_before_the_second_ehlo() -> None:
    """A server that nobody authenticated is not asked what it offers: 5.7.10, not 4.4.2."""
    evidence = domain(host(BAD, seen=broken(ProbeStage.EHLO_TLS)))
    for profile in (DANE, RFC8689):
        assert answers(forecast(evidence, profile)) == ("5.7.10", "certificate_not_verified")
    assert forecast(evidence, requirement=Requirement.NONE).status == "4.7.5"


def test_a_session_that_breaks_inside_tls_has_its_level_decided() -> None:
    seen = broken(ProbeStage.EHLO_TLS, ProbeFailure.REPLY, Reply(421, "4.3.2", "4.3.2 bye"))
    result = forecast(domain(host(GOOD, seen=seen)))
    assert (*answers(result), result.tls) == ("4.3.2", "server_rejects", "dane/requiretls?")
    seen = broken(ProbeStage.EHLO_TLS)
    result = forecast(domain(host(UNUSABLE, seen=seen)))
    assert (result.status, result.tls) == ("4.4.2", "dane:encrypt/requiretls?")


@pytest.mark.parametrize("stage", [ProbeStage.STARTTLS, ProbeStage.HANDSHAKE, ProbeStage.EHLO_TLS])
def test_an_mta_without_tls_never_comes_to_where_tls_breaks(stage: ProbeStage) -> None:
    none = MtaProfile(tls_security_level=TlsLevel.NONE)
    result = forecast(domain(host(seen=broken(stage))), none, Requirement.NONE)
    assert (*answers(result), result.tls) == (*OK, "none")


def test_a_greeting_that_is_no_reply_of_class_2_4_or_5_ends_the_delivery() -> None:
    seen = broken(ProbeStage.BANNER, ProbeFailure.REPLY, Reply(354, "", "go ahead"))
    hosts = (host(GOOD, seen=seen), host(GOOD, name="mx2.example.org", preference=20))
    assert answers(forecast(domain(*hosts))) == ("5.5.0", "server_rejects")


def test_tls_without_authentication_is_none_if_the_server_is_to_be_verified() -> None:
    weak = replace(probe(), only_opportunistic="dh key too small")
    dane = forecast(domain(host(GOOD, seen=weak)))
    assert answers(dane) == ("4.7.5", "tls_handshake_failed")
    assert dane.text.endswith("failed: dh key too small")
    assert answers(forecast(domain(host(GOOD, seen=weak)), RFC8689)) == (
        "5.7.10",
        "tls_handshake_failed",
    )
    # at level may it is as good as any, also without a certificate
    nobody = replace(weak, chain=())
    for seen in (weak, nobody):
        result = forecast(domain(host(seen=seen)), MAY, Requirement.NONE)
        assert (result.status, result.tls) == ("2.0.0", "may")


MAY = MtaProfile(tls_security_level=TlsLevel.MAY)


def test_old_tls_is_good_enough_where_no_tlsa_record_is_usable() -> None:
    """OpenSSL's security level is raised for the session's level, not for the planned one."""
    seen = replace(probe(), tls_version="TLSv1.1")
    result = forecast(domain(host(UNUSABLE, seen=seen)))
    assert (result.status, result.tls) == ("2.0.0", "dane:encrypt/requiretls:nocertmatch")
    assert forecast(domain(host(GOOD, seen=seen))).status == "4.7.5"
    # Anonymous suites are left out by the planned level, though.
    anonymous = replace(probe(), only_opportunistic="handshake failure", chain=())
    assert forecast(domain(host(UNUSABLE, seen=anonymous))).status == "4.7.5"


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([DnsOutcome.FOUND], "4.3.0"),
        ([DnsOutcome.FOUND, DnsOutcome.NODATA], "5.4.4"),
        ([DnsOutcome.FOUND, DnsOutcome.NXDOMAIN], "5.4.4"),
        ([DnsOutcome.FOUND, DnsOutcome.ERROR], "4.4.3"),
        ([DnsOutcome.ERROR, DnsOutcome.NODATA, DnsOutcome.FOUND], "4.4.4"),
        ([DnsOutcome.NODATA, DnsOutcome.ERROR, DnsOutcome.FOUND], "4.4.3"),
    ],
)
def test_where_mta_sts_passes_over_every_server_a_failed_address_lookup_remains(
    outcomes: list[DnsOutcome], status: str
) -> None:
    hosts = [
        replace(
            host(name=f"mx{number}.example.org", preference=number),
            addresses=AddressLookup(outcome, addresses=("192.0.2.1",) * (outcome == "found")),
        )
        for number, outcome in enumerate(outcomes, start=1)
    ]
    new = replace(DANE, mta_sts=MtaSts.MX_PATTERNS)
    result = forecast(domain(*hosts, sts=("elsewhere.example.org",)), new)
    assert (result.status, result.tls) == (status, "secure?/requiretls?")


# ---------------------------------------------------------------- compliance


def test_compliance_is_null_where_nothing_is_asked_or_nothing_is_delivered() -> None:
    assert forecast(domain(host(GOOD)), DANE, Requirement.NONE).compliant is None
    assert forecast(domain(host(BAD))).compliant is None


def test_an_mta_that_does_not_carry_the_requirement_is_judged_by_the_session_it_makes() -> None:
    evidence = domain(host(GOOD))
    dane = forecast(evidence, DANE, Requirement.REQUIRETLS, carried=Requirement.NONE)
    assert (answers(dane), dane.compliant) == (OK, True)
    may = MtaProfile(tls_security_level=TlsLevel.MAY)
    opportunistic = forecast(evidence, may, Requirement.REQUIRETLS, carried=Requirement.NONE)
    assert answers(opportunistic) == ("2.0.0", "noncompliant_unverified")


def test_an_mta_that_is_told_to_leave_requiretls_away_is_not_compliant() -> None:
    profile = replace(DANE, requiretls_policy=(("*", RequiretlsPolicy.DISABLE),))
    result = forecast(domain(host(GOOD)), profile)
    assert (answers(result), result.tls) == (("2.0.0", "noncompliant_not_carried"), "dane")


def test_the_forecast_says_what_the_letter_would_say_beside_it() -> None:
    result = forecast(domain(host(GOOD), secure=False))
    assert result.rfc8689 is not None
    assert (result.rfc8689.status, result.rfc8689.reason) == ("5.7.10", "mx_lookup_insecure")


def test_r44_a_forecast_is_valid_no_longer_than_its_shortest_lived_evidence() -> None:
    seen = replace(probe(), expires=NOW + 30)
    item = host(GOOD, seen=seen)
    item = replace(item, addresses=replace(item.addresses, expires=NOW + 300))
    evidence = domain(item)
    evidence = replace(evidence, mx=replace(evidence.mx, expires=NOW + 600))
    assert forecast(evidence).valid_until == NOW + 30


TLS_1_2 = replace(probe(), tls_version="TLSv1.2")
EPHEMERAL = replace(TLS_1_2, cipher="ECDHE-ECDSA-AES128-GCM-SHA256")
FINITE_FIELD = replace(TLS_1_2, cipher="DHE-RSA-AES256-GCM-SHA384")

WEAK_SESSIONS = [
    (replace(TLS_1_2, cipher="AES128-SHA"), "no forward secrecy: the cipher suite is AES128-SHA"),
    (replace(TLS_1_2, cipher="AES256-GCM-SHA384"), "no forward secrecy"),
    (replace(TLS_1_2, cipher=""), "no forward secrecy: the cipher suite is unknown"),
    (replace(TLS_1_2, cipher="ECDHE-RSA-RC4-SHA"), "ECDHE-RSA-RC4-SHA is broken"),
    (replace(FINITE_FIELD, small_group="dh key too small"), "dh key too small"),
]


@pytest.mark.parametrize(("seen", "why"), WEAK_SESSIONS)
def test_r64_a_session_weaker_than_rfc_9325_allows_is_delivered_and_not_compliant(
    seen: ProbeEvidence, why: str
) -> None:
    evidence = domain(host(GOOD, seen=seen))
    postfix = forecast(evidence, DANE)
    assert (answers(postfix), postfix.tls) == (
        ("2.0.0", "noncompliant_weak_tls"),
        "dane/requiretls",
    )
    assert postfix.compliant is False
    assert why in postfix.text
    strict = forecast(evidence, RFC8689)
    assert answers(strict) == ("5.7.10", "tls_handshake_failed")
    assert why in strict.text
    assert forecast(evidence, DANE, Requirement.NONE).compliant is None


@pytest.mark.parametrize("seen", [probe(), EPHEMERAL, FINITE_FIELD])
def test_r64_a_session_with_forward_secrecy_and_large_keys_is_compliant(
    seen: ProbeEvidence,
) -> None:
    for profile in (DANE, RFC8689):
        result = forecast(domain(host(GOOD, seen=seen)), profile)
        assert (answers(result), result.compliant) == (OK, True)


# ---------------------------------------------------------------- the choices


def test_choice_6_weak_tls_counts_only_where_the_operator_says_so() -> None:
    evidence = domain(host(GOOD, seen=WEAK_SESSIONS[0][0]))
    assert forecast(evidence, letter()).status == "5.7.10"
    assert answers(forecast(evidence, letter(weak_tls_counts=True))) == OK
    lenient = replace(DANE, reading=Reading(weak_tls_counts=True))
    assert forecast(evidence, lenient).compliant is True


def letter(**choices: bool) -> MtaProfile:
    return replace(RFC8689, reading=Reading(**choices))


def test_choice_1_a_testing_policy_counts_only_where_the_operator_says_so() -> None:
    evidence = domain(host(), secure=False, sts=("mx1.example.org",), mode=MtaStsMode.TESTING)
    assert forecast(evidence, letter()).status == "5.7.10"
    assert answers(forecast(evidence, letter(testing_policies_count=True))) == OK


def test_choice_2_pkix_beside_unusable_tlsa_counts_only_where_the_operator_says_so() -> None:
    evidence = domain(host(TlsaRecord(3, 1, 99, b"x")))
    assert forecast(evidence, letter()).status == "5.7.10"
    assert answers(forecast(evidence, letter(pkix_beside_unusable_tlsa=True))) == OK


def test_choice_3_tlsa_vouches_for_unsigned_mx_only_where_the_operator_says_so() -> None:
    evidence = domain(host(GOOD), secure=False)
    assert forecast(evidence, letter()).status == "5.7.10"
    lenient = letter(tlsa_vouches_for_unsigned_mx=True)
    assert answers(forecast(evidence, lenient)) == OK
    assert forecast(evidence, replace(DANE, reading=lenient.reading)).compliant is True


def test_choice_5_every_mx_must_satisfy_only_where_the_operator_says_so() -> None:
    without = host(
        GOOD, name="mx2.example.org", preference=20, seen=probe("192.0.2.2", requiretls=False)
    )
    evidence = domain(host(GOOD), without)
    assert answers(forecast(evidence, letter())) == OK
    assert forecast(evidence, letter(every_mx=True)).status == "5.7.30"
