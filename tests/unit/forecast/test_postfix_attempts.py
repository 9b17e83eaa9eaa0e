"""What Postfix would record of one server, and what is told beside it: server, reason, token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from requiretls_milter.model import (
    DnsOutcome,
    DomainEvidence,
    Forecast,
    HostEvidence,
    MtaProfile,
    MtaSts,
    MtaStsMode,
    Needs,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reply,
    Requirement,
    RequiretlsPolicy,
    TlsaRecord,
    TlsLevel,
)
from tests.support.build import BAD, DANE, certificate, clear, domain, forecast, host, probe

GOOD = certificate().tlsa()
UTF8, LARGE = Needs(smtputf8=True), Needs(size=5000)
UNUSABLE = TlsaRecord(3, 1, 99, bytes(32))
"""A matching type that Postfix takes and OpenSSL does not."""

PKIX_EE = TlsaRecord(1, 1, 1, bytes(32))
"""A certificate usage that SMTP does not know (RFC 7672 section 3.1.3)."""

HOST, SERVER = "mx1.example.org", "mx1.example.org[192.0.2.1]"
NONE, NO = Requirement.NONE, Requirement.TLS_REQUIRED_NO
LACKING = probe(requiretls=False)


def broken(stage: ProbeStage, failure: ProbeFailure, error: str = "") -> ProbeEvidence:
    return replace(probe(), stage=stage, failure=failure, error=error, requiretls=None)


def replied(stage: ProbeStage, code: int, enhanced: str = "", text: str = "") -> ProbeEvidence:
    seen = broken(stage, ProbeFailure.REPLY)
    return replace(seen, reply=Reply(code, enhanced, text))


def refuses_starttls(code: int, enhanced: str = "", text: str = "") -> ProbeEvidence:
    return replace(clear(), starttls_offered=True, starttls_reply=Reply(code, enhanced, text))


def level(chosen: TlsLevel, **more: Any) -> MtaProfile:
    return MtaProfile(tls_security_level=chosen, **more)


def acting(action: RequiretlsPolicy, chosen: TlsLevel = TlsLevel.DANE) -> MtaProfile:
    return level(chosen, requiretls_policy=(("*", action),))


def assert_told(result: Forecast, status: str, reason: str, tls: str | None) -> None:
    assert (result.status, result.reason.value, result.tls) == (status, reason, tls)
    assert isinstance(result.text, str)
    assert "None" not in result.text


# ---------------------------------------------------------------- REQUIRETLS under enforce


@pytest.mark.parametrize(
    ("seen", "status", "reason", "tls", "words"),
    [
        (host(GOOD), "2.0.0", "ok", "dane/requiretls", [SERVER, "verified", "dane"]),
        (
            host(GOOD, seen=LACKING),
            "5.7.30",
            "requiretls_not_offered",
            "dane/!requiretls:none",
            [SERVER, "REQUIRETLS"],
        ),
        (
            host(BAD),
            "5.7.10",
            "certificate_not_verified",
            "!dane/!requiretls:nocertmatch",
            [SERVER, "no TLSA record matches"],
        ),
        (
            host(BAD, seen=replace(probe(), chain_cut=True)),
            "unknown",
            "unknown",
            None,
            [SERVER, "no TLSA record matches"],
        ),
        (
            host(),
            "5.7.10",
            "tls_level_does_not_verify",
            "may?/!requiretls:nocertmatch",
            [HOST, "may"],
        ),
        (
            host(GOOD, seen=clear()),
            "5.7.30",
            "starttls_not_offered",
            "!dane/!requiretls:nostarttls",
            [SERVER, "STARTTLS"],
        ),
        (
            host(GOOD, seen=refuses_starttls(454, "4.7.1", "not today")),
            "5.7.10",
            "starttls_refused",
            "!dane/!requiretls:nostarttls",
            [SERVER, ": 454 not today"],
        ),
        (
            host(tlsa_outcome=DnsOutcome.ERROR),
            "4.7.5",
            "policy_lookup_failed",
            "unknown?/requiretls?",
            [HOST, "TLSA"],
        ),
        (
            host(GOOD, seen=broken(ProbeStage.HANDSHAKE, ProbeFailure.PROTOCOL, "bad mac")),
            "4.7.5",
            "tls_handshake_failed",
            "dane?/requiretls?",
            [SERVER, "bad mac"],
        ),
        (
            host(GOOD, seen=broken(ProbeStage.HANDSHAKE, ProbeFailure.CLOSED)),
            "4.7.5",
            "tls_handshake_failed",
            "dane?/requiretls?",
            [SERVER, "closed"],
        ),
        (
            host(GOOD, seen=replace(probe(), tls_version="TLSv1")),
            "4.7.5",
            "tls_handshake_failed",
            "dane?/requiretls?",
            [SERVER, "TLSv1"],
        ),
        (
            host(GOOD, seen=replace(probe(), only_opportunistic="no shared cipher")),
            "4.7.5",
            "tls_handshake_failed",
            "dane?/requiretls?",
            [SERVER, "no shared cipher"],
        ),
        (
            host(GOOD, seen=broken(ProbeStage.EHLO_TLS, ProbeFailure.TIMEOUT)),
            "4.4.2",
            "unreachable",
            "dane/requiretls?",
            [SERVER, "ehlo_tls", "timeout"],
        ),
        (
            host(UNUSABLE),
            "2.0.0",
            "noncompliant_unverified",
            "dane:encrypt/requiretls:nocertmatch",
            [SERVER, "unverified", "encrypt"],
        ),
    ],
)
def test_under_enforce_the_server_the_reason_and_the_token_are_told(
    seen: HostEvidence, status: str, reason: str, tls: str | None, words: list[str]
) -> None:
    result = forecast(domain(seen))
    assert_told(result, status, reason, tls)
    assert result.mx == HOST
    assert all(word in result.text for word in words), result.text


# ---------------------------------------------------------------- broken sessions


@pytest.mark.parametrize(
    ("seen", "status", "reason", "tls", "words"),
    [
        (ProbeEvidence("192.0.2.1"), "unknown", "unknown", "dane?/requiretls?", [SERVER]),
        (
            broken(ProbeStage.CONNECT, ProbeFailure.FORBIDDEN),
            "unknown",
            "unknown",
            "dane?/requiretls?",
            [SERVER, "probe.allow_networks"],
        ),
        (
            broken(ProbeStage.CONNECT, ProbeFailure.REFUSED),
            "4.4.1",
            "unreachable",
            "dane?/requiretls?",
            [SERVER, "refused"],
        ),
        (
            broken(ProbeStage.CONNECT, ProbeFailure.TIMEOUT, "after 30 s"),
            "4.4.1",
            "unreachable",
            "dane?/requiretls?",
            [SERVER, "after 30 s"],
        ),
        (
            broken(ProbeStage.BANNER, ProbeFailure.LIMIT, "2048 lines"),
            "unknown",
            "unknown",
            "dane?/requiretls?",
            [SERVER, "banner", "2048 lines"],
        ),
        (
            broken(ProbeStage.EHLO, ProbeFailure.CLOSED),
            "4.4.2",
            "unreachable",
            "dane?/requiretls?",
            [SERVER, "ehlo", "closed"],
        ),
        (
            broken(ProbeStage.STARTTLS, ProbeFailure.CLOSED),
            "4.4.2",
            "unreachable",
            "dane?/requiretls?",
            [SERVER, "starttls", "closed"],
        ),
        (
            replied(ProbeStage.BANNER, 421, "4.3.2", "too busy"),
            "4.3.2",
            "server_rejects",
            "dane?/requiretls?",
            [SERVER, "421", "too busy"],
        ),
        (
            replied(ProbeStage.BANNER, 554, "5.7.1", "go away"),
            "4.7.1",
            "server_rejects",
            "dane?/requiretls?",
            [SERVER, "554", "go away"],
        ),
        (
            replied(ProbeStage.EHLO, 554, "5.7.1", "go away"),
            "5.7.1",
            "server_rejects",
            "dane?/requiretls?",
            [SERVER, "554", "go away"],
        ),
        (
            replied(ProbeStage.EHLO, 599),
            "5.0.0",
            "server_rejects",
            "dane?/requiretls?",
            [SERVER, "599"],
        ),
        (
            replied(ProbeStage.EHLO, 600),
            "5.5.0",
            "server_rejects",
            "dane?/requiretls?",
            [SERVER, "600"],
        ),
        (
            replied(ProbeStage.EHLO, 399),
            "5.5.0",
            "server_rejects",
            "dane?/requiretls?",
            [SERVER, "399"],
        ),
        (
            replied(ProbeStage.EHLO, 400, "5.7.1"),
            "4.0.0",
            "server_rejects",
            "dane?/requiretls?",
            [SERVER, "400"],
        ),
        (
            replied(ProbeStage.EHLO, 500, "5.7"),
            "5.0.0",
            "server_rejects",
            "dane?/requiretls?",
            [SERVER, "500"],
        ),
    ],
)
def test_of_a_session_that_broke_the_server_the_stage_and_what_it_said_are_told(
    seen: ProbeEvidence, status: str, reason: str, tls: str, words: list[str]
) -> None:
    result = forecast(domain(host(GOOD, seen=seen)))
    assert result.mx == HOST
    assert_told(result, status, reason, tls)
    assert all(word in result.text for word in words), result.text


@pytest.mark.parametrize(
    ("first", "decides"),
    [
        (replied(ProbeStage.BANNER, 421), "2.0.0"),
        (replied(ProbeStage.BANNER, 554), "2.0.0"),
        (replied(ProbeStage.EHLO, 450), "2.0.0"),
        (replied(ProbeStage.EHLO, 550), "5.0.0"),
        (replied(ProbeStage.EHLO, 250), "5.5.0"),
        (broken(ProbeStage.EHLO, ProbeFailure.CLOSED), "2.0.0"),
        (ProbeEvidence("192.0.2.1"), "unknown"),
        (clear(), "2.0.0"),
        (LACKING, "2.0.0"),
    ],
)
def test_only_a_permanent_reply_after_the_greeting_ends_the_delivery(
    first: ProbeEvidence, decides: str
) -> None:
    second = host(GOOD, preference=20, seen=probe("192.0.2.2"))
    assert forecast(domain(host(GOOD, seen=first), second)).status == decides


@pytest.mark.parametrize(
    ("code", "enhanced", "status", "ends"),
    [
        (454, "4.7.9", "4.7.9", False),
        (454, "", "4.0.0", False),
        (554, "5.7.9", "5.7.9", True),
        (554, "4.7.9", "5.0.0", True),
        (354, "", "5.5.0", True),
    ],
)
def test_a_level_that_requires_tls_passes_on_how_starttls_was_refused(
    code: int, enhanced: str, status: str, ends: bool
) -> None:
    refused = host(seen=refuses_starttls(code, enhanced, "no"))
    encrypt = level(TlsLevel.ENCRYPT)
    result = forecast(domain(refused), encrypt, NONE)
    assert_told(result, status, "starttls_refused", "!encrypt")
    assert f": {code} no" in result.text
    other = host(name="mx2.example.org", preference=20, seen=probe("192.0.2.2"))
    behind = forecast(domain(refused, other), encrypt, NONE)
    assert behind.status == (status if ends else "2.0.0")


# ---------------------------------------------------------------- levels, for ordinary mail


@pytest.mark.parametrize(
    ("profile", "seen", "status", "reason", "tls"),
    [
        (level(TlsLevel.NONE), host(), "2.0.0", "ok", "none"),
        (level(TlsLevel.NONE), host(seen=clear()), "2.0.0", "ok", "none"),
        (level(TlsLevel.MAY), host(), "2.0.0", "ok", "may"),
        (level(TlsLevel.MAY), host(seen=clear()), "2.0.0", "ok", "may:none"),
        (level(TlsLevel.MAY), host(seen=refuses_starttls(454)), "2.0.0", "ok", "may:none"),
        (level(TlsLevel.ENCRYPT), host(), "2.0.0", "ok", "encrypt"),
        (level(TlsLevel.ENCRYPT), host(seen=clear()), "4.7.4", "starttls_not_offered", "!encrypt"),
        (level(TlsLevel.DANE), host(), "2.0.0", "ok", "may"),
        (level(TlsLevel.DANE), host(GOOD), "2.0.0", "ok", "dane"),
        (level(TlsLevel.DANE), host(BAD), "4.7.5", "certificate_not_verified", "!dane"),
        (level(TlsLevel.DANE), host(UNUSABLE), "2.0.0", "ok", "dane:encrypt"),
        (level(TlsLevel.DANE_ONLY), host(GOOD), "2.0.0", "ok", "dane-only"),
        (level(TlsLevel.DANE_ONLY), host(), "4.7.5", "no_tlsa_records", "unknown?"),
        (
            level(TlsLevel.DANE_ONLY),
            host(UNUSABLE),
            "4.7.5",
            "certificate_not_verified",
            "!dane-only",
        ),
        (level(TlsLevel.VERIFY), host(), "2.0.0", "ok", "verify"),
        (level(TlsLevel.SECURE), host(), "2.0.0", "ok", "secure"),
    ],
)
def test_ordinary_mail_goes_by_the_level_alone(
    profile: MtaProfile, seen: HostEvidence, status: str, reason: str, tls: str
) -> None:
    result = forecast(domain(seen), profile, NONE)
    assert_told(result, status, reason, tls)
    assert result.compliant is None


@pytest.mark.parametrize(
    ("name", "chosen", "status"),
    [
        ("mx1.example.org", TlsLevel.VERIFY, "2.0.0"),
        ("example.org", TlsLevel.VERIFY, "4.7.5"),
        ("example.org", TlsLevel.SECURE, "2.0.0"),
        ("mx1.example.org", TlsLevel.SECURE, "2.0.0"),
        ("mx1.example.net", TlsLevel.SECURE, "4.7.5"),
    ],
)
def test_verify_wants_the_hosts_name_and_secure_the_domain_or_a_name_below_it(
    name: str, chosen: TlsLevel, status: str
) -> None:
    seen = host(seen=probe(presented=certificate(name)))
    assert forecast(domain(seen), level(chosen), NONE).status == status


@pytest.mark.parametrize(
    ("evidence", "reason", "said"),
    [
        (domain(host(GOOD), secure=False), "mx_unsigned", "the MX records are not signed"),
        (domain(host()), "no_tlsa_records", f"{HOST} has no TLSA records"),
        (domain(host(PKIX_EE)), "no_tlsa_records", f"no TLSA record of {HOST} is usable"),
        (
            domain(host(secure=False)),
            "no_tlsa_records",
            f"the addresses of {HOST} are not signed, so TLSA records do not count",
        ),
    ],
)
def test_dane_only_says_what_is_missing_for_dane(
    evidence: DomainEvidence, reason: str, said: str
) -> None:
    result = forecast(evidence, level(TlsLevel.DANE_ONLY))
    assert_told(result, "4.7.5", reason, "unknown?/requiretls?")
    assert result.text == f"{said}, which level dane-only demands"


@pytest.mark.parametrize(
    ("evidence", "fallen", "said"),
    [
        (domain(host()), "may", f"{HOST} has no TLSA records"),
        (domain(host(PKIX_EE)), "encrypt", f"no TLSA record of {HOST} is usable"),
        (
            domain(host(secure=False)),
            "may",
            f"the addresses of {HOST} are not signed, so TLSA records do not count",
        ),
    ],
)
def test_a_level_that_falls_says_from_where_to_where_and_why(
    evidence: DomainEvidence, fallen: str, said: str
) -> None:
    result = forecast(evidence, DANE)
    token = f"{fallen}?/!requiretls:nocertmatch"
    assert_told(result, "5.7.10", "tls_level_does_not_verify", token)
    assert result.text == (
        f"{said}, so level dane falls to {fallen}, which does not verify certificates"
    )


# ---------------------------------------------------------------- unsigned MX records


@pytest.mark.parametrize(
    ("insecure", "status", "tls"),
    [
        (TlsLevel.DANE, "2.0.0", "halfdane/requiretls"),
        (TlsLevel.ENCRYPT, "5.7.10", "encrypt?/!requiretls:nocertmatch"),
        (TlsLevel.MAY, "5.7.10", "may?/!requiretls:nocertmatch"),
        (TlsLevel.NONE, "5.7.10", "may?/!requiretls:nocertmatch"),
    ],
)
def test_r23_what_unsigned_mx_records_leave_of_dane_is_configured(
    insecure: TlsLevel, status: str, tls: str
) -> None:
    evidence = domain(host(GOOD), secure=False)
    result = forecast(evidence, level(TlsLevel.DANE, insecure_mx_policy=insecure))
    assert (result.status, result.tls) == (status, tls)
    ordinary = forecast(evidence, level(TlsLevel.DANE, insecure_mx_policy=insecure), NONE)
    assert (ordinary.status, ordinary.tls) == ("2.0.0", tls.partition("/")[0].rstrip("?"))


# ---------------------------------------------------------------- smtp_requiretls_policy


@pytest.mark.parametrize(
    ("action", "chosen", "seen", "status", "tls"),
    [
        (RequiretlsPolicy.INVALID, TlsLevel.DANE, host(GOOD), "4.7.10", "dane?"),
        (
            RequiretlsPolicy.OPPORTUNISTIC_STARTTLS,
            TlsLevel.NONE,
            host(),
            "5.7.10",
            "none?/!requiretls:noencryption",
        ),
        (
            RequiretlsPolicy.OPPORTUNISTIC_STARTTLS,
            TlsLevel.MAY,
            host(seen=clear()),
            "5.7.30",
            "may?/!requiretls:nostarttls",
        ),
        (
            RequiretlsPolicy.OPPORTUNISTIC_STARTTLS,
            TlsLevel.MAY,
            host(seen=refuses_starttls(454)),
            "5.7.10",
            "may?/!requiretls:nostarttls",
        ),
        (
            RequiretlsPolicy.OPPORTUNISTIC_STARTTLS,
            TlsLevel.MAY,
            host(),
            "2.0.0",
            "may/requiretls:nocertmatch",
        ),
        (
            RequiretlsPolicy.OPPORTUNISTIC_STARTTLS,
            TlsLevel.MAY,
            host(seen=LACKING),
            "2.0.0",
            "may/requiretls:none",
        ),
        (
            RequiretlsPolicy.OPPORTUNISTIC,
            TlsLevel.MAY,
            host(seen=clear()),
            "2.0.0",
            "may:none/requiretls:none",
        ),
        (RequiretlsPolicy.OPPORTUNISTIC, TlsLevel.NONE, host(), "2.0.0", "none/requiretls:none"),
        (
            RequiretlsPolicy.OPPORTUNISTIC,
            TlsLevel.ENCRYPT,
            host(seen=clear()),
            "4.7.4",
            "!encrypt/requiretls?",
        ),
        (
            RequiretlsPolicy.OPPORTUNISTIC,
            TlsLevel.DANE,
            host(BAD),
            "4.7.5",
            "!dane/requiretls:nocertmatch",
        ),
        (RequiretlsPolicy.DISABLE, TlsLevel.DANE, host(GOOD), "2.0.0", "dane"),
        (RequiretlsPolicy.DISABLE, TlsLevel.MAY, host(seen=clear()), "2.0.0", "may:none"),
    ],
)
def test_each_action_of_the_requiretls_policy_has_its_status_and_token(
    action: RequiretlsPolicy, chosen: TlsLevel, seen: HostEvidence, status: str, tls: str
) -> None:
    result = forecast(domain(seen), acting(action, chosen))
    assert (result.status, result.tls, result.mx) == (status, tls, HOST)
    assert isinstance(result.text, str)
    assert result.text
    assert "None" not in result.text


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (RequiretlsPolicy.INVALID, "mta_policy_invalid"),
        (RequiretlsPolicy.OPPORTUNISTIC_STARTTLS, "tls_level_does_not_verify"),
        (RequiretlsPolicy.ENFORCE, "tls_level_does_not_verify"),
    ],
)
def test_a_policy_that_forbids_the_delivery_is_the_reason(
    action: RequiretlsPolicy, reason: str
) -> None:
    result = forecast(domain(host()), acting(action, TlsLevel.NONE))
    assert result.reason.value == reason
    assert result.text


@pytest.mark.parametrize(
    ("action", "compliance"),
    [
        (RequiretlsPolicy.ENFORCE, "ok"),
        (RequiretlsPolicy.OPPORTUNISTIC, "ok"),
        (RequiretlsPolicy.OPPORTUNISTIC_STARTTLS, "ok"),
        (RequiretlsPolicy.DISABLE, "noncompliant_not_carried"),
    ],
)
def test_requiretls_is_sent_on_where_the_policy_takes_part(
    action: RequiretlsPolicy, compliance: str
) -> None:
    result = forecast(domain(host(GOOD)), acting(action))
    assert (result.reason.value, result.compliant) == (compliance, compliance == "ok")


# ---------------------------------------------------------------- MTA-STS


@pytest.mark.parametrize("mta_sts", [MtaSts.MATCH, MtaSts.MX_PATTERNS])
def test_a_policy_in_force_takes_the_place_of_the_level_dane_included(mta_sts: MtaSts) -> None:
    profile = replace(DANE, mta_sts=mta_sts)
    evidence = domain(host(BAD), sts=("mx1.example.org",))
    result = forecast(evidence, profile)
    assert (result.status, result.tls) == ("2.0.0", "secure/requiretls")
    testing = replace(evidence, mta_sts=domain(sts=("*",), mode=MtaStsMode.TESTING).mta_sts)
    assert forecast(testing, profile).status == "5.7.10"
    assert forecast(evidence, DANE).status == "5.7.10"


@pytest.mark.parametrize(
    ("patterns", "name", "matches"),
    [
        (("mx1.example.org",), "mx1.example.org", True),
        (("*.example.org",), "mx1.example.org", True),
        (("*.example.net", "*.example.org"), "mx1.example.org", True),
        (("*.example.net",), "mx1.example.net", True),
        (("example.org",), "mx1.example.org", False),
        (("mx1.example.org",), "mx2.example.org", False),
    ],
)
def test_old_style_mta_sts_wants_a_certificate_for_any_of_the_patterns(
    patterns: tuple[str, ...], name: str, matches: bool
) -> None:
    seen = host(seen=probe(presented=certificate(name)))
    profile = level(TlsLevel.MAY, mta_sts=MtaSts.MATCH)
    result = forecast(domain(seen, sts=patterns), profile, NONE)
    assert (result.status, result.tls) == (("2.0.0", "secure") if matches else ("4.7.5", "!secure"))


def test_new_style_mta_sts_passes_over_a_server_that_the_policy_does_not_name() -> None:
    profile = level(TlsLevel.MAY, mta_sts=MtaSts.MX_PATTERNS)
    other = host(name="mx9.example.org", preference=5, seen=probe("192.0.2.9"))
    evidence = domain(other, host(), sts=("mx1.example.org",))
    assert forecast(evidence, profile, NONE).mx == HOST
    alone = forecast(domain(other, sts=("mx1.example.org",)), profile, NONE)
    assert_told(alone, "4.3.0", "mx_not_in_mta_sts_policy", "secure?")
    assert alone.text
    asking = forecast(domain(other, sts=("mx1.example.org",)), profile)
    assert asking.tls == "secure?/requiretls?"
    assert forecast(domain(other, sts=("mx1.example.org",)), profile, NO).status == "2.0.0"


# ---------------------------------------------------------------- TLS-Required: No


@pytest.mark.parametrize(
    ("configured", "tls"),
    [
        (TlsLevel.NONE, "none"),
        (TlsLevel.MAY, "may"),
        (TlsLevel.ENCRYPT, "may"),
        (TlsLevel.DANE, "may"),
        (TlsLevel.DANE_ONLY, "may"),
        (TlsLevel.VERIFY, "may"),
        (TlsLevel.SECURE, "may"),
    ],
)
def test_r13_tls_required_no_lowers_every_level_to_may_and_raises_none(
    configured: TlsLevel, tls: str
) -> None:
    for evidence in (domain(host(BAD)), domain(host(tlsa_outcome=DnsOutcome.ERROR))):
        result = forecast(evidence, level(configured), NO)
        assert (result.status, result.tls) == ("2.0.0", tls)


# ---------------------------------------------------------------- what the message needs


def offering(
    in_clear: bool | None = True, inside: bool | None = True, seen: ProbeEvidence | None = None
) -> ProbeEvidence:
    """A session in which SMTPUTF8 is offered before TLS, inside TLS, or not."""
    return replace(seen or probe(), smtputf8_in_clear=in_clear, smtputf8=inside)


@pytest.mark.parametrize(
    ("seen", "token"),
    [
        (offering(in_clear=False, inside=False), "dane?/requiretls?"),
        (offering(in_clear=False), "dane?/requiretls?"),
        (offering(inside=False), "dane/requiretls?"),
        # The reply in clear comes before all that follows STARTTLS, the other before REQUIRETLS.
        (offering(in_clear=False, seen=clear()), "dane?/requiretls?"),
        (offering(in_clear=False, seen=refuses_starttls(454)), "dane?/requiretls?"),
        (offering(inside=False, seen=LACKING), "dane/requiretls?"),
    ],
)
def test_a_server_without_smtputf8_in_either_ehlo_reply_fails_a_message_that_needs_it(
    seen: ProbeEvidence, token: str
) -> None:
    evidence = domain(host(GOOD, seen=seen))
    assert_told(forecast(evidence, needs=UTF8), "5.6.7", "smtputf8_not_offered", token)
    assert "does not offer SMTPUTF8" in forecast(evidence, needs=UTF8).text
    assert forecast(evidence, needs=LARGE).status != "5.6.7"
    assert forecast(evidence).status != "5.6.7"


@pytest.mark.parametrize(
    ("requirement", "token"), [(NONE, "dane?"), (NO, "may?")], ids=["ordinary", "optional"]
)
def test_ordinary_mail_needs_smtputf8_just_as_well(requirement: Requirement, token: str) -> None:
    evidence = domain(host(GOOD, seen=offering(in_clear=False)))
    told = forecast(evidence, DANE, requirement, needs=UTF8)
    assert_told(told, "5.6.7", "smtputf8_not_offered", token)
    assert told.compliant is None


def test_postfix_looks_for_a_server_that_offers_smtputf8_and_the_last_failure_decides() -> None:
    without = host(GOOD, seen=offering(in_clear=False), name="mx0.example.org", preference=5)
    good = host(GOOD, seen=offering())
    lacking = host(GOOD, seen=offering(seen=LACKING), preference=20)
    assert forecast(domain(without, good), needs=UTF8).status == "2.0.0"
    assert forecast(domain(without, lacking), needs=UTF8).status == "5.7.30"
    first = host(GOOD, seen=offering(seen=LACKING), name="mx0.example.org", preference=1)
    assert forecast(domain(first, without), needs=UTF8).status == "5.6.7"


def test_a_refused_session_and_a_loop_come_before_what_ehlo_offers() -> None:
    refused = replied(ProbeStage.EHLO, 421, "4.3.2")
    assert forecast(domain(host(GOOD, seen=refused)), needs=UTF8).status == "4.3.2"
    own = offering(in_clear=False, seen=replace(probe(), ehlo_name="mta.example.net"))
    mta = replace(DANE, myhostname="mta.example.net")
    assert forecast(domain(host(GOOD, seen=own)), mta, needs=UTF8).status == "5.4.6"


@pytest.mark.parametrize("seen", [offering(in_clear=None), offering(inside=None)])
def test_a_session_that_did_not_note_smtputf8_leaves_it_unknown(seen: ProbeEvidence) -> None:
    """As those that a former version stored."""
    assert forecast(domain(host(GOOD, seen=seen)), needs=UTF8).status == "unknown"
    assert forecast(domain(host(GOOD, seen=seen))).status == "2.0.0"


@pytest.mark.parametrize(("limit", "fits"), [(0, True), (4999, False), (5000, True), (10**7, True)])
def test_a_message_larger_than_the_server_takes_fails_before_mail(limit: int, fits: bool) -> None:
    for seen, profile, token in (
        (probe(), DANE, "dane/requiretls"),
        (clear(), acting(RequiretlsPolicy.OPPORTUNISTIC, TlsLevel.MAY), "may:none/requiretls:none"),
    ):
        evidence = domain(host(GOOD, seen=replace(seen, size_limit=limit)))
        told = forecast(evidence, profile, needs=LARGE)
        if fits:
            assert (told.status, told.tls) == ("2.0.0", token)
        else:
            assert_told(told, "5.3.4", "message_too_large", token)
            assert told.compliant is None
        assert forecast(evidence, profile).status == "2.0.0", "no size is declared"


def test_the_size_is_found_out_last_and_ends_the_delivery() -> None:
    small = replace(probe(), size_limit=1000)
    lacking = host(GOOD, seen=replace(LACKING, size_limit=1000))
    assert forecast(domain(lacking), needs=LARGE).status == "5.7.30"
    good = host(GOOD, name="mx2.example.org", preference=20)
    assert forecast(domain(host(GOOD, seen=small), good), needs=LARGE).status == "5.3.4"
    behind = host(GOOD, name="mx2.example.org", preference=20, seen=small)
    assert forecast(domain(host(GOOD), behind), needs=LARGE).status == "2.0.0"


@pytest.mark.parametrize(
    ("limits", "size", "largest"),
    [
        ((0, 0), 5000, None),
        ((10_000, 0), 5000, 10_000),
        ((10_000, 20_000), 0, 10_000),
        ((10_000, 5000), 5000, 5000),
        ((4000, 10_000), 5000, 0),
    ],
)
def test_a_forecast_says_up_to_which_size_it_holds(
    limits: tuple[int, int], size: int, largest: int | None
) -> None:
    hosts = [host(GOOD, seen=replace(probe(), size_limit=limit)) for limit in limits]
    evidence = domain(*hosts)
    told = forecast(evidence, needs=Needs(size=size))
    assert told.largest == largest
    if largest:
        same = forecast(evidence, needs=Needs(size=largest))
        assert (same.status, same.reason, same.tls) == (told.status, told.reason, told.tls)
