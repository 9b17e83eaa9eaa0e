"""What -v tells of a session; certificates come from strangers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from requiretls_milter.model import ProbeEvidence
from requiretls_milter.reports.details import MAX_NAMES, details_of
from tests.support import build


def test_a_session_without_tls_has_its_dialogue_alone() -> None:
    said = "S: 220 mx ESMTP\nC: EHLO me\nS: 250 mx"
    assert details_of(ProbeEvidence("192.0.2.1", dialogue=said)) == {
        "cipher": None,
        "group": None,
        "certificate": None,
        "dialogue": ["S: 220 mx ESMTP", "C: EHLO me", "S: 250 mx"],
    }


def test_of_a_certificate_all_is_told_by_which_it_is_known() -> None:
    seen = replace(build.probe(), cipher="TLS_AES_256_GCM_SHA384", group="x25519")
    details = details_of(seen)
    assert (details["cipher"], details["group"]) == ("TLS_AES_256_GCM_SHA384", "x25519")
    certificate = details["certificate"]
    assert certificate is not None
    assert certificate["names"] == ["mx1.example.org"]
    assert certificate["not_before"] < certificate["not_after"]
    assert certificate["key"] == "EC secp256r1"


def named(*names: str) -> bytes:
    """A certificate of these names, DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    begin = datetime.fromtimestamp(build.NOW, UTC)
    made = (
        x509.CertificateBuilder(x509.Name([]), x509.Name([]), key.public_key(), 1)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(map(x509.DNSName, names)), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.DER)


def test_of_many_names_the_first_are_told_and_how_many_more_there_are() -> None:
    names = [f"mx{number}.example.org" for number in range(MAX_NAMES + 3)]
    certificate = details_of(replace(build.probe(), chain=(named(*names),)))["certificate"]
    assert certificate is not None
    assert certificate["names"] == [*names[:MAX_NAMES], "and 3 more"]


@pytest.mark.parametrize("der", [b"", b"0\x82\x01\x00", bytes(300)])
def test_r62_what_is_no_certificate_is_told_as_such(der: bytes) -> None:
    certificate = details_of(replace(build.probe(), chain=(der,)))["certificate"]
    assert certificate is not None
    assert certificate["subject"] == certificate["key"] == "(cannot be read)"
