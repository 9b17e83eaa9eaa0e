"""Certificates that are verified by a chain to a certification authority we trust."""

from __future__ import annotations

import datetime
import functools
from pathlib import Path as FilePath

from OpenSSL import SSL, crypto

from requiretls_milter.forecast import certificate
from requiretls_milter.forecast.certificate import Path, remembered

CACHED_PATHS = 4096


class TrustStoreError(Exception):
    """A trust store that cannot be used; the message names the file and says why."""


class TrustStore:
    """The certification authorities that count, loaded once (about 8 ms).

    Immutable in effect: verified paths are kept, since the same chain gives
    the same path. Used from one thread at a time.
    """

    def __init__(
        self, store: crypto.X509Store, dated: crypto.X509Store, owners: object = None
    ) -> None:
        """Take the same authorities twice; *owners* is what OpenSSL would free them with."""
        self._owners = owners
        self._dated = dated
        certificate.ignore_dates(store)
        self.path = remembered(CACHED_PATHS)(functools.partial(_path, store))
        """Find the path from a chain (DER, leaf first) to a trusted authority."""

    def path_at(self, chain: tuple[bytes, ...], now: float) -> Path:
        """Find a path that holds at *now*, where :attr:`path` may have come by another.

        Of several certificates of one authority, of which one has been renewed,
        OpenSSL takes one that is valid; without dates it takes the first.
        """
        self._dated.set_time(datetime.datetime.fromtimestamp(now, datetime.UTC))
        return certificate.build_path(chain, self._dated)

    @classmethod
    def load(cls, ca_file: str = "") -> TrustStore:
        """Load a PEM file of authorities, or the system's store where *ca_file* is empty.

        Raises:
            TrustStoreError: the file cannot be read or holds no certificate.
        """
        if ca_file:
            return cls(_of_file(ca_file), _of_file(ca_file))
        (store, owner), (dated, its_owner) = _of_system(), _of_system()
        return cls(store, dated, (owner, its_owner))


def _of_system() -> tuple[crypto.X509Store, SSL.Context]:
    """The system's store; pyOpenSSL only borrows it: without its context it would be gone."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_default_verify_paths()
    store = context.get_cert_store()
    if store is None:
        raise TrustStoreError("OpenSSL has no default trust store")
    return store, context


def _of_file(ca_file: str) -> crypto.X509Store:
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
    return store


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
    path = trust.path(chain)
    error = path.error_at(now)
    if error and not path.error:
        error = trust.path_at(chain, now).error_at(now)
    return error or certificate.name_error(chain[0], references)
