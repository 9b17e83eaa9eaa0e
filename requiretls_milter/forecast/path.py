"""Paths from a presented certificate to a trust anchor (RFC 5280 section 6).

Path validation is OpenSSL's own (X509_verify_cert()), as the MTAs use it, but
without its check of dates: those are compared here with the time that the caller
gives, so that a verified path can be kept and judged again later.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from OpenSSL import crypto

from requiretls_milter.forecast.certificate import (
    MTA_KEYS,
    RFC9325_KEYS,
    WEAK_KEY,
    has_weak_key,
    load,
    parse,
)
from requiretls_milter.forecast.der import MalformedCertificateError, public_key_info

# X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h; pyOpenSSL does not name it.
_NO_CHECK_TIME = 0x200000
_PARTIAL_CHAIN = int(crypto.X509StoreFlags.PARTIAL_CHAIN)

MAX_INTERMEDIATES = 10
"""Certificates between the server's own and the trust anchor (Postfix sets OpenSSL's depth to
smtp_tls_scert_verifydepth + 1, which is 10)."""

MAX_RSA_EXPONENT = 64
"""Bits of a public exponent: with a longer one, a hundred signatures would take a second."""

_SHORTEST_WITH_TWO_ISSUERS = 3
"""Certificates of the shortest chain in which one issuer can stand twice."""


@dataclass(frozen=True, slots=True)
class CertificatePath:
    """A path from the leaf to a trust anchor and when it is valid; or why there is none.

    Attributes:
        flaw: why there is no path at any time; None if there is one.
        not_before: when the path begins to be valid, seconds since the epoch.
        not_after: when it ceases to be valid, seconds since the epoch.
        length: how many certificates it has, leaf and anchor included.
        strong: no key in it has less than the 112 bits of security of RFC 9325.
    """

    flaw: str | None = None
    not_before: float = 0.0
    not_after: float = 0.0
    length: int = 0
    strong: bool = True

    def flaw_at(self, now: float) -> str | None:
        """Say why the path does not hold at *now*; None if it holds."""
        if self.flaw is not None:
            return self.flaw
        if now < self.not_before:
            return "certificate is not yet valid"
        if now > self.not_after:
            return "certificate has expired"
        return None

    def next_change(self, now: float) -> float:
        """Say when the path begins or ceases to hold after *now*; infinity for never."""
        ends = (self.not_before, self.not_after)
        return min((end for end in ends if self.flaw is None and end > now), default=math.inf)


def build_path(
    chain: tuple[bytes, ...], store: crypto.X509Store, *, anchor_has_dates: bool = True
) -> CertificatePath:
    """Validate *chain* against the trust anchors in *store*, dates aside.

    Args:
        chain: DER certificates as presented, leaf first.
        store: the trust anchors.
        anchor_has_dates: False if an anchor that is not a self-signed root is a
            name and a key, whose own dates do not matter (RFC 5280 section 6.1).
    """
    try:
        leaf, *others = (load(der) for der in chain)
        context = crypto.X509StoreContext(store, leaf, others)
        ders = [
            crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
            for certificate in context.get_verified_chain()
        ]
        certificates = [parse(der) for der in ders]
    except crypto.X509StoreContextError as error:
        text = str(error.args[0])
        return CertificatePath(flaw=text[:1].lower() + text[1:])
    except MalformedCertificateError as error:
        return CertificatePath(flaw=str(error))
    except (crypto.Error, ValueError):
        return CertificatePath(flaw="unreadable certificate")
    if len(certificates) > MAX_INTERMEDIATES + 2:
        return CertificatePath(flaw="certificate chain is too long")
    if not certificates[0].key_for_tls or not all(
        certificate.server_auth for certificate in certificates
    ):
        return CertificatePath(flaw="certificate is not meant for a TLS server")
    if any(certificate.weak_signature for certificate in certificates[:-1]):
        return CertificatePath(flaw="certificate is signed by a digest that is too weak")
    if any(has_weak_key(der, MTA_KEYS) for der in ders):
        return CertificatePath(flaw=WEAK_KEY)
    dated = certificates
    if not anchor_has_dates and not certificates[-1].self_issued:
        dated = certificates[:-1]
    return CertificatePath(
        not_before=max(certificate.not_before for certificate in dated),
        not_after=min(certificate.not_after for certificate in dated),
        length=len(certificates),
        strong=not any(has_weak_key(der, RFC9325_KEYS) for der in ders),
    )


def store_anchored_by(anchors: tuple[bytes, ...]) -> crypto.X509Store:
    """Make a store that trusts *anchors* alone, roots or not (RFC 7672 section 3.1.2, R38).

    A certificate that OpenSSL cannot read anchors nothing.
    """
    store = crypto.X509Store()
    for der in anchors:
        with contextlib.suppress(crypto.Error):
            store.add_cert(load(der))
    store.set_flags(_NO_CHECK_TIME | _PARTIAL_CHAIN)
    return store


def ignore_dates(store: crypto.X509Store) -> None:
    """Take the check of dates away from *store*: see :meth:`CertificatePath.flaw_at`."""
    store.set_flags(_NO_CHECK_TIME)


def signs(key: bytes, der: bytes) -> bool:
    """Say whether *key* (a SubjectPublicKeyInfo) made the signature of the certificate *der*.

    A signature by SHA-1 or older is never verified: the library no longer does it.
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
    except Exception:  # noqa: BLE001 - whatever the parsers raise for hostile octets
        return False
    return True


# ---------------------------------------------------------------- what a server sends


def without_superseded_issuers(chain: tuple[bytes, ...], now: float) -> tuple[bytes, ...]:
    """Drop the issuers that are not valid at *now* if the same issuer, renewed, is sent as well.

    OpenSSL takes the valid one of several certificates with the same name and
    key; without its check of dates it would take the first.
    """
    if len(chain) < _SHORTEST_WITH_TWO_ISSUERS:
        return chain
    valid = {_name_and_key(der) for der in chain[1:] if _is_valid(der, now)} - {None}
    issuers = (der for der in chain[1:] if _is_valid(der, now) or _name_and_key(der) not in valid)
    return (chain[0], *issuers)


def top_of_chain(chain: tuple[bytes, ...]) -> bytes:
    """Follow the issuers' names upwards from the leaf, to the last certificate that was sent."""
    top = chain[0]
    left = list(chain[1:])
    with contextlib.suppress(MalformedCertificateError):
        while not parse(top).self_issued:
            issuer = parse(top).issuer
            found = next((der for der in left if _subject(der) == issuer), None)
            if found is None:
                break
            left.remove(found)
            top = found
    return top


def _is_valid(der: bytes, now: float) -> bool:
    try:
        found = parse(der)
    except MalformedCertificateError:
        return False
    return found.not_before <= now <= found.not_after


def _name_and_key(der: bytes) -> bytes | None:
    try:
        return parse(der).subject + public_key_info(der)
    except MalformedCertificateError:
        return None


def _subject(der: bytes) -> bytes | None:
    try:
        return parse(der).subject
    except MalformedCertificateError:
        return None
