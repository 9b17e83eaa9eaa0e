"""PKIX: a chain that leads to a certification authority that the operator trusts."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable

from OpenSSL import crypto

from requiretls_milter.forecast import path
from requiretls_milter.forecast.certificate import (
    Check,
    load,
    name_mismatch,
    next_validity_change,
    parse,
)
from requiretls_milter.forecast.memo import cached_if_small
from requiretls_milter.forecast.path import CertificatePath

CACHED_PATHS = 12 << 20
"""Octets of memory for the paths of one trust store: those of some 2,500 chains."""


class TrustStore:
    """The certification authorities that count.

    :mod:`requiretls_milter.evidence.authorities` loads them.

    It never changes: verified paths are kept, since the same chain gives the
    same path. Use it from one thread at a time.
    """

    def __init__(self, authorities: Iterable[bytes]) -> None:
        """Trust *authorities* (DER), in any order.

        Raises:
            OpenSSL.crypto.Error: one of them cannot be read.
        """
        self.authorities = tuple(dict.fromkeys(authorities))
        """Their certificates, DER."""
        self.digest = _digest(self.authorities)
        """What they are, whatever the file is called in which they stand."""
        self._certificates = [load(der) for der in self.authorities]
        store = self._open()
        path.ignore_dates(store)

        @cached_if_small(CACHED_PATHS)
        def undated_path(chain: tuple[bytes, ...]) -> CertificatePath:
            return path.build_path(chain, store)

        self.path = undated_path
        """Find the path from a chain (DER, leaf first) to a trusted authority."""

    def _open(self) -> crypto.X509Store:
        """Open a store of the authorities, which checks dates."""
        store = crypto.X509Store()
        for certificate in self._certificates:
            store.add_cert(certificate)
        return store

    def path_at(self, chain: tuple[bytes, ...], now: float) -> CertificatePath:
        """Find a path that holds at *now*, even if :attr:`path` found another one.

        If an authority was renewed and both its certificates are at hand, OpenSSL
        takes the valid one; without its check of dates it takes the first.
        """
        # OpenSSL keeps the first time that a store is given: X509_STORE_set1_param(3) does not
        # overwrite it. So each time needs a store of its own.
        store = self._open()
        store.set_time(datetime.datetime.fromtimestamp(now, datetime.UTC))
        return path.build_path(chain, store)

    def next_validity_change(self, now: float) -> float:
        """Say when the next authority begins or ceases to be valid; infinity for never."""
        return next_validity_change(self.authorities, now)


def _digest(authorities: Iterable[bytes]) -> str:
    """The digest of a set of certificates."""
    digests = sorted(hashlib.sha256(der).digest() for der in authorities)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def check(
    chain: tuple[bytes, ...], references: tuple[str, ...], trust: TrustStore, now: float
) -> Check:
    """Say whether *chain* proves one of *references*.

    The path comes before the name, as Postfix tells "trusted" from "matching".

    Args:
        chain: DER certificates as presented, leaf first.
        references: the names one of which the leaf must have; ".example.org"
            stands for all subdomains.
        trust: the authorities to which the chain may lead.
        now: the time of the check, seconds since the epoch.
    """
    if not chain:
        return Check("no certificate presented")
    found = trust.path(chain)
    if found.flaw is None and found.flaw_at(now) is not None:
        leaf = parse(chain[0])
        if leaf.not_before <= now <= leaf.not_after:
            # An issuer is out of date, but another of its certificates may not be.
            found = trust.path_at(chain, now)
    flaw = found.flaw_at(now)
    if flaw is None:
        # The path has the authority too, which the server need not send.
        mismatch = name_mismatch(chain[0], references)
        return Check(mismatch, found.next_change(now), small_key=not found.strong)
    return Check(flaw, min(next_validity_change(chain, now), trust.next_validity_change(now)))
