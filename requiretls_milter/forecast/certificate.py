"""Presented certificates as values: names, digests, purpose, and the path to a trust anchor.

Path validation is OpenSSL's own (X509_verify_cert), as the MTAs use it, without
its check of dates: those are compared here with the time that the caller
gives, so that a verified chain can be kept and judged again later.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import crypto

from requiretls_milter.model import TlsaRecord
from requiretls_milter.syntax.text import printable

# X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h; pyOpenSSL does not name it.
_NO_CHECK_TIME = 0x200000
_PARTIAL_CHAIN = int(crypto.X509StoreFlags.PARTIAL_CHAIN)

CACHED_CERTIFICATES = 8192

MAX_CACHED_OCTETS = 16_384
"""Octets of chains and records about which a result is kept: four times what is usual.

They are kept with it. What a server sends or a zone holds may be six times as large, and
whoever wants to can have us look at thousands of them.
"""

WEAK_KEY = "certificate has a key that is too weak"

MAX_SHOWN = 200
"""Characters of what a certificate says that are shown to people."""

MIN_RSA_BITS = 1024
"""Bits of an RSA or DSA key that make 80 bits of security (NIST SP 800-57 part 1, table 2)."""

MAX_RSA_EXPONENT = 64
"""Bits of a public exponent: of a longer one a hundred signatures would take a second."""

MIN_EC_BITS = 160
"""The same of a key on an elliptic curve."""

_WITH_TWO_ISSUERS = 3
"""Certificates of the shortest chain in which an issuer can stand twice."""

MAX_INTERMEDIATES = 10
"""Certificates between the server's own and the trust anchor (Postfix sets OpenSSL's depth to
smtp_tls_scert_verifydepth + 1, which is 10)."""

_RSA_PSS = 912  # EVP_PKEY_RSA_PSS: NID_rsassaPss of OpenSSL's obj_mac.h; pyOpenSSL does not name it
_FACTORED_KEYS = (crypto.TYPE_RSA, _RSA_PSS, crypto.TYPE_DSA)

_DER_LONG_FORM = 0x80  # X.690 section 8.1.3.5
_DER_VERSION = 0xA0  # the first field of a TBSCertificate, left out where it is 1
_DER_BEFORE_KEY = 5  # serial number, signature, issuer, validity, subject (RFC 5280 section 4.1)


P = ParamSpec("P")
R = TypeVar("R")


class _TooMuchError(Exception):
    """A result that is not kept, since functools.lru_cache keeps no exception."""

    def __init__(self, result: object) -> None:
        super().__init__()
        self.result = result


def remembered(most: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keep the *most* recent results of a pure function, but none about much data."""

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        def computed(*arguments: P.args, **named: P.kwargs) -> R:
            result = function(*arguments, **named)
            if _octets(arguments) > MAX_CACHED_OCTETS:
                raise _TooMuchError(result)
            return result

        kept: Any = functools.lru_cache(maxsize=most)(computed)

        @functools.wraps(function)
        def call(*arguments: P.args, **named: P.kwargs) -> R:
            try:
                result: R = kept(*arguments, **named)
            except _TooMuchError as much:
                result = cast(R, much.result)
            return result

        return call

    return wrap


