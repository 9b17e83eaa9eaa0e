"""PKIX: a chain that leads to a certification authority that the operator trusts."""

from __future__ import annotations

import datetime
from collections.abc import Callable

from OpenSSL import crypto

from requiretls_milter.forecast import path
from requiretls_milter.forecast.certificate import name_mismatch, parse
from requiretls_milter.forecast.memo import cached_if_small
from requiretls_milter.forecast.path import CertificatePath

CACHED_PATHS = 4096


class TrustStore:
    """The certification authorities that count.

    :mod:`requiretls_milter.evidence.authorities` loads them.

    It never changes: verified paths are kept, since the same chain gives the
    same path. Use it from one thread at a time.
    """

    def __init__(
        self,
        store: crypto.X509Store,
        open_again: Callable[[], tuple[crypto.X509Store, object]],
        owner: object = None,
    ) -> None:
        """Take the same authorities twice: once, and as often as dates have to be checked.

        Args:
            store: will no longer check dates.
            open_again: opens a further store of the same authorities, which checks dates, and
                an object without which OpenSSL would free it.
            owner: the object without which OpenSSL would free *store*; kept alive.
        """
        self._owner = owner
        self._open_again = open_again
        path.ignore_dates(store)

        @cached_if_small(CACHED_PATHS)
        def undated_path(chain: tuple[bytes, ...]) -> CertificatePath:
            return path.build_path(chain, store)

        self.path = undated_path
        """Find the path from a chain (DER, leaf first) to a trusted authority."""

    def path_at(self, chain: tuple[bytes, ...], now: float) -> CertificatePath:
        """Find a path that holds at *now*, even if :attr:`path` found another one.

        If an authority was renewed and both its certificates are at hand, OpenSSL
        takes the valid one; without its check of dates it takes the first.
        """
        # OpenSSL keeps the first time that a store is given: X509_STORE_set1_param(3) does not
        # overwrite it. So each time needs a store of its own.
        store, _owner = self._open_again()
        store.set_time(datetime.datetime.fromtimestamp(now, datetime.UTC))
        return path.build_path(chain, store)


def mismatch(
    chain: tuple[bytes, ...], references: tuple[str, ...], trust: TrustStore, now: float
) -> str | None:
    """Say why *chain* does not prove one of *references*; None if it does.

    The path comes before the name, as Postfix tells "trusted" from "matching".

    Args:
        chain: DER certificates as presented, leaf first.
        references: the names one of which the leaf must have; ".example.org"
            stands for all subdomains.
        trust: the authorities to which the chain may lead.
        now: the time of the check, seconds since the epoch.
    """
    if not chain:
        return "no certificate presented"
    undated = trust.path(chain)
    flaw = undated.flaw_at(now)
    if flaw is not None and undated.flaw is None:
        leaf = parse(chain[0])
        if leaf.not_before <= now <= leaf.not_after:
            # An issuer is out of date, but another of its certificates may not be.
            flaw = trust.path_at(chain, now).flaw_at(now)
    return flaw or name_mismatch(chain[0], references)
