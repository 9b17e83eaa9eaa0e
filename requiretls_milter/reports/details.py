"""What ``check -v`` tells of an address beyond the verdict: certificate, cipher, dialogue. Pure.

A certificate comes from a stranger: what cannot be read in it is told as such, and each text is
printable and bounded (R62).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from requiretls_milter.model import ProbeEvidence
from requiretls_milter.syntax.moments import moment
from requiretls_milter.syntax.text import printable

MAX_NAMES = 20
"""Names of a certificate that are shown: certificates of large hosters have hundreds."""

_UNREADABLE = "(cannot be read)"


class CertificateDetails(TypedDict):
    """The server's own certificate; times are RFC 3339 in UTC."""

    subject: str
    issuer: str
    names: list[str]
    not_before: str
    not_after: str
    key: str


class AddressDetails(TypedDict):
    """What a session with one address was like.

    ``dialogue`` has what both sides said, a line each.
    """

    cipher: str | None
    group: str | None
    certificate: CertificateDetails | None
    dialogue: list[str]


def details_of(probe: ProbeEvidence) -> AddressDetails:
    """Tell what a session was like."""
    return AddressDetails(
        cipher=probe.cipher or None,
        group=probe.group or None,
        certificate=_certificate(probe.chain[0]) if probe.chain else None,
        dialogue=probe.dialogue.splitlines(),
    )


def _certificate(der: bytes) -> CertificateDetails:
    try:
        certificate = x509.load_der_x509_certificate(der)
    except Exception:  # noqa: BLE001 - as below
        no = _UNREADABLE
        return CertificateDetails(
            subject=no, issuer=no, names=[], not_before=no, not_after=no, key=no
        )
    return CertificateDetails(
        subject=_read(lambda: certificate.subject.rfc4514_string()),
        issuer=_read(lambda: certificate.issuer.rfc4514_string()),
        names=_names(certificate),
        not_before=_read(lambda: moment(certificate.not_valid_before_utc.timestamp())),
        not_after=_read(lambda: moment(certificate.not_valid_after_utc.timestamp())),
        key=_read(lambda: _key(certificate)),
    )


def _read(field: Callable[[], str]) -> str:
    """Read a field: the library parses it only now, and raises whatever it likes."""
    try:
        return printable(field())
    except Exception:  # noqa: BLE001 - a stranger's certificate must not end the command
        return _UNREADABLE


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = [str(name.value) for name in found.value]
    except x509.ExtensionNotFound:
        return []
    except Exception:  # noqa: BLE001 - as above
        return [_UNREADABLE]
    shown = [printable(name) for name in names[:MAX_NAMES]]
    return [*shown, f"and {len(names) - MAX_NAMES} more"] if len(names) > MAX_NAMES else shown


def _key(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    return type(key).__name__.strip("_").removesuffix("PublicKey")
