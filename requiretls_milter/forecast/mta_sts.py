"""What an MTA-STS policy says: which MX hosts it allows (RFC 8461 section 4.1), and until when."""

from __future__ import annotations

from requiretls_milter.model import MtaStsEvidence, MtaStsPolicy
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


def policy_end(found: MtaStsEvidence) -> float:
    """When the max_age of the policy has passed, renewed or not (RFC 8461 section 3.3, R52).

    Seconds since the epoch; infinity without a policy.
    """
    return found.fetched_at + found.policy.max_age if found.policy is not None else float("inf")


def _normal(name: str) -> str:
    return name.lower().removesuffix(".")
