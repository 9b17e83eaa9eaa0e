"""A throw-away certificate authority."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tests.support.paths import DATA

DAY = datetime.timedelta(days=1)


RSA_16384 = DATA / "rsa16384.pem"
"""A key of 16,384 bits and its certificate: making one takes a minute, and nobody trusts it."""


DH_1024, DH_2048 = DATA / "dh1024.pem", DATA / "dh2048.pem"
"""Groups for a key exchange in a finite field, for :meth:`ssl.SSLContext.load_dh_params`."""


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, in files that ssl can load."""

    certificate: x509.Certificate
    path: Path

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path)
        return context


class Authority:
    """Issues what a test needs, faults included."""

    def __init__(self, directory: Path, name: str = "Test CA") -> None:
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _name(name)
        self.certificate = self.certified()
        self.path = directory / f"{name.replace(' ', '-')}.pem"
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def certified(self, end: datetime.timedelta = 30 * DAY) -> x509.Certificate:
        """Issue the authority's own certificate, each time with the same name and key."""
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        return (
            _builder(self.name, self.name, self.key.public_key(), end=end)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )

    def issue(
        self,
        *dns_names: str,
        common_name: str = "server",
        start: datetime.timedelta = -DAY,
        end: datetime.timedelta = 30 * DAY,
        extra_chain: int = 0,
        rsa_bits: int = 0,
    ) -> Issued:
        """Issue a certificate.

        *extra_chain*: how many times the CA is sent along with it. *rsa_bits*: of an RSA key; 0
        for a key on P-256.
        """
        key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
        if rsa_bits:
            key = rsa.generate_private_key(65_537, rsa_bits)
        else:
            key = ec.generate_private_key(ec.SECP256R1())
        # Python 3.13 wants certificates to name their issuer's key (VERIFY_X509_STRICT).
        builder = _builder(_name(common_name), self.name, key.public_key(), start, end)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
            critical=False,
        )
        if dns_names:
            names = x509.SubjectAlternativeName([x509.DNSName(name) for name in dns_names])
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        path = self.directory / f"{certificate.serial_number:x}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
            + extra_chain * self.path.read_bytes()
        )
        return Issued(certificate, path)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    start: datetime.timedelta = -DAY,
    end: datetime.timedelta = 30 * DAY,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() + start)
        .not_valid_after(now() + end)
    )


def with_a_mebibyte(pem: bytes, issuer: ec.EllipticCurvePrivateKey) -> bytes:
    """The same certificate, with its key, and with an extension of 1 MiB."""
    key = serialization.load_pem_private_key(pem, None)
    small = x509.load_pem_x509_certificate(pem)
    builder = (
        x509.CertificateBuilder()
        .subject_name(small.subject)
        .issuer_name(small.issuer)
        .public_key(small.public_key())
        .serial_number(small.serial_number)
        .not_valid_before(small.not_valid_before_utc)
        .not_valid_after(small.not_valid_after_utc)
        .add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"x" * 2**20),
            critical=False,
        )
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    big = builder.sign(issuer, hashes.SHA256())
    return private + big.public_bytes(serialization.Encoding.PEM)
