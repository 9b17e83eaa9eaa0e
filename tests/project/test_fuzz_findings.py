"""What fuzzing and property tests have found, one test for each mistake."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from OpenSSL import crypto

from requiretls_milter import config
from requiretls_milter.evidence.dns import Resolver
from requiretls_milter.forecast import certificate, dane
from requiretls_milter.forecast.attempt import reply_status
from requiretls_milter.forecast.der import MalformedCertificateError, public_key_info
from requiretls_milter.model import HopKind, Reply, TlsaRecord
from requiretls_milter.syntax import names, nexthop, status
from requiretls_milter.syntax.text import MAX_TEXT
from tests.fuzz import expect
from tests.support import build
from tests.support.dnsserver import DnsServer, found
from tests.support.milterlogs import events


def self_signed(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, name: str) -> bytes:
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    scheme = pss if isinstance(key, rsa.RSAPrivateKey) else None
    return builder.sign(key, hashes.SHA256(), rsa_padding=scheme).public_bytes(Encoding.DER)


# ---------------------------------------------------------------- certificates


@pytest.mark.parametrize("record_usage", [2, 3])
def test_an_issuer_that_cannot_be_read_anchors_nothing_and_harms_nothing(
    record_usage: int,
) -> None:
    broken = b"0\x00"
    record = TlsaRecord(record_usage, 0, 1, dane.digest(broken, 1))
    presented = build.certificate()
    chain = (presented.chain[0], broken)
    assert dane.check(chain, (record,), ("mx1.example.org",), build.NOW).mismatch
    # Beside one that does match it changes nothing.
    both = (record, presented.tlsa(3, 1, 1))
    assert dane.check(chain, both, ("mx1.example.org",), build.NOW).mismatch is None


def test_names_of_a_certificate_are_told_as_printable_text() -> None:
    der = self_signed(ec.generate_private_key(ec.SECP256R1()), "a\r\n\x1b[31mb\x00")
    text = certificate.name_mismatch(der, ())
    assert text is not None
    expect.one_line(text, MAX_TEXT)
    assert text == "certificate is for a???[31mb?"


def test_what_is_wrong_with_a_certificate_is_told_in_bounded_text() -> None:
    with pytest.raises(MalformedCertificateError) as error:
        certificate.parse(b"\xff" * 5000)
    expect.one_line(str(error.value), MAX_TEXT)


def test_the_public_key_is_what_stands_in_the_certificate_octet_by_octet() -> None:
    """A key that is read and written again need not be the same; OpenSSL compares what it got."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for der in (self_signed(key, "a.example"), build.certificate().chain[0]):
        info = public_key_info(der)
        assert info in der
        openssl = crypto.load_certificate(crypto.FILETYPE_ASN1, der).get_pubkey()
        assert info == crypto.dump_publickey(crypto.FILETYPE_ASN1, openssl)
        record = TlsaRecord(3, 1, 1, dane.digest(info, 1))
        assert dane.check((der,), (record,), (), build.NOW).mismatch is None


def test_the_key_of_an_algorithm_that_we_do_not_know_is_compared_and_proves_nothing() -> None:
    der = build.certificate().chain[0]
    known = bytes.fromhex("06082a8648ce3d030107")  # OID prime256v1
    assert der.count(known) == 1
    strange = der.replace(known, bytes.fromhex("06082a8648ce3d03017f"))
    record = TlsaRecord(3, 1, 1, dane.digest(public_key_info(strange), 1))
    assert dane.match((strange,), (record,)).end_entity
    assert dane.check((strange,), (record,), (), build.NOW).mismatch == certificate.WEAK_KEY


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("change", ["trailing", "cut", "empty"])
def test_a_full_record_that_openssl_would_not_take_is_not_usable(
    selector: int, change: str
) -> None:
    data = build.certificate().tlsa(3, selector, 0).data
    assert dane.usable((TlsaRecord(3, selector, 0, data),))
    changed = {"trailing": data + b"\0", "cut": data[:-1], "empty": b""}[change]
    assert dane.usable((TlsaRecord(3, selector, 0, changed),)) == ()


