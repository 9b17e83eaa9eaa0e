"""What a message needs of the server beside its requirement, for ``model.Needs``. Pure.

It is read from the parameters of MAIL, which come from strangers: they are compared as bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from requiretls_milter.model import MAX_SIZE

SMTPUTF8 = b"SMTPUTF8"
"""RFC 6531 section 3.4: the parameter of MAIL; it has no value."""

SIGNIFICANT = 3
"""Decimal digits of a size that are kept. A message that is too large has a forecast of its own
for each size, and the number that a client declares is a guess anyway (RFC 1870 section 6.1)."""

_SIZE = re.compile(rb"SIZE=([0-9]{1,20})", re.IGNORECASE)


def asks_smtputf8(parameters: Iterable[bytes]) -> bool:
    """Whether SMTPUTF8 is among the MAIL parameters: any case, and no value."""
    for parameter in parameters:  # any() would take three times as long
        if len(parameter) == len(SMTPUTF8) and parameter.upper() == SMTPUTF8:
            return True
    return False


def declared_size(parameters: Iterable[bytes]) -> int:
    """The octets that the client declares, to three digits; 0 if it declares none."""
    for parameter in parameters:
        found = _SIZE.fullmatch(parameter)
        if found is not None:
            return _rounded(min(int(found[1]), MAX_SIZE))
    return 0


def _rounded(size: int) -> int:
    step = int(10 ** max(0, len(str(size)) - SIGNIFICANT))
    return size // step * step
