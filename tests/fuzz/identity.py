"""An authority and a server's certificate, made anew in each process: no key is kept."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.forecast.pkix import TrustStore
from tests.support.pki import Pki

NAME = "mx1.example.org"


@dataclass(frozen=True)
class Identity:
    """The chain as DER, leaf first; who trusts it; and the server's side of TLS with it."""

    chain: tuple[bytes, ...]
    trust: TrustStore
    server: SSL.Context


@functools.cache
def identity() -> Identity:
    """The identity of this process."""
    with tempfile.TemporaryDirectory(prefix="requiretls-fuzz-") as scratch:
        pki = Pki(Path(scratch) / "pki")
        issued = pki.issue(NAME).path
        server = SSL.Context(SSL.TLS_SERVER_METHOD)
        server.use_certificate_chain_file(str(issued))
        server.use_privatekey_file(str(issued))
        trust = load_trust_store(str(pki.ca_file))
        pem = issued.read_bytes()
    certificates = x509.load_pem_x509_certificates(pem[pem.index(b"-----BEGIN CERTIFICATE") :])
    return Identity(
        tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates),
        trust,
        server,
    )
