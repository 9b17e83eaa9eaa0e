"""The certification authorities that the operator trusts, read from a file or from the system."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from OpenSSL import SSL, crypto

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.forecast.pkix import TrustStore

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class TrustStoreError(RequiretlsMilterError):
    """A trust store that cannot be used; the text names the file and says why.

    The catcher concludes that no certificate can be verified with this
    configuration: it refuses the configuration, it does not go on without a store.
    """


def load_trust_store(ca_file: str = "") -> TrustStore:
    """Load a PEM file of authorities, or the system's store if *ca_file* is empty.

    It takes about 12 ms: load a store once.

    Raises:
        TrustStoreError: the file cannot be read or holds no certificate.
    """
    return _of_file(ca_file) if ca_file else _of_system()


def _of_system() -> TrustStore:
    store, owner = _open_system()
    return TrustStore(store, _open_system, owner)


def _open_system() -> tuple[crypto.X509Store, SSL.Context]:
    """Open the system's store, with the context that owns it and must outlive it."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_default_verify_paths()
    store = context.get_cert_store()
    if store is None:
        raise TrustStoreError("OpenSSL has no default trust store")
    return store, context


def _of_file(ca_file: str) -> TrustStore:
    try:
        pem = Path(ca_file).read_bytes()
    except OSError as error:
        raise TrustStoreError(f"{ca_file}: {error.strerror}") from error
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise TrustStoreError(f"{ca_file}: holds no certificate in PEM form")
    store = crypto.X509Store()
    try:
        store.load_locations(ca_file)
    except crypto.Error as error:
        raise TrustStoreError(f"{ca_file}: not a PEM file of certificates") from error
    # The file may change; the authorities that were loaded stay until the next load.
    authorities = tuple(_certificates(pem))

    def again() -> tuple[crypto.X509Store, None]:
        another = crypto.X509Store()
        for authority in authorities:
            another.add_cert(authority)
        return another, None

    return TrustStore(store, again)


def _certificates(pem: bytes) -> Iterator[crypto.X509]:
    """Read the certificates of a PEM file, but for those that cannot be read."""
    for block in _PEM.findall(pem):
        with contextlib.suppress(crypto.Error):
            yield crypto.load_certificate(crypto.FILETYPE_PEM, block)
