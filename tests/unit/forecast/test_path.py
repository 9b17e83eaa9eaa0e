"""Which certificates a DANE-TA(2) record makes an anchor, and what is asked of them."""

from __future__ import annotations

import datetime
import hashlib
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from requiretls_milter.forecast import dane
from requiretls_milter.model import TlsaRecord
from tests.support.build import NOW
from tests.support.chains import HOST, WEAK, Make, issue, spki

ROOT = Make("Root", 3, ca=True)
MIDDLE = Make("Middle", 2, ca=True)
LEAF = Make(HOST, 1, (HOST,), ca=False, use="server")


def mismatch(chain: tuple[bytes, ...], *records: TlsaRecord) -> str | None:
    usable = dane.usable(records)
    assert usable == records
    return dane.check(chain, usable, (HOST,), NOW).mismatch


def sha256(der: bytes) -> TlsaRecord:
    return TlsaRecord(2, 0, 1, hashlib.sha256(der).digest())


def test_r38_a_server_is_not_its_own_authority() -> None:
    """OpenSSL compares the server's own certificate with DANE-EE(3) records alone."""
    own = issue(Make(HOST, 1, (HOST,), ca=True), None)
    for record in (TlsaRecord(2, 0, 0, own), sha256(own), TlsaRecord(2, 1, 1, bytes(32))):
        assert mismatch((own,), record)
        assert mismatch((own, own), record)
    assert mismatch((own,), TlsaRecord(3, 0, 0, own)) is None


@pytest.mark.parametrize("valid", ["past", "future"])
def test_r38_an_anchor_below_a_root_is_a_name_and_a_key_without_dates(valid: str) -> None:
    middle = Make("Middle", 2, ca=True, valid=valid)
    chain = (issue(LEAF, middle), issue(middle, ROOT), issue(ROOT, None))
    assert mismatch(chain, sha256(chain[1])) is None
    assert mismatch(chain[:2], TlsaRecord(2, 0, 0, chain[1])) is None
    assert mismatch(chain, sha256(chain[2])), "on the way to the root its dates count"


def test_r38_a_root_has_to_be_valid_now() -> None:
    root = Make("Root", 3, ca=True, valid="past")
    chain = (issue(LEAF, root), issue(root, None))
    assert mismatch(chain, sha256(chain[1])) == "certificate has expired"


def test_r38_an_issuer_that_was_renewed_is_good_beside_what_it_was() -> None:
    """OpenSSL takes the valid one, in whatever order they are sent."""
    former = Make("Middle", 2, ca=True, valid="past")
    leaf, root = issue(LEAF, MIDDLE), issue(ROOT, None)
    both = (issue(former, ROOT), issue(MIDDLE, ROOT))
    for sent in (both, both[::-1]):
        assert mismatch((leaf, *sent, root), sha256(root)) is None
        assert mismatch((leaf, *sent, root), sha256(both[0])), "it is not the one that is taken"
    assert mismatch((leaf, both[0], root), sha256(root)) == "certificate has expired"
    assert mismatch((leaf, both[0], root), sha256(both[0])) is None


def test_r38_the_nearest_anchor_is_enough() -> None:
    root = Make("Root", 3, ca=True, valid="past")
    chain = (issue(LEAF, MIDDLE), issue(MIDDLE, root), issue(root, None))
    records = (sha256(chain[1]), sha256(chain[2]))
    assert mismatch(chain, *records) is None
    assert mismatch(chain, *records[::-1]) is None


def test_r38_a_key_alone_anchors_what_it_has_signed() -> None:
    leaf, middle = issue(LEAF, MIDDLE), issue(MIDDLE, ROOT)
    assert mismatch((leaf,), TlsaRecord(2, 1, 0, spki(2))) is None
    assert mismatch((leaf, middle), TlsaRecord(2, 1, 0, spki(3))) is None
    assert mismatch((leaf,), TlsaRecord(2, 1, 0, spki(3)))
    assert mismatch((issue(LEAF, MIDDLE, True),), TlsaRecord(2, 1, 0, spki(2))), "forged"
    digest = TlsaRecord(2, 1, 1, hashlib.sha256(spki(2)).digest())
    assert mismatch((leaf,), digest), "no digest can check a signature"


def test_a_hundred_keys_that_take_long_do_not_hold_up_the_judge() -> None:
    """The judge has one thread: with exponents as long as these each try takes 7 ms."""
    signer = rsa.generate_private_key(65_537, 3072)
    modulus = signer.public_key().public_numbers().n
    hostile = []
    for number in range(80):  # more do not fit into a DNS message
        key = rsa.RSAPublicNumbers(2**3070 + 2 * number + 1, modulus - 2 * number).public_key()
        data = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        hostile.append(TlsaRecord(2, 1, 0, data))
    chain = tuple(_signed_by(signer, number) for number in range(10))
    began = time.process_time()
    assert mismatch(chain, *hostile) == "no TLSA record matches the certificate"
    assert time.process_time() - began < 0.5


def _signed_by(signer: rsa.RSAPrivateKey, number: int) -> bytes:
    moment = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(number))
        .issuer_name(_name(number + 1))
        .public_key(signer.public_key())
        .serial_number(number + 1)
        .not_valid_before(moment)
        .not_valid_after(moment)
        .sign(signer, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


def _name(number: int) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"name {number}")])


def test_a_key_that_is_not_for_tls_serves_no_tls() -> None:
    for usage, good in ((("digital_signature",), True), (("crl_sign",), False)):
        leaf = Make(HOST, 1, (HOST,), ca=False, key_usage=usage)
        chain = (issue(leaf, ROOT), issue(ROOT, None))
        assert (mismatch(chain, sha256(chain[1])) is None) is good


def test_a_signature_by_sha1_proves_nothing_but_what_an_anchor_says_of_itself() -> None:
    """OpenSSL's security level 1, at which smtp(8) authenticates, wants 80 bits."""
    root = issue(ROOT, None, sha1=True)
    leaf, weak = issue(LEAF, ROOT), issue(LEAF, ROOT, sha1=True)
    assert mismatch((leaf, root), sha256(root)) is None
    assert (
        mismatch((weak, root), sha256(root)) == "certificate is signed by a digest that is too weak"
    )
    assert mismatch((weak, root), TlsaRecord(3, 0, 0, weak)) is None, "no signature is looked at"


def test_a_key_of_less_than_80_bits_proves_nothing() -> None:
    """OpenSSL's security level 1 again: whoever wants to has the private key of such a server."""
    too_weak = "certificate has a key that is too weak"
    root = issue(ROOT, None)
    leaf = issue(Make(HOST, WEAK, (HOST,), ca=False), ROOT)
    assert mismatch((leaf, root), TlsaRecord(3, 0, 0, leaf)) == too_weak
    assert mismatch((leaf, root), sha256(root)) == too_weak
    middle = Make("Middle", WEAK, ca=True)
    chain = (issue(LEAF, middle), issue(middle, ROOT), root)
    assert mismatch(chain, sha256(root)) == mismatch(chain, sha256(chain[1])) == too_weak
    assert mismatch(chain, TlsaRecord(3, 0, 0, chain[0])) is None, "nobody's signature is looked at"
