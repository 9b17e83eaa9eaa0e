"""One certificate as a value: its names, dates, purpose and strength."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import crypto

from requiretls_milter.forecast.der import MalformedCertificateError
from requiretls_milter.forecast.memo import cached_if_small
from requiretls_milter.syntax.text import printable

CACHED_CERTIFICATES = 12 << 20
"""Octets of memory for certificates that were read: some 4,000."""

CACHED_ANSWERS = 6 << 20
"""Octets of memory for what else was found out about certificates: some 3,000 answers of a kind."""

WEAK_KEY = "certificate has a key that is too weak"


class ShortestKeys(NamedTuple):
    """Bits of the shortest keys with so much security (NIST SP 800-57 part 1, table 2).

    Attributes:
        factored: of an RSA or DSA key.
        elliptic: of a key on an elliptic curve.
    """

    factored: int
    elliptic: int


MTA_KEYS = ShortestKeys(1024, 160)
"""Those that OpenSSL's security level 1 takes, which smtp(8) sets if it verifies the server: 80
bits of security."""

RFC9325_KEYS = ShortestKeys(2048, 224)
"""Those that RFC 9325 takes (sections 4.1 and 4.5): 112 bits of security."""

_RSA_PSS = 912  # EVP_PKEY_RSA_PSS: NID_rsassaPss of OpenSSL's obj_mac.h; pyOpenSSL does not name it
_FACTORED_KEYS = (crypto.TYPE_RSA, _RSA_PSS, crypto.TYPE_DSA)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the forecast reads in one certificate.

    Attributes:
        dns_ids: the DNS names of subjectAltName, in lower case.
        cn_ids: the common names of the subject, in lower case.
        subject: the subject's name, DER.
        issuer: the issuer's name, DER.
        not_before: begin of its validity, seconds since the epoch.
        not_after: end of its validity, seconds since the epoch.
        server_auth: its extended key usage, if any, allows a TLS server.
        key_for_tls: its key usage, if any, allows a TLS handshake.
        self_issued: subject and issuer are the same.
        weak_signature: it is signed by MD5 or SHA-1.
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
        """The DNS-IDs, or the CN-IDs if there is no DNS-ID (RFC 6125 section 6.4.4)."""
        return self.dns_ids or self.cn_ids


@cached_if_small(CACHED_CERTIFICATES)
def parse(der: bytes) -> Certificate:
    """Read a DER certificate.

    Raises:
        MalformedCertificateError: it cannot be read, whatever the parser raised.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        return Certificate(
            dns_ids=_dns_ids(certificate),
            cn_ids=_cn_ids(certificate),
            subject=certificate.subject.public_bytes(),
            issuer=certificate.issuer.public_bytes(),
            not_before=certificate.not_valid_before_utc.timestamp(),
            not_after=certificate.not_valid_after_utc.timestamp(),
            server_auth=_may_serve_tls(certificate),
            key_for_tls=_key_may_serve_tls(certificate),
            self_issued=certificate.subject == certificate.issuer,
            weak_signature=_is_weakly_signed(certificate),
        )
    except Exception as error:
        raise MalformedCertificateError(printable(f"unreadable certificate: {error}")) from error


def load(der: bytes) -> crypto.X509:
    """Read a DER certificate for OpenSSL.

    Raises:
        OpenSSL.crypto.Error: it cannot be read.
    """
    return crypto.load_certificate(crypto.FILETYPE_ASN1, der)


class Check(NamedTuple):
    """What the check of a presented certificate found, and how long that holds.

    Attributes:
        mismatch: why the certificate proves nothing; None if it proves what it should.
        until: when time alone may change what was found, seconds since the epoch; infinity
            for never.
        small_key: a key that it proves something by has less than 112 bits of security (R64).
    """

    mismatch: str | None = None
    until: float = math.inf
    small_key: bool = False


PASSED = Check()
"""The result where nothing has to be checked, or a check that no time changes was passed."""


def next_validity_change(chain: tuple[bytes, ...], now: float) -> float:
    """Say when the next certificate of *chain* begins or ceases to be valid; infinity for never."""
    moments = [math.inf]
    for der in chain:
        with contextlib.suppress(MalformedCertificateError):
            found = parse(der)
            moments += (found.not_before, found.not_after)
    return min(moment for moment in moments if moment > now)


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
    """Apply OpenSSL's purpose "sslserver": an extended key usage, if present, must allow it."""
    try:
        extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.SERVER_AUTH in extended


def _key_may_serve_tls(certificate: x509.Certificate) -> bool:
    """Apply it to the key usage: one of those that TLS handshakes need (OpenSSL's KU_TLS)."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.digital_signature or usage.key_encipherment or usage.key_agreement


def _is_weakly_signed(certificate: x509.Certificate) -> bool:
    """Say whether it is signed by MD5 or SHA-1.

    Since OpenSSL 3.0 both have less than the 80 bits of its security level 1,
    which smtp(8) sets if it authenticates the server. A signature algorithm that
    the library does not know is newer than these two.
    """
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return False
    return isinstance(algorithm, hashes.MD5 | hashes.SHA1)


def has_weak_key(der: bytes, shortest: ShortestKeys) -> bool:
    """Say whether a certificate's key is shorter than the *shortest* that is secure enough.

    Args:
        der: the certificate.
        shortest: :data:`MTA_KEYS` or :data:`RFC9325_KEYS`.

    A key that cannot be read counts as weak.
    """
    is_factored, bits = _key_length(der)
    return bits < (shortest.factored if is_factored else shortest.elliptic)


@cached_if_small(CACHED_ANSWERS)
def _key_length(der: bytes) -> tuple[bool, int]:
    """Whether a certificate's key is one of RSA or DSA, and its bits; none if it is unreadable."""
    try:
        key = load(der).get_pubkey()
    except (crypto.Error, ValueError):
        return True, 0
    return key.type() in _FACTORED_KEYS, key.bits()


# ---------------------------------------------------------------- names


@cached_if_small(CACHED_ANSWERS)
def name_mismatch(der: bytes, references: tuple[str, ...]) -> str | None:
    """Say which names a certificate has if none is one of *references*; None if one is.

    Raises:
        MalformedCertificateError: it cannot be read.
    """
    leaf = parse(der)
    if any(name_matches(leaf, reference) for reference in references):
        return None
    # Names in a certificate are hostile text (R62).
    return printable("certificate is for " + (", ".join(leaf.names[:3]) or "no name at all"))


def name_matches(certificate: Certificate, reference: str) -> bool:
    """Say whether *certificate* names *reference*, as OpenSSL's X509_check_host() does for Postfix.

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
