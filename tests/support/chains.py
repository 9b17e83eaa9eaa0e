"""Chains of certificates of every make, and TLSA records about their certificates."""

from __future__ import annotations

import datetime
import functools
import hashlib
import tempfile
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import strategies as st

from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.model import TlsaRecord
from tests.support import build, openssl

HOST, DOMAIN = "mx.example.org", "example.org"

_DAY = datetime.timedelta(days=1)


def validities(now: float) -> dict[str, tuple[datetime.datetime, datetime.datetime]]:
    """When a certificate begins and ends, by the word for what it is at the time *now*."""
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC).replace(microsecond=0)
    return {
        "now": (moment - 30 * _DAY, moment + 30 * _DAY),
        "past": (moment - 30 * _DAY, moment - _DAY),
        "future": (moment + _DAY, moment + 30 * _DAY),
        "ending": (moment - 30 * _DAY, moment + _DAY / 24),
        "soon": (moment + _DAY / 24, moment + 30 * _DAY),
    }


VALIDITIES = validities(build.NOW)
USES = {
    "server": [ExtendedKeyUsageOID.SERVER_AUTH],
    "client": [ExtendedKeyUsageOID.CLIENT_AUTH],
    "both": [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH],
    "any": [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE],
}


KEY_USES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "key_cert_sign", "crl_sign"),
)


RSA, ED25519, WEAK, RSA_1024 = 101, 102, 103, 104
"""Numbers of keys that are of another kind than all others."""

WEAK_PEM = b"""\
-----BEGIN PRIVATE KEY-----
MIIB5AIBADANBgkqhkiG9w0BAQEFAASCAc4wggHKAgEAAmEA1pxUbMILDVQNQAFx
TJ4lK66LhZf/xOooc3j3CfjVO/YlZtzImj+Hr4P6zVRJkyXgilh5jIOZ9ZfmPHp4
2xwyCQv0ryVNxmbDeMFxYFnZZdiuFgpb/7vGksKN7TKdFOLnAgMBAAECYFdgoPMC
8jMEBL0JmVKjlOi7ES1cXJOU7tFM7/AMcu0N496Eh9xdf2YTqzqMVcRmh82LS1MZ
6PH4UnJWV/sMaLVa/cVFt+JdZ+9ChURvpeRT4il7H7sCwf85Y0sxmmNiOQIxAOzu
e7l9nZRIqh0wB6akDL/th2JXgr0AdYMoADXT/c92EG7wF6QUqmcU8ZtzoYT9WwIx
AOfh959qEkGAnxRMRYnQnYpmcHHBeQZ9ZQvJRfbUn1O1TYnPGskPObOVt16B1+Qq
ZQIwZkg92UHFOTJ1XcxSQToo1uIvw+CLbBQ6prgp/xLZSypoxbuYORlCxuVfuAAf
Bk5pAjEAl3v5xv0GnCAozJvfOd89bDLr9oTMSb8VihOdT1ksFQV2eDcCaqM1sOp3
9pegsIA5AjAole5eqcFda+BMkND9MuJk94QHn4+oP5zwWTZ+ptYQkFg6ACgZ5g1L
v4KcsJNCrtI=
-----END PRIVATE KEY-----
"""
"""An RSA key of 768 bits, which the library reads but does not make."""


def _weak_key() -> rsa.RSAPrivateKey:
    found = load_pem_private_key(WEAK_PEM, None)
    assert isinstance(found, rsa.RSAPrivateKey)
    return found


@functools.cache
def key(
    number: int,
) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey:
    """One of a few keys."""
    match number:
        case 101:
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case 102:
            return ed25519.Ed25519PrivateKey.generate()
        case 103:
            return _weak_key()
        case 104:
            return rsa.generate_private_key(65537, 1024)  # noqa: S505 - 80 bits of security
        case _:
            return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Make:
    """What is put into a certificate.

    ``ca``: None leaves the basic constraints out. ``key_usage``: words out of
    KEY_USES; None leaves it out. ``use``: "" leaves the extended key usage out.
    """

    subject: str
    key: int
    names: tuple[str, ...] = ()
    valid: str = "now"
    ca: bool | None = None
    path_length: int | None = None
    key_usage: tuple[str, ...] | None = None
    use: str = ""
    other_names: tuple[x509.GeneralName, ...] = ()


@functools.lru_cache(maxsize=2000)
def issue(
    make: Make,
    issuer: Make | None,
    forged: bool = False,
    sha1: bool = False,
    now: float = build.NOW,
) -> bytes:
    """Make a certificate (DER), by *issuer* or by itself.

    *forged*: signed by a key that is another's; *sha1*: signed by that; *now*: the time at which
    it is verified.
    """
    by = issuer or make
    begin, end = validities(now)[make.valid]
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(make.subject))
        .issuer_name(_name(by.subject))
        .public_key(key(make.key).public_key())
        .serial_number(1000 + make.key)
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    names = [*(x509.DNSName(name) for name in make.names), *make.other_names]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if make.ca is not None:
        length = make.path_length if make.ca else None
        builder = builder.add_extension(x509.BasicConstraints(make.ca, length), critical=True)
    if make.key_usage is not None:
        usage = {word: word in make.key_usage for word in KEY_USES}
        builder = builder.add_extension(
            x509.KeyUsage(encipher_only=False, decipher_only=False, **usage), critical=True
        )
    if make.use:
        builder = builder.add_extension(x509.ExtendedKeyUsage(USES[make.use]), critical=False)
    signer = key(99 if forged else by.key)
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    der = builder.sign(signer, algorithm).public_bytes(Encoding.DER)
    if not sha1:
        return der
    private = signer.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return openssl.signed_by_sha1(der, private)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


