"""Results that are kept: what is expensive to compute about certificates and TLSA records.

Reading a certificate takes 100 microseconds, verifying a chain a millisecond, and
the same few thousand chains come back day after day. So the pure functions of
this package that compute about them keep their recent results; a hop is then
judged in tens of microseconds.

The arguments are kept with each result, and the arguments are what servers and
zones send. So results take a bounded number of octets, arguments included, and those
about much data are computed each time: a hostile server costs time, but never memory.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from requiretls_milter.bounded import BoundedMap, entry_octets
from requiretls_milter.model import TlsaRecord

MAX_CACHED_OCTETS = 16_384
"""Octets of the chains and records in the arguments of a result that is kept.

Four times what is usual. What a server sends or a zone holds may be six times as
large, and anyone can name thousands of such servers in DNS.
"""

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


def cached_if_small(
    octets: int,
) -> Callable[[Callable[[*Arguments], Result]], Callable[[*Arguments], Result]]:
    """Keep the last results of a pure function, but none about much data.

    The oldest result goes first, used lately or not: what is in use is computed
    again then, now and then. Calls from several threads do no harm; at
    worst a result is computed twice.

    Args:
        octets: of memory that all results may take with their arguments. What the
            arguments share with the evidence that is kept, or with those of another
            function, is counted all the same.
    """

    def decorate(function: Callable[[*Arguments], Result]) -> Callable[[*Arguments], Result]:
        kept: BoundedMap[tuple[*Arguments], tuple[Result]] = BoundedMap(
            max_weight=octets, weigh=entry_octets
        )
        lock = threading.Lock()

        @functools.wraps(function)
        def call(*arguments: *Arguments) -> Result:
            found = kept.get(arguments)
            if found is not None:
                return found[0]
            result = function(*arguments)
            if _octets(arguments) <= MAX_CACHED_OCTETS:
                with lock:
                    kept.put(arguments, (result,))
            return result

        return call

    return decorate


def _octets(value: object) -> int:
    """Count the octets of certificates and records in *value*."""
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, TlsaRecord):
        return len(value.data)
    return sum(map(_octets, value)) if isinstance(value, tuple) else 0