def _octets(value: object) -> int:
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, TlsaRecord):
        return len(value.data)
    return sum(map(_octets, value)) if isinstance(value, tuple) else 0


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is read from one certificate.

    ``dns_ids`` and ``cn_ids`` are lower-case (RFC 6125 section 6.4); times are
    seconds since the epoch. ``subject`` and ``issuer`` are DER. ``server_auth`` is about
    its extended key usage, ``key_for_tls`` about its key usage.
    """

    dns_ids: tuple[str, ...]
    cn_ids: tuple[str, ...]
    subject: bytes
    issuer: bytes
    not_before: float
    not_after: float
    server_auth: bool
    key_for_tls: bool
    self_issued: bool
    weak_signature: bool

    @property
    def names(self) -> tuple[str, ...]:
        """DNS-IDs, or the CN-IDs where there is no DNS-ID (RFC 6125 section 6.4.4)."""
        return self.dns_ids or self.cn_ids


class MalformedCertificateError(ValueError):
    """Bytes that are no certificate, or one that cannot be evaluated."""


@remembered(CACHED_CERTIFICATES)
def parse(der: bytes) -> Certificate:
    """Read a DER certificate.

    Raises:
        MalformedCertificateError: it cannot be read; whatever a parser of
            foreign bytes may raise is turned into this.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        return Certificate(
            dns_ids=_dns_ids(certificate),
            cn_ids=_cn_ids(certificate),
            subject=certificate.subject.public_bytes(),
            issuer=certificate.issuer.public_bytes(),
            not_before=_epoch(certificate.not_valid_before_utc),
            not_after=_epoch(certificate.not_valid_after_utc),
            server_auth=_may_serve_tls(certificate),
            key_for_tls=_key_may_serve_tls(certificate),
            self_issued=certificate.subject == certificate.issuer,
            weak_signature=_is_weakly_signed(certificate),
        )
    except Exception as error:
        raise MalformedCertificateError(
            printable(f"unreadable certificate: {error}", MAX_SHOWN)
        ) from error


@remembered(CACHED_CERTIFICATES)
def public_key_info(der: bytes) -> bytes:
    """Cut the SubjectPublicKeyInfo out of a DER certificate, octet by octet as it stands there.

    What TLSA selector SPKI(1) is about (RFC 6698 section 2.1.2). A key that is read and
    written again need not be the same (RSASSA-PSS), nor need we know its algorithm.

    Raises:
        MalformedCertificateError: it is not where it should be.
    """
    begin, _ = _der_contents(der, 0)
    position, _ = _der_contents(der, begin)
    fields = _DER_BEFORE_KEY + (der[position : position + 1] == bytes([_DER_VERSION]))
    for _ in range(fields):
        _, position = _der_contents(der, position)
    _, end = _der_contents(der, position)
    return der[position:end]


def is_one_value(der: bytes) -> bool:
    """Whether *der* is one value with nothing behind it, as far as its outermost length says."""
    try:
        return _der_contents(der, 0)[1] == len(der)
    except MalformedCertificateError:
        return False


def _der_contents(der: bytes, start: int) -> tuple[int, int]:
    """Where the contents of the value at *start* begin and end (X.690 section 8.1)."""
    length = der[start + 1] if start + 1 < len(der) else _DER_LONG_FORM
    begin = start + 2
    if length >= _DER_LONG_FORM:
        octets = length - _DER_LONG_FORM
        begin += octets
        length = int.from_bytes(der[start + 2 : begin], "big") if octets else len(der)
    if begin + length > len(der):
        raise MalformedCertificateError("unreadable certificate: cut short")
    return begin, begin + length


def _epoch(moment: datetime.datetime) -> float:
    return moment.timestamp()


