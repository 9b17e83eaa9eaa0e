"""PKIX: a chain that leads to a certification authority that the operator trusts."""

from __future__ import annotations

import datetime

from OpenSSL import crypto

from requiretls_milter.forecast import path
from requiretls_milter.forecast.certificate import name_mismatch
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
        self, store: crypto.X509Store, dated: crypto.X509Store, owners: object = None
    ) -> None:
        """Take the same authorities twice.

        Args:
            store: will no longer check dates.
            dated: goes on checking dates.
            owners: objects without which OpenSSL would free the stores; kept alive.
        """
        self._owners = owners
        self._dated = dated
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
        self._dated.set_time(datetime.datetime.fromtimestamp(now, datetime.UTC))
        return path.build_path(chain, self._dated)


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
        flaw = trust.path_at(chain, now).flaw_at(now)
    return flaw or name_mismatch(chain[0], references)
