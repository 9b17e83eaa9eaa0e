"""Which certificates prove a server: by what, for how long, and what is said where none does."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.forecast.authentication import authenticate
from requiretls_milter.forecast.judge import judge
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.forecast.reach import candidates
from requiretls_milter.model import (
    DomainEvidence,
    Forecast,
    MtaProfile,
    Reason,
    Requirement,
    TlsaRecord,
    TlsLevel,
)
from tests.support.build import BAD, DANE, NOW, RFC8689, certificate, domain, host, probe, trust
from tests.support.chains import ED25519 as ED
from tests.support.chains import RSA, RSA_1024, VALIDITIES, WEAK, Make, issue, spki

HOST = "mx1.example.org"
GOOD = certificate().tlsa()
LEAF = Make(HOST, 1, (HOST,), ca=False, use="server")
MIDDLE = Make("Middle", 2, ca=True)
ROOT = Make("Root", 3, ca=True)
BEGIN, END = (moment.timestamp() for moment in VALIDITIES["now"])
PAST_END = VALIDITIES["past"][1].timestamp()
FUTURE_BEGIN = VALIDITIES["future"][0].timestamp()


def trusted(*ders: bytes) -> TrustStore:
    """A store with just these authorities."""
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        certificates = [x509.load_der_x509_certificate(der) for der in ders]
        pem = b"".join(found.public_bytes(Encoding.PEM) for found in certificates)
        Path(file.name).write_bytes(pem)
        return load_trust_store(file.name)


def judged(
    chain: Sequence[bytes],
    *records: TlsaRecord,
    now: float = NOW,
    store: TrustStore | None = None,
    name: str = HOST,
    secure: bool = True,
    profile: MtaProfile = RFC8689,
) -> Forecast:
    """By the letter, of a server that presents *chain*; ROOT is trusted if nothing else is."""
    store = store or trusted(issue(ROOT, None))
    seen = replace(probe(), chain=tuple(chain))
    evidence: DomainEvidence = domain(host(*records, name=name, seen=seen), secure=secure)
    asked = Requirement.REQUIRETLS
    return judge(evidence, asked=asked, carried=asked, profile=profile, trust=store, now=now)


def proves(chain: Sequence[bytes], *records: TlsaRecord, now: float = NOW) -> bool:
    return judged(chain, *records, now=now).status == "2.0.0"


def says(result: Forecast, words: str) -> bool:
    return result.status == "5.7.10" and words in result.text


def record(der_or_key: bytes, usage: int, selector: int) -> TlsaRecord:
    return TlsaRecord(usage, selector, 0, der_or_key)


# ---------------------------------------------------------------- for how long


@pytest.mark.parametrize(
    ("now", "holds", "words"),
    [
        (BEGIN - 1, False, "not yet valid"),
        (BEGIN, True, ""),
        (END, True, ""),
        (END + 1, False, "expired"),
    ],
)
def test_a_certificate_is_valid_from_its_first_second_to_its_last(
    now: float, holds: bool, words: str
) -> None:
    leaf, root = issue(LEAF, ROOT), issue(ROOT, None)
    for records in ((), (record(root, 2, 0),)):
        result = judged((leaf, root), *records, now=now)
        assert (result.status == "2.0.0") is holds
        assert holds or says(result, words)


@pytest.mark.parametrize(
    ("valid", "now", "holds", "words"),
    [
        ("past", PAST_END, True, ""),
        ("past", PAST_END + 1, False, "expired"),
        ("future", FUTURE_BEGIN, True, ""),
        ("future", FUTURE_BEGIN - 1, False, "not yet valid"),
    ],
)
def test_a_path_is_valid_while_all_its_certificates_are(
    valid: str, now: float, holds: bool, words: str
) -> None:
    middle = Make("Middle", 2, ca=True, valid=valid)
    chain = (issue(LEAF, middle), issue(middle, ROOT), issue(ROOT, None))
    for records in ((), (record(chain[2], 2, 0),)):
        result = judged(chain, *records, now=now)
        assert (result.status == "2.0.0") is holds
        assert holds or says(result, words)


@pytest.mark.parametrize("valid", ["now", "past", "future"])
def test_r37_dane_ee_has_no_dates(valid: str) -> None:
    leaf = issue(Make(HOST, 1, (), valid=valid), None)
    assert proves((leaf,), record(leaf, 3, 0))


def test_a_trusted_authority_that_was_renewed_is_valid_by_the_one_that_is() -> None:
    """Whichever of the two is loaded first, and at the last second of the former one too."""
    former = Make("Root", 3, ca=True, valid="past")
    leaf = issue(LEAF, ROOT)
    for ders in (
        (issue(former, None), issue(ROOT, None)),
        (issue(ROOT, None), issue(former, None)),
    ):
        for now in (BEGIN, PAST_END, PAST_END + 1, NOW, END):
            assert judged((leaf,), now=now, store=trusted(*ders)).status == "2.0.0"
        assert says(judged((leaf,), now=END + 1, store=trusted(*ders)), "expired")


@pytest.mark.parametrize("now", [BEGIN, PAST_END, FUTURE_BEGIN, END])
def test_of_issuers_that_were_renewed_the_valid_one_counts_up_to_its_last_second(
    now: float,
) -> None:
    former = Make("Middle", 2, ca=True, valid="past")
    coming = Make("Middle", 2, ca=True, valid="future")
    leaf, root = issue(LEAF, MIDDLE), issue(ROOT, None)
    alone = {"past": BEGIN <= now <= PAST_END, "future": FUTURE_BEGIN <= now <= END}
    for other in (former, coming):
        sent = (leaf, issue(other, ROOT), root)
        assert proves(sent, record(root, 2, 0), now=now) is alone[other.valid]
        both = (leaf, issue(other, ROOT), issue(MIDDLE, ROOT), root)
        assert proves(both, record(root, 2, 0), now=now)
        assert proves((both[0], both[2], both[1], both[3]), record(root, 2, 0), now=now)


# ---------------------------------------------------------------- by what


@pytest.mark.parametrize("usage", [2, 3])
@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
def test_every_usable_form_of_a_record_proves_what_it_matches_and_nothing_else(
    usage: int, selector: int, matching: int
) -> None:
    shown = certificate()
    right = shown.tlsa(usage, selector, matching)
    assert proves(shown.chain, right)
    other = certificate("mx2.example.org", "selfsigned").tlsa(3, selector, matching)
    assert not proves(shown.chain, replace(other, usage=usage))


@pytest.mark.parametrize("usage", [2, 3])
def test_r41_the_stronger_digest_decides_within_its_usage_and_selector_alone(usage: int) -> None:
    shown = certificate()
    wrong = TlsaRecord(usage, 1, 2, bytes(64))
    for order in (1, -1):
        records = [shown.tlsa(usage, 1, 1), wrong][::order]
        assert not proves(shown.chain, *records), "SHA-512 goes before SHA-256"
        records = [shown.tlsa(usage, 1, 2), replace(wrong, matching_type=1, data=bytes(32))]
        assert proves(shown.chain, *records[::order])
        records = [shown.tlsa(usage, 0, 1), wrong][::order]
        assert proves(shown.chain, *records), "another selector"
        records = [shown.tlsa(5 - usage, 1, 1), wrong][::order]
        assert proves(shown.chain, *records), "another usage"
        records = [shown.tlsa(usage, 1, 0), wrong][::order]
        assert proves(shown.chain, *records), "no digest at all is as strong as any"


@pytest.mark.parametrize("number", [2, RSA, ED])
def test_r38_a_key_of_any_algorithm_alone_anchors_what_it_has_signed(number: int) -> None:
    issuer = Make("Issuer", number, ca=True)
    leaf = issue(LEAF, issuer)
    assert proves((leaf,), record(spki(number), 2, 1))
    assert not proves((issue(LEAF, issuer, True),), record(spki(number), 2, 1)), "forged"
    assert not proves((leaf,), record(spki(5), 2, 1)), "another key"


def test_r38_a_key_alone_anchors_the_last_issuer_that_was_sent_in_any_order() -> None:
    above = Make("Above", 4, ca=True)
    sent = (issue(LEAF, MIDDLE), issue(MIDDLE, above), issue(above, ROOT))
    stranger = issue(Make("Stranger", 50, ca=True), None)
    for chain in (sent, (sent[0], sent[2], stranger, sent[1])):
        assert proves(chain, record(spki(3), 2, 1))
        assert not proves(chain, record(spki(5), 2, 1)), "another key"


def test_r38_a_key_alone_leaves_the_dates_of_what_it_has_signed_as_they_are() -> None:
    leaf = issue(LEAF, MIDDLE)
    assert proves((leaf,), record(spki(2), 2, 1), now=END)
    assert says(judged((leaf,), record(spki(2), 2, 1), now=END + 1), "expired")


def test_r40_a_record_about_a_stranger_does_not_stand_in_the_way_of_the_one_that_anchors() -> None:
    leaf, root = issue(LEAF, ROOT), issue(ROOT, None)
    stranger = issue(Make("Stranger", 50, ca=True), None)
    records = (record(stranger, 2, 0), record(root, 2, 0))
    for order in (records, records[::-1]):
        assert proves((leaf, stranger, root), *order)
        assert proves((leaf, root, stranger), *order)
    assert not proves((leaf, stranger, root), records[0])


def test_a_chain_that_ends_nowhere_is_not_trusted_and_openssl_says_why() -> None:
    leaf, middle = issue(LEAF, MIDDLE), issue(MIDDLE, ROOT)
    assert says(judged((leaf,)), "unable to get local issuer certificate")
    assert proves((leaf, middle))
    assert says(judged((issue(LEAF, None),)), "self-signed certificate")


@pytest.mark.parametrize("between", [9, 10, 11])
def test_no_more_than_ten_issuers_stand_between_a_server_and_its_authority(between: int) -> None:
    """smtp_tls_scert_verifydepth + 1."""
    makes = [Make(f"Issuer {n}", 60 + n, ca=True) for n in range(between)]
    above = [*makes[1:], ROOT]
    chain = [issue(LEAF, makes[0]), *(issue(m, a) for m, a in zip(makes, above, strict=True))]
    for records in ((), (record(issue(ROOT, None), 2, 0),)):
        assert proves([*chain, issue(ROOT, None)], *records) is (between <= 10)


def test_a_server_that_presents_nothing_proves_nothing() -> None:
    for records in ((), (certificate().tlsa(),), (certificate().tlsa(2, 0, 1),)):
        assert says(judged((), *records), "no certificate")


@pytest.mark.parametrize(
    "chain",
    [
        (b"",),
        (b"no certificate",),
        (issue(LEAF, ROOT)[:-1],),
        (issue(LEAF, MIDDLE), b"no certificate", issue(MIDDLE, ROOT)),
    ],
    ids=["empty", "text", "cut", "issuer"],
)
def test_what_cannot_be_read_proves_nothing_and_is_said_to_be_unreadable(
    chain: tuple[bytes, ...],
) -> None:
    assert says(judged(chain), "unreadable certificate")
    anchor = record(issue(ROOT, None), 2, 0)
    assert says(judged(chain, anchor), "unreadable certificate")
    digest = TlsaRecord(2, 1, 1, bytes(32))
    assert says(judged(chain, digest), "no TLSA record matches")
    assert says(judged(chain, TlsaRecord(3, 1, 1, bytes(32))), "no TLSA record matches")


def test_a_certificate_that_is_cut_short_has_no_key_to_match() -> None:
    leaf = issue(LEAF, ROOT)
    for length in (0, 1, 2, 3, 4, 40, len(leaf) - 1):
        for usage in (2, 3):
            result = judged((leaf[:length],), record(spki(1), usage, 1))
            assert says(result, "no TLSA record matches"), length
    assert proves((leaf,), record(spki(1), 3, 1))


def test_what_cannot_be_read_anchors_nothing_though_a_record_matches_it() -> None:
    garbage = b"no certificate"
    chain = (issue(LEAF, ROOT), garbage)
    matches = TlsaRecord(2, 0, 1, hashlib.sha256(garbage).digest())
    assert says(judged(chain, matches), "unreadable certificate")


def test_beside_an_issuer_that_cannot_be_read_a_matching_record_proves_the_server() -> None:
    leaf, middle, root = issue(LEAF, MIDDLE), issue(MIDDLE, ROOT), issue(ROOT, None)
    chain = (leaf, b"no certificate", middle)
    assert proves(chain, record(leaf, 3, 0))
    assert proves((leaf, middle, root), record(middle, 2, 0))


@pytest.mark.parametrize(
    ("use", "good"),
    [("server", True), ("both", True), ("", True), ("client", False), ("any", False)],
)
def test_every_certificate_of_a_path_must_allow_servers(use: str, good: bool) -> None:
    root = issue(ROOT, None)
    leaf = issue(replace(LEAF, use=use), ROOT)
    assert proves((leaf, root)) is good
    middle = replace(MIDDLE, use=use)
    chain = (issue(LEAF, middle), issue(middle, ROOT), root)
    assert proves(chain) is good
    if not good:
        assert says(judged(chain), "not meant for a TLS server")
    assert proves((leaf, root), record(leaf, 3, 0)), "DANE-EE looks at the key alone"


@pytest.mark.parametrize(
    ("usage", "good"),
    [
        ("digital_signature", True),
        ("key_encipherment", True),
        ("key_agreement", True),
        ("content_commitment", False),
        ("data_encipherment", False),
        ("crl_sign", False),
    ],
)
def test_the_key_of_a_server_must_be_for_handshakes(usage: str, good: bool) -> None:
    leaf = issue(replace(LEAF, key_usage=(usage,)), ROOT)
    result = judged((leaf, issue(ROOT, None)))
    assert (result.status == "2.0.0") is good
    assert good or says(result, "not meant for a TLS server")


@pytest.mark.parametrize(("records", "by"), [((), "pkix"), ((GOOD,), "dane"), ((BAD,), None)])
def test_by_what_a_server_is_authenticated_is_told(
    records: tuple[TlsaRecord, ...], by: str | None
) -> None:
    evidence = domain(host(*records))
    ((server,),) = candidates(evidence, RFC8689)
    found = authenticate(server, evidence, RFC8689.reading, trust(), NOW)
    assert found.verified_by == by
    assert (found.mismatch is None) is (by is not None)


# ---------------------------------------------------------------- weak keys and signatures


def self_issued(private: rsa.RSAPrivateKey | dsa.DSAPrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    begin, end = VALIDITIES["now"]
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(private.public_key()).serial_number(1)
    builder = builder.not_valid_before(begin).not_valid_after(end)
    return builder.sign(private, hashes.SHA256()).public_bytes(Encoding.DER)


def test_1024_bits_of_rsa_or_dsa_are_80_bits_of_security_and_just_enough() -> None:
    made = (
        rsa.generate_private_key(65_537, 1024),  # noqa: S505 - what is shown
        dsa.generate_private_key(1024),  # noqa: S505 - what is shown
    )
    for private in made:
        leaf = self_issued(private)
        assert judged((leaf,), record(leaf, 3, 0), profile=DANE).status == "2.0.0"
    weak = issue(Make(HOST, WEAK, (HOST,)), None)
    assert says(judged((weak,), record(weak, 3, 0)), "too weak")


ROOT_1024, MIDDLE_1024, LEAF_1024 = (replace(made, key=RSA_1024) for made in (ROOT, MIDDLE, LEAF))


@pytest.mark.parametrize(
    ("makes", "weak"),
    [
        ((LEAF, MIDDLE, ROOT), False),
        ((replace(LEAF, key=RSA), replace(MIDDLE, key=RSA), ROOT), False),
        ((LEAF_1024, MIDDLE, ROOT), True),
        ((LEAF, MIDDLE_1024, ROOT), True),
        ((LEAF, MIDDLE, ROOT_1024), True),
    ],
)
@pytest.mark.parametrize("by", ["pkix", "ta"])
def test_r64_a_key_of_1024_bits_anywhere_in_a_path_is_verified_and_not_compliant(
    makes: tuple[Make, ...], weak: bool, by: str
) -> None:
    """RFC 9325 section 4.5 wants 2,048 bits; Postfix is content with 1,024."""
    leaf, middle, root = makes
    chain = (issue(leaf, middle), issue(middle, root), issue(root, None))
    records = (record(chain[2], 2, 0),) if by == "ta" else ()
    level = TlsLevel.DANE if by == "ta" else TlsLevel.SECURE
    postfix = replace(DANE, tls_security_level=level)
    store = trusted(chain[2])
    delivered = judged(chain, *records, store=store, profile=postfix)
    assert (delivered.status, delivered.compliant) == ("2.0.0", not weak)
    strict = judged(chain, *records, store=store)
    if not weak:
        assert strict.status == "2.0.0"
        return
    assert says(strict, "less than 112 bits")
    assert delivered.reason is Reason.NONCOMPLIANT_WEAK_TLS
    assert "less than 112 bits" in delivered.text


def test_r64_with_dane_ee_the_servers_own_key_alone_counts() -> None:
    for made, compliant in ((LEAF, True), (LEAF_1024, False)):
        chain = (issue(made, MIDDLE_1024), issue(MIDDLE_1024, ROOT))
        delivered = judged(chain, record(chain[0], 3, 0), profile=DANE)
        assert (delivered.status, delivered.compliant) == ("2.0.0", compliant)
        assert (judged(chain, record(chain[0], 3, 0)).status == "2.0.0") is compliant


def test_r64_the_keys_count_by_which_the_mta_itself_verified_the_server() -> None:
    """At level secure smtp(8) sees no TLSA record: a strong DANE-EE key mends no weak issuer."""
    chain = (issue(LEAF, MIDDLE_1024), issue(MIDDLE_1024, ROOT), issue(ROOT, None))
    own_key, store = record(chain[0], 3, 0), trusted(chain[2])
    secure = replace(DANE, tls_security_level=TlsLevel.SECURE)
    by_authority = judged(chain, own_key, store=store, profile=secure)
    assert (by_authority.status, by_authority.reason) == ("2.0.0", Reason.NONCOMPLIANT_WEAK_TLS)
    assert judged(chain, own_key, store=store, profile=DANE).compliant


def test_a_key_that_cannot_be_read_is_no_better_than_a_weak_one() -> None:
    """Neither in a certificate that is no certificate to OpenSSL, nor on a curve that it lacks."""
    leaf = issue(LEAF, ROOT)
    version = leaf.index(b"\xa0\x03\x02\x01\x02")
    no_certificate = leaf[: version + 2] + b"\x04" + leaf[version + 3 :]
    curve = b"\x2a\x86\x48\xce\x3d\x03\x01\x07"
    assert curve in spki(1)
    odd_key = spki(1).replace(curve, curve[:-1] + b"\x7f")
    odd_curve = leaf.replace(spki(1), odd_key)
    for der, key in ((no_certificate, spki(1)), (odd_curve, odd_key)):
        matches = TlsaRecord(3, 1, 1, hashlib.sha256(key).digest())
        assert says(judged((der,), matches), "key that is too weak")


def test_a_weak_key_or_signature_anywhere_in_a_path_proves_nothing() -> None:
    root = issue(ROOT, None)
    weak_middle = replace(MIDDLE, key=WEAK)
    assert says(judged((issue(replace(LEAF, key=WEAK), ROOT), root)), "key that is too weak")
    chain = (issue(LEAF, weak_middle), issue(weak_middle, ROOT), root)
    assert says(judged(chain), "key that is too weak")
    for signed in (
        (issue(LEAF, ROOT, sha1=True), root),
        (issue(LEAF, MIDDLE), issue(MIDDLE, ROOT, sha1=True), root),
    ):
        assert says(judged(signed), "digest that is too weak")
    own = issue(ROOT, None, sha1=True)
    result = judged((issue(LEAF, ROOT), own), store=trusted(own))
    assert result.status == "2.0.0", "nobody verifies what an authority says of itself"


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("names", "subject", "good"),
    [
        ((HOST,), "", True),
        (("MX1.Example.ORG",), "", True),
        (("*.example.org",), "", True),
        (("*.org",), "", False),
        (("*",), "", False),
        (("mx1.*.org",), "", False),
        (("*1.example.org",), "", False),
        (("*.mx1.example.org",), "", False),
        ((".example.org",), "", False),
        (("mx2.example.org", HOST), "", True),
        ((), HOST, True),
        ((), "*.example.org", True),
        ((), "mx2.example.org", False),
        (("mx2.example.org",), HOST, False),
    ],
)
def test_r06_the_name_of_the_host_stands_in_the_certificate(
    names: tuple[str, ...], subject: str, good: bool
) -> None:
    """In the common name only where there is no other; a wildcard is one whole label."""
    leaf = issue(Make(subject, 1, names), ROOT)
    root = issue(ROOT, None)
    assert proves((leaf, root)) is good
    assert proves((leaf, root), record(root, 2, 0)) is good


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a.test",), "is for a.test"),
        (("a.test", "b.test", "c.test"), "is for a.test, b.test, c.test"),
        ((), "no name at all"),
    ],
)
def test_the_names_that_a_certificate_has_instead_are_told(
    names: tuple[str, ...], words: str
) -> None:
    result = judged((issue(Make("", 1, names), ROOT), issue(ROOT, None)))
    assert says(result, words)


def test_of_many_names_three_are_told_and_what_is_no_ascii_is_made_a_question_mark() -> None:
    names = tuple(f"{letter}.test" for letter in "abcd")
    result = judged((issue(Make("", 1, names), ROOT), issue(ROOT, None)))
    assert says(result, "is for a.test, b.test, c.test")
    assert "d.test" not in result.text
    odd = judged((issue(Make("", 1, ("a\x7fb.test ~\x1f",)), ROOT), issue(ROOT, None)))
    assert says(odd, "is for a?b.test ~?")
    long = judged((issue(Make("", 1, ("x" * 300,)), ROOT), issue(ROOT, None)))
    assert "x" * 180 in long.text
    assert "x" * 200 not in long.text


def test_a_common_name_is_told_only_where_the_path_holds() -> None:
    """As Postfix tells "trusted" from "matching"."""
    stranger = issue(Make("mx9.example.org", 1, ("mx9.example.org",)), None)
    assert "mx9" not in judged((stranger,)).text
