"""Results that are kept: what is expensive to compute about certificates and TLSA records.

Reading a certificate takes 100 microseconds, verifying a chain a millisecond, and
the same few thousand chains come back day after day. So the pure functions of
this package that compute about them keep their recent results; a hop is then
judged in tens of microseconds.

The arguments are kept with each result, and the arguments are what servers and
zones send. So results about much data are computed each time: a hostile server
costs time, but never memory.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, cast

from requiretls_milter.model import TlsaRecord

MAX_CACHED_OCTETS = 16_384
"""Octets of the chains and records in the arguments of a result that is kept.

Four times what is usual. What a server sends or a zone holds may be six times as
large, and anyone can name thousands of such servers in DNS.
"""

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


def cached_if_small(
    most: int,
) -> Callable[[Callable[[*Arguments], Result]], Callable[[*Arguments], Result]]:
    """Keep the last *most* results of a pure function, but none about much data.

    The oldest result goes first, used lately or not: what is in use is computed
    again then, once in *most* times. Calls from several threads do no harm; at
    worst a result is computed twice.
    """

    def decorate(function: Callable[[*Arguments], Result]) -> Callable[[*Arguments], Result]:
        kept: OrderedDict[tuple[*Arguments], Result] = OrderedDict()
        missing = cast(Result, object())

        @functools.wraps(function)
        def call(*arguments: *Arguments) -> Result:
            found = kept.get(arguments, missing)
            if found is not missing:
                return found
            result = function(*arguments)
            if _octets(arguments) <= MAX_CACHED_OCTETS:
                kept[arguments] = result
                if len(kept) > most:
                    kept.popitem(last=False)
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