@dataclass(frozen=True)
class Chain:
    """All certificates from the leaf to the root, their keys, and what the server sends of them."""

    all: tuple[bytes, ...]
    keys: tuple[bytes, ...]
    presented: tuple[bytes, ...]


def spki(number: int) -> bytes:
    """The public key of a number, as a SubjectPublicKeyInfo."""
    return key(number).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@functools.lru_cache(maxsize=200)
def trusting(authority: bytes) -> TrustStore:
    """A trust store with one authority."""
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(x509.load_der_x509_certificate(authority).public_bytes(Encoding.PEM))
        file.flush()
        return load_trust_store(file.name)


def mostly(usual: object, *others: object) -> st.SearchStrategy[object]:
    """*usual*, and now and then something else."""
    return st.sampled_from((usual,) * 5 + others)


NAMES: tuple[tuple[str, ...], ...] = (
    (HOST,),
    ("MX.Example.Org",),
    ("*.example.org",),
    ("other.example.org", HOST),
    (DOMAIN,),
    ("*.mx.example.org",),
    ("*.org",),
    ("m*.example.org",),
    ("other.example.org",),
    (),
)
leaves = st.builds(
    Make,
    subject=mostly(HOST, "", "other.example.org", "*.example.org"),
    key=st.just(1),
    names=mostly((HOST,), *NAMES),
    valid=mostly("now", "past", "future"),
    ca=mostly(False, None, True),
    path_length=st.none(),
    key_usage=mostly(
        None,
        ("digital_signature",),
        ("key_agreement", "crl_sign"),
        ("key_cert_sign", "digital_signature"),
        ("content_commitment", "data_encipherment"),
    ),
    use=mostly("server", "", "client", "both", "any"),
)


def issuers(number: int) -> st.SearchStrategy[Make]:
    """Authorities, some of which should not issue."""
    return st.builds(
        Make,
        subject=st.just(f"Authority {number}"),
        key=st.just(number),
        names=st.just(()),
        valid=mostly("now", "past", "future"),
        ca=mostly(True, False, None),
        path_length=mostly(None, 0),
        key_usage=mostly(("key_cert_sign", "crl_sign"), None, ("digital_signature", "crl_sign")),
        use=mostly("", "server", "client", "any"),
    )


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    """A chain of up to four certificates, and what of it a server sends, in what order."""
    makes = [draw(leaves), *(draw(issuers(2 + i)) for i in range(draw(st.integers(0, 3))))]
    forged = draw(mostly(-1, *range(len(makes))))
    weak = draw(mostly(-1, *range(len(makes))))
    made = tuple(
        issue(make, makes[i + 1] if i + 1 < len(makes) else None, forged == i, weak == i)
        for i, make in enumerate(makes)
    )
    sent = list(made[1:])
    change = draw(mostly("all", "no root", "one missing", "reversed", "twice", "a stranger"))
    if change == "no root":
        sent = sent[:-1]
    elif change == "one missing" and sent:
        sent.pop(draw(st.integers(0, len(sent) - 1)))
    elif change == "reversed":
        sent.reverse()
    elif change == "twice":
        sent += [made[0], *sent]
    elif change == "a stranger":
        sent.insert(0, issue(Make("Stranger", 50, ca=True), None))
    return Chain(made, tuple(spki(make.key) for make in makes), (made[0], *sent))


@st.composite
def record_sets(draw: st.DrawFn, chain: Chain) -> tuple[TlsaRecord, ...]:
    """TLSA records about certificates of *chain*, and about others."""
    found = []
    for _ in range(draw(st.integers(1, 3))):
        usage = draw(mostly(draw(st.sampled_from((2, 3))), 0, 1, 4, 255))
        selector = draw(mostly(draw(st.sampled_from((0, 1))), 2, 255))
        matching = draw(mostly(draw(st.sampled_from((0, 1, 2))), 3, 255))
        about = draw(st.integers(0, len(chain.all) - 1))
        data = (chain.all, chain.keys)[1 if selector == 1 else 0][about]
        if matching == 1:
            data = hashlib.sha256(data).digest()
        elif matching == 2:
            data = hashlib.sha512(data).digest()
        match draw(mostly("right", "wrong", "short", "long", "empty")):
            case "wrong":
                data = bytes([data[0] ^ 1]) + data[1:] if matching else spki(77)
            case "short":
                data = data[:-1]
            case "long":
                data += b"\0"
            case "empty":
                data = b""
        found.append(TlsaRecord(int(str(usage)), int(str(selector)), int(str(matching)), data))
    return tuple(found)
