"""The lab's certificate authority, and every kind of certificate that a server may present.

All of it is made anew for each lab: nothing expires in the repository, no key is kept. Tests
without a lab give the time for which certificates are to be valid.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = datetime.timedelta(days=1)

KINDS = ("match", "wrongname", "expired", "selfsigned", "untrusted", "cnonly")


def spki(key: PublicKeyTypes) -> bytes:
    """The SubjectPublicKeyInfo of *key*, DER: what TLSA selector 1 is about (RFC 6698 §2.1.2)."""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@dataclass(frozen=True)
class Authority:
    """A certificate authority."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True)
class Certificate:
    """A server's certificate."""

    path: Path
    """Key, certificate, and if asked for the authority's: one PEM file."""
    der: bytes
    spki: bytes


class Pki:
    """The authority that the lab's clients trust, one that nobody trusts, and what they issue."""

    def __init__(self, directory: Path, now: float | None = None) -> None:
        """Keep all files in *directory*, which is made.

        *now*, seconds since the epoch, is when certificates are issued; the clock's time if it
        is not given.
        """
        directory.mkdir(parents=True)
        self._directory = directory
        self._now = now
        self.authority = _authority("Lab CA", self._moment())
        self.stranger = _authority("Unknown CA", self._moment())
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(self.authority.pem)

    def issue(
        self,
        name: str,
        kind: str = "match",
        *,
        chain: bool = True,
        names: Sequence[str] = (),
        intermediates: int = 0,
    ) -> Certificate:
        """Issue a certificate of *kind* for host *name* (and *names*), with a key of its own.

        Between it and the authority there are so many *intermediates*, which are in the file, as
        is the authority with *chain*.
        """
        if kind not in KINDS:
            raise ValueError(f"no such kind of certificate: {kind}")
        key = ec.generate_private_key(ec.SECP256R1())
        root = issuer = self.stranger if kind == "untrusted" else self.authority
        between: list[Authority] = []
        for number in range(intermediates):
            issuer = _authority(f"Lab CA {number + 1} of {intermediates}", self._moment(), issuer)
            between.insert(0, issuer)
        subject = "wrong.name.invalid" if kind == "wrongname" else name
        others = () if kind == "wrongname" else names
        now = self._moment()
        end = now - _DAY if kind == "expired" else now + 30 * _DAY
        builder = _builder(subject, key, now - 10 * _DAY, end)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        ).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        if kind != "cnonly":
            alternatives = [x509.DNSName(item) for item in dict.fromkeys((subject, *others))]
            builder = builder.add_extension(
                x509.SubjectAlternativeName(alternatives), critical=False
            )
        if kind == "selfsigned":
            certificate = builder.issuer_name(_name(subject)).sign(key, hashes.SHA256())
        else:
            certificate = (
                builder.add_extension(
                    x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
                    critical=False,
                )
                .issuer_name(issuer.certificate.subject)
                .sign(issuer.key, hashes.SHA256())
            )
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ) + certificate.public_bytes(serialization.Encoding.PEM)
        pem += b"".join(authority.pem for authority in between)
        if chain and kind != "selfsigned":
            pem += root.pem
        digest = hashlib.sha256(spki(key.public_key())).hexdigest()[:12]
        path = self._directory / f"{name[:80]}.{digest}.pem"
        path.touch(mode=0o600)
        path.write_bytes(pem)
        return Certificate(
            path=path,
            der=certificate.public_bytes(serialization.Encoding.DER),
            spki=spki(key.public_key()),
        )

    def _moment(self) -> datetime.datetime:
        if self._now is None:
            return datetime.datetime.now(datetime.UTC)
        return datetime.datetime.fromtimestamp(self._now, datetime.UTC)


def _name(common_name: str) -> x509.Name:
    # A CN has at most 64 characters (RFC 5280, ub-common-name); a longer name is in the SAN.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _builder(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    start: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _authority(name: str, now: datetime.datetime, issuer: Authority | None = None) -> Authority:
    """An authority that *issuer* vouches for, or itself alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    # keyUsage and the key identifiers: Python 3.13 verifies strictly (VERIFY_X509_STRICT).
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _builder(name, key, now - 20 * _DAY, now + 60 * _DAY)
        .issuer_name(issuer.certificate.subject if issuer else _name(name))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer is not None:
        issuers = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        builder = builder.add_extension(issuers, critical=False)
    return Authority(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)
