"""Certificates that are verified by a chain to a certification authority we trust."""

from __future__ import annotations

import functools
from pathlib import Path as FilePath

from OpenSSL import SSL, crypto

from requiretls_milter.forecast import certificate
from requiretls_milter.forecast.certificate import Path

CACHED_PATHS = 4096


class TrustStoreError(Exception):
    """A trust store that cannot be used; the message names the file and says why."""


class TrustStore:
    """The certification authorities that count, loaded once (about 4 ms).

    Immutable in effect: verified paths are kept, since the same chain gives
    the same path. Used from one thread at a time.
    """

    def __init__(self, store: crypto.X509Store, owner: object = None) -> None:
        """Take *store*; *owner* is what OpenSSL would free it with."""
        self._owner = owner
        certificate.ignore_dates(store)
        self.path = functools.lru_cache(maxsize=CACHED_PATHS)(functools.partial(_path, store))
        """Find the path from a chain (DER, leaf first) to a trusted authority."""

    @classmethod
    def load(cls, ca_file: str = "") -> TrustStore:
        """Load a PEM file of authorities, or the system's store where *ca_file* is empty.

        Raises:
            TrustStoreError: the file cannot be read or holds no certificate.
        """
        if not ca_file:
            context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            context.set_default_verify_paths()
            store = context.get_cert_store()
            if store is None:
                raise TrustStoreError("OpenSSL has no default trust store")
            # pyOpenSSL only borrows the store: with its context it would be gone.
            return cls(store, owner=context)
        try:
            pem = FilePath(ca_file).read_bytes()
        except OSError as error:
            raise TrustStoreError(f"{ca_file}: {error.strerror}") from error
        if b"-----BEGIN CERTIFICATE-----" not in pem:
            raise TrustStoreError(f"{ca_file}: holds no certificate in PEM form")
        store = crypto.X509Store()
        try:
            store.load_locations(ca_file)
        except crypto.Error as error:
            raise TrustStoreError(f"{ca_file}: not a PEM file of certificates") from error
        return cls(store)


def _path(store: crypto.X509Store, chain: tuple[bytes, ...]) -> Path:
    return certificate.build_path(chain, store)


def verify(
    chain: tuple[bytes, ...], references: tuple[str, ...], trust: TrustStore, now: float
) -> str:
    """Say why *chain* does not prove one of *references*; the empty string where it does.

    A name that does not match is told only where the path itself holds, as
    Postfix tells "trusted" from "matching".
    """
    if not chain:
        return "no certificate presented"
    error = trust.path(chain).error_at(now)
    return error or certificate.name_error(chain[0], references)