@pytest.mark.parametrize("code", [220, 250, 0, 7, 354, 999])
def test_a_session_that_ended_by_a_refusal_that_is_none_is_never_a_success(code: int) -> None:
    reply = Reply(code, "2.0.0")
    assert reply_status(reply) == status.PROTOCOL_ERROR


def test_a_name_with_a_dot_in_front_is_for_the_same_reference_as_openssl_has_it() -> None:
    der = self_signed(ec.generate_private_key(ec.SECP256R1()), ".example.org")
    read = certificate.parse(der)
    assert certificate.name_matches(read, ".example.org")
    assert not certificate.name_matches(read, "mx.example.org")


# ---------------------------------------------------------------- names and texts


@pytest.mark.parametrize("text", ["inet:11", "iNet:26"])
def test_the_word_inet_with_a_port_is_a_domain_to_smtp(text: str) -> None:
    """``inet:`` before a next hop is lmtp(8)'s: its text must not be read as something else."""
    found = nexthop.parse(text)
    assert (found.kind, found.host) == (HopKind.MX, "inet")
    assert nexthop.parse(str(found)) == found
    with pytest.raises(nexthop.NextHopError):
        nexthop.parse(f"inet:{text}")


def test_the_domain_inet_without_a_port_is_one() -> None:
    assert nexthop.parse(str(nexthop.parse("inet"))) == nexthop.parse("inet")


@pytest.mark.parametrize("text", ["\U0001f600" * 50 + "..", "é" * 1000, "*" * 59 + "é.a"])
def test_a_bad_name_is_told_in_sixty_characters_escapes_and_all(text: str) -> None:
    for parse in (names.to_alabel, nexthop.parse):
        with pytest.raises((names.DomainNameError, nexthop.NextHopError)) as error:
            parse(text)
        expect.one_line(str(error.value), 200)


@pytest.mark.parametrize(
    "content",
    [
        '[mta]\nrequiretls_policy = { "a\\n\\u001b[31m..b" = "enforce" }',
        '[rules.recipient."Example.org"]\n[rules.recipient."\\u202eexample.org"]',
        '[mta]\ninet_protocols = ["\\u0007"]',
        '["\\n"]\nx = 1',
        f"[mta]\nrequiretls_policy = {{ {', '.join(f'x{i}.- = 1' for i in range(400))} }}",
    ],
)
def test_each_mistake_of_a_configuration_is_one_line_of_printable_text(content: str) -> None:
    with pytest.raises(config.ConfigError) as error:
        config.parse(content.encode(), "config.toml")
    for mistake in error.value.mistakes:
        expect.one_line(mistake, 1000)
    assert str(error.value).count("\n") == len(error.value.mistakes) - 1


def test_a_log_line_of_others_may_be_nested_as_deep_as_it_likes() -> None:
    line = '{"recipient":' + "[" * 5000 + "]" * 5000 + "}"
    assert events([line]) == []


# ---------------------------------------------------------------- DNS


async def test_addresses_have_one_text_form() -> None:
    async with DnsServer() as server:
        server.set("a.test", "AAAA", found("a.test 300 IN AAAA ::ffff:192.0.2.1"))
        evidence = await Resolver([server.nameserver], 1.0).addresses("a.test")
    assert evidence.addresses == (str(ipaddress.ip_address("::ffff:192.0.2.1")),)


_OTHER_CLASS_FIRST = """
from dns.rdata import GenericRdata, get_rdata_class
from dns.rdataclass import ANY, IN
from dns.rdatatype import A, AAAA, CNAME, MX, NS, SOA, TLSA, TXT
import requiretls_milter.evidence.tlsa
for rdtype in (A, AAAA, CNAME, MX, NS, SOA, TLSA, TXT):
    get_rdata_class(ANY, rdtype)
    assert get_rdata_class(IN, rdtype) is not GenericRdata, rdtype
"""


def test_a_record_of_another_class_cannot_make_a_type_unreadable() -> None:
    """dnspython would take A for opaque, in class IN too, until the process ends."""
    command = [sys.executable, "-c", _OTHER_CLASS_FIRST]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
