"""What an MTA carries: the requirements on which it acts by itself. Pure."""

from __future__ import annotations

import functools
import re

from requiretls_milter.model import Capability, Requirement

MAX_VERSION = 100
"""Characters of macro ``v`` that are kept: an MTA may be told to say anything there."""

_POSTFIX_VERSION = re.compile(r"Postfix (\d{1,4})\.(\d{1,4})", re.ASCII)
_SENDMAIL_VERSION = re.compile(r"8\.\d{1,3}(?:[./]|\Z)", re.ASCII)


def named(mta_version: str) -> str:
    """Macro ``v`` with the name of the MTA: Sendmail says its version alone."""
    return f"Sendmail {mta_version}" if _SENDMAIL_VERSION.match(mta_version) else mta_version


def is_postfix(mta_version: str) -> bool:
    """Whether macro ``v`` is that of Postfix, of whatever version."""
    return mta_version.startswith("Postfix ")


@functools.lru_cache(maxsize=16)  # asked for each connection, always of the same MTA
def capability(carries: Capability, mta_version: str) -> Capability:
    """The requirements that the MTA carries itself.

    Postfix honours ``TLS-Required: No`` since 3.10 and REQUIRETLS since 3.11.
    Sendmail, and an MTA that does not say what it is, are taken to honour neither:
    then only the milter enforces.

    Args:
        carries: ``mta.carries``.
        mta_version: macro ``v``, which decides if ``mta.carries`` is ``auto``.
    """
    if carries is not Capability.AUTO:
        return carries
    postfix = _POSTFIX_VERSION.match(mta_version)
    if postfix is None:
        return Capability.NOTHING
    version = (int(postfix[1]), int(postfix[2]))
    if version >= (3, 11):
        return Capability.REQUIRETLS
    return Capability.TLS_REQUIRED if version >= (3, 10) else Capability.NOTHING


def carried(able: Capability, requirement: Requirement) -> Requirement:
    """What the MTA acts on of a *requirement* that a message brings with it.

    A requirement of an operator's rule is no part of the message: no MTA acts on it.
    """
    if requirement is Requirement.REQUIRETLS:
        acts = able is Capability.REQUIRETLS
    else:
        acts = able is not Capability.NOTHING
    return requirement if acts else Requirement.NONE
