"""Whether an MX host is one that an MTA-STS policy allows (RFC 8461 section 4.1)."""

from __future__ import annotations

from requiretls_milter.model import MtaStsPolicy
from requiretls_milter.syntax.names import is_address


def mta_sts_match(policy: MtaStsPolicy, host: str) -> bool:
    """Say whether *host*, the name that the MX record gives, matches a pattern of *policy* (R55).

    Case does not matter, nor does a trailing dot. ``*.example.net`` stands for
    exactly one label before ``example.net``. An address never matches. The mode of the
    policy plays no part.
    """
    name = _normal(host)
    if not name or is_address(name):
        return False
    label, _, parent = name.partition(".")
    for pattern in policy.mx:
        wanted = _normal(pattern)
        if wanted.startswith("*."):
            if label and parent == wanted[2:]:
                return True
        elif wanted == name:
            return True
    return False


def _normal(name: str) -> str:
    return name.lower().removesuffix(".")
