"""The certification authorities that the operator trusts, read from a file or from the system.

They are read once, as they stand then. Whatever is verified, certificates of mail servers and of
policy hosts, is verified by these alone, until they are read again at a reload. So what was
vouched for can be remembered together with what vouched for it (:attr:`TrustStore.digest`).
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
from collections.abc import Iterator
from pathlib import Path

from OpenSSL import crypto

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.forecast.certificate import load
from requiretls_milter.forecast.pkix import TrustStore

_PEM = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)

_HASHED = re.compile("[0-9a-f]{8}\\.[0-9]+")
"""A file's name in a directory of authorities: the hash of the subject (openssl-rehash(1)). OpenSSL
reads no others."""


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
    return TrustStore(_of_file(ca_file) if ca_file else _of_system())


def _of_file(ca_file: str) -> Iterator[bytes]:
    try:
        blocks = pem_blocks(Path(ca_file))
    except OSError as error:
        raise TrustStoreError(f"{ca_file}: {error.strerror}") from error
    if not blocks:
        raise TrustStoreError(f"{ca_file}: holds no certificate in PEM form")
    for block in blocks:
        der = _readable(block)
        if der is None:
            raise TrustStoreError(f"{ca_file}: not a PEM file of certificates")
        yield der


def _of_system() -> Iterator[bytes]:
    """Read what OpenSSL reads by default: a file and a directory, of which either may be missing.

    OpenSSL would look into the directory whenever it needs an authority. What it finds there
    may change without a reload, and could not be named. A certificate that cannot be read
    vouches for nothing.
    """
    for path in _system_files():
        try:
            blocks = pem_blocks(path)
        except OSError:
            continue
        yield from filter(None, map(_readable, blocks))


def _system_files() -> Iterator[Path]:
    names = ssl.get_default_verify_paths()
    yield Path(os.environ.get(names.openssl_cafile_env, names.openssl_cafile))
    directories = os.environ.get(names.openssl_capath_env, names.openssl_capath)
    for directory in directories.split(os.pathsep):
        with contextlib.suppress(OSError):
            listed = sorted(os.listdir(directory)) if directory else []
            yield from (Path(directory, name) for name in listed if _HASHED.fullmatch(name))


def pem_blocks(path: Path) -> list[str]:
    """The certificates in a PEM file, in order, each as text; raises OSError."""
    return _PEM.findall(path.read_text(encoding="ascii", errors="replace"))


def _readable(block: str) -> bytes | None:
    """Decode a certificate; None if it cannot be read."""
    try:
        der = ssl.PEM_cert_to_DER_cert(block)
        load(der)
    except (crypto.Error, ValueError):
        return None
    return der
