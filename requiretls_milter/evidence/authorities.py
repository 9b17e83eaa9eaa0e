"""The certification authorities that the operator trusts, read from a file or from the system."""

from __future__ import annotations

from pathlib import Path

from OpenSSL import SSL, crypto

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.forecast.pkix import TrustStore


class TrustStoreError(RequiretlsMilterError):
    """A trust store that cannot be used; the text names the file and says why.

    The catcher concludes that no certificate can be verified with this
    configuration: it refuses the configuration, it does not go on without a store.
    """


def load_trust_store(ca_file: str = "") -> TrustStore:
    """Load a PEM file of authorities, or the system's store if *ca_file* is empty.

    It takes about 8 ms: load a store once.

    Raises:
        TrustStoreError: the file cannot be read or holds no certificate.
    """
    if ca_file:
        return TrustStore(_of_file(ca_file), _of_file(ca_file))
    (store, owner), (dated, its_owner) = _of_system(), _of_system()
    return TrustStore(store, dated, (owner, its_owner))


def _of_system() -> tuple[crypto.X509Store, SSL.Context]:
    """Open the system's store, with the context that owns it and must outlive it."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_default_verify_paths()
    store = context.get_cert_store()
    if store is None:
        raise TrustStoreError("OpenSSL has no default trust store")
    return store, context


def _of_file(ca_file: str) -> crypto.X509Store:
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
    return store