def _dns_ids(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(name.lower() for name in names.get_values_for_type(x509.DNSName))


def _cn_ids(certificate: x509.Certificate) -> tuple[str, ...]:
    attributes = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    values = [attribute.value for attribute in attributes]
    return tuple(value.lower() for value in values if isinstance(value, str) and value.isascii())


def _may_serve_tls(certificate: x509.Certificate) -> bool:
    """OpenSSL's purpose "sslserver": the extensions, where present, must allow it."""
    try:
        extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.SERVER_AUTH in extended


def _key_may_serve_tls(certificate: x509.Certificate) -> bool:
    """The same of the key usage: one of those that TLS handshakes need (KU_TLS of OpenSSL)."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.digital_signature or usage.key_encipherment or usage.key_agreement


def _is_weakly_signed(certificate: x509.Certificate) -> bool:
    """By MD5 or SHA-1: less than the 80 bits of OpenSSL's security level 1 (since its 3.0).

    smtp(8) sets that level where it authenticates. An algorithm that we do not
    know is none of the old ones.
    """
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return False
    return isinstance(algorithm, hashes.MD5 | hashes.SHA1)


@remembered(CACHED_CERTIFICATES)
def has_weak_key(der: bytes) -> bool:
    """Whether the key of a certificate has less than the 80 bits of OpenSSL's security level 1.

    smtp(8) sets that level where it authenticates. A key that cannot be read is
    no better.
    """
    try:
        key = _x509(der).get_pubkey()
    except (crypto.Error, ValueError):
        return True
    return key.bits() < (MIN_RSA_BITS if key.type() in _FACTORED_KEYS else MIN_EC_BITS)


def digest(data: bytes, matching_type: int) -> bytes:
    """Apply a TLSA matching type (RFC 6698 section 2.1.3): 0 full, 1 SHA-256, 2 SHA-512."""
    match matching_type:
        case 0:
            return data
        case 1:
            return hashlib.sha256(data).digest()
        case 2:
            return hashlib.sha512(data).digest()
        case _:
            raise ValueError(f"unknown TLSA matching type {matching_type}")


# ---------------------------------------------------------------- path validation


@dataclass(frozen=True, slots=True)
class Path:
    """A chain from the leaf to a trust anchor, valid between two times; or why there is none.

    ``length`` counts its certificates.
    """

    error: str = ""
    not_before: float = 0.0
    not_after: float = 0.0
    length: int = 0

    def error_at(self, now: float) -> str:
        """Why the path does not hold at *now*; empty where it does."""
        if self.error:
            return self.error
        if now < self.not_before:
            return "certificate is not yet valid"
        if now > self.not_after:
            return "certificate has expired"
        return ""


def build_path(
    chain: tuple[bytes, ...], store: crypto.X509Store, *, anchor_has_dates: bool = True
) -> Path:
    """Validate *chain* (DER, leaf first) against the trust anchors in *store*, dates aside.

    Args:
        chain: as presented.
        store: the trust anchors.
        anchor_has_dates: False where an anchor that is no self-signed root is a
            name and a key, whose own dates do not matter (RFC 5280 section 6.1).
    """
    try:
        leaf, *others = (_x509(der) for der in chain)
        context = crypto.X509StoreContext(store, leaf, others)
        ders = [_der(certificate) for certificate in context.get_verified_chain()]
        certificates = [parse(der) for der in ders]
    except crypto.X509StoreContextError as error:
        return Path(error=_words(str(error.args[0])))
    except MalformedCertificateError as error:
        return Path(error=str(error))
    except (crypto.Error, ValueError):
        return Path(error="unreadable certificate")
    if len(certificates) > MAX_INTERMEDIATES + 2:
        return Path(error="certificate chain is too long")
    if not certificates[0].key_for_tls or not all(
        certificate.server_auth for certificate in certificates
    ):
        return Path(error="certificate is not meant for a TLS server")
    if any(certificate.weak_signature for certificate in certificates[:-1]):
        return Path(error="certificate is signed by a digest that is too weak")
    if any(map(has_weak_key, ders)):
        return Path(error=WEAK_KEY)
    dated = certificates
    if not anchor_has_dates and not certificates[-1].self_issued:
        dated = certificates[:-1]
    return Path(
        not_before=max(certificate.not_before for certificate in dated),
        not_after=min(certificate.not_after for certificate in dated),
        length=len(certificates),
    )


def signs(key: bytes, der: bytes) -> bool:
    """Whether *key* (a SubjectPublicKeyInfo) made the signature of a certificate.

    Not one by SHA-1 or older, which the library does not verify any more.
    """
    try:
        public, certificate = load_der_public_key(key), x509.load_der_x509_certificate(der)
        signature, signed = certificate.signature, certificate.tbs_certificate_bytes
        scheme = certificate.signature_algorithm_parameters
        match public:
            case rsa.RSAPublicKey() if isinstance(scheme, padding.AsymmetricPadding):
                if public.public_numbers().e.bit_length() > MAX_RSA_EXPONENT:
                    return False
                hash_algorithm = certificate.signature_hash_algorithm
                if hash_algorithm is None:
                    return False
                public.verify(signature, signed, scheme, hash_algorithm)
            case ec.EllipticCurvePublicKey() if isinstance(scheme, ec.ECDSA):
                public.verify(signature, signed, scheme)
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
                public.verify(signature, signed)
            case _:
                return False
    except Exception:  # noqa: BLE001 - whatever foreign bytes make the parsers raise
        return False
    return True


def without_former(chain: tuple[bytes, ...], now: float) -> tuple[bytes, ...]:
    """*chain* without issuers that are not valid at *now* where a renewed one is there too.

    OpenSSL takes the valid one of several with the same name and key; without
    dates it would take the first.
    """
    if len(chain) < _WITH_TWO_ISSUERS:
        return chain
    valid = {_identity(der) for der in chain[1:] if _is_valid(der, now)} - {b""}
    issuers = (der for der in chain[1:] if _is_valid(der, now) or _identity(der) not in valid)
    return (chain[0], *issuers)


def _is_valid(der: bytes, now: float) -> bool:
    try:
        found = parse(der)
    except MalformedCertificateError:
        return False
    return found.not_before <= now <= found.not_after


def next_change(chain: tuple[bytes, ...], now: float) -> float:
    """When the first certificate of *chain* begins or ceases to be valid; infinity for never."""
    moments = [math.inf]
    for der in chain:
        with contextlib.suppress(MalformedCertificateError):
            found = parse(der)
            moments += (found.not_before, found.not_after)
    return min(moment for moment in moments if moment > now)


def _identity(der: bytes) -> bytes:
    """Name and key of a certificate; empty where it cannot be read."""
    try:
        return parse(der).subject + public_key_info(der)
    except MalformedCertificateError:
        return b""


def last_sent(chain: tuple[bytes, ...]) -> bytes:
    """The certificate that is reached from the leaf by the names of issuers, as far as sent."""
    last = chain[0]
    left = list(chain[1:])
    with contextlib.suppress(MalformedCertificateError):
        while not parse(last).self_issued:
            issuer = parse(last).issuer
            found = next((der for der in left if _subject(der) == issuer), None)
            if found is None:
                break
            left.remove(found)
            last = found
    return last


def _subject(der: bytes) -> bytes:
    try:
        return parse(der).subject
    except MalformedCertificateError:
        return b""


def anchored_store(anchors: tuple[bytes, ...]) -> crypto.X509Store:
    """Make a store that trusts just *anchors*, be they roots or not (RFC 7672 section 3.1.2).

    One that OpenSSL cannot read anchors nothing.
    """
    store = crypto.X509Store()
    for der in anchors:
        with contextlib.suppress(crypto.Error):
            store.add_cert(_x509(der))
    store.set_flags(_NO_CHECK_TIME | _PARTIAL_CHAIN)
    return store


def ignore_dates(store: crypto.X509Store) -> crypto.X509Store:
    """Take the check of dates away from *store*: see :meth:`Path.error_at`."""
    store.set_flags(_NO_CHECK_TIME)
    return store


def _x509(der: bytes) -> crypto.X509:
    return crypto.load_certificate(crypto.FILETYPE_ASN1, der)


def _der(certificate: crypto.X509) -> bytes:
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)


def _words(text: str) -> str:
    return text[:1].lower() + text[1:]


# ---------------------------------------------------------------- names


@remembered(CACHED_CERTIFICATES)
def name_error(der: bytes, references: tuple[str, ...]) -> str:
    """Say which names a certificate has where none matches; the empty string where one does.

    Raises:
        MalformedCertificateError: it cannot be read.
    """
    leaf = parse(der)
    if any(name_matches(leaf, reference) for reference in references):
        return ""
    return printable(
        "certificate is for " + (", ".join(leaf.names[:3]) or "no name at all"), MAX_SHOWN
    )


def name_matches(certificate: Certificate, reference: str) -> bool:
    """Whether *certificate* names *reference*, as OpenSSL's X509_check_host() has it for Postfix.

    A *reference* that begins with a dot matches every subdomain. A presented
    ``*`` stands for exactly one label, the left-most one, and at least two
    labels follow it; it is never part of a label (RFC 6125 section 6.4.3).
    """
    wanted = reference.lower().removesuffix(".")
    return bool(wanted) and any(_matches(presented, wanted) for presented in certificate.names)


def _matches(presented: str, wanted: str) -> bool:
    if wanted.startswith("."):
        return presented.endswith(wanted)
    if presented == wanted:
        return True
    if not presented.startswith("*."):
        return False
    suffix = presented[1:]
    label, dot, parent = wanted.partition(".")
    return suffix.count(".") >= 2 and bool(label) and dot + parent == suffix
