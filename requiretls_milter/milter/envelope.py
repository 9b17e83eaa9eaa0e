"""What a message's envelope is changed to, where the configuration wants that. Pure.

A milter may give a message a sender with new ESMTP parameters (chgfrom).
``RET=HDRS`` keeps the body of a message that needs TLS out of its bounces,
which need not go over TLS (RFC 8689 section 5); a mark at the end of ``ENVID``
is how an MTA without routing by header fields, such as Sendmail, can be told
that a message needs TLS.

The two MTAs take such parameters differently. Postfix changes those that are
given, knows only RET and ENVID, and logs a warning for any other. Sendmail
forgets all parameters of the message and takes the given ones instead: what is
to stay has to be given again, but for SIZE, which it keeps, and AUTH, which it
refuses to take a second time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_ENVID = 100
"""Characters of ENVID's value (RFC 3461 section 4.4)."""

HEADERS_ONLY = "RET=HDRS"

_KEPT = ("BODY", "BY")
"""Of the parameters that Sendmail forgets, those that can be given again as they were."""

_PARAMETER = re.compile(r"([A-Za-z0-9-]+)=([!-<>-~]+)", re.ASCII)
"""RFC 5321 section 4.1.2: esmtp-param with a value."""


def _given(parameters: Iterable[bytes]) -> dict[str, str]:
    """The parameters that have a value, by name in upper case; the first one of a name."""
    given: dict[str, str] = {}
    for parameter in parameters:
        match = _PARAMETER.fullmatch(parameter.decode("latin-1"))
        if match is not None:
            given.setdefault(match[1].upper(), match[2])
    return given


def is_headers_only(parameters: Iterable[bytes]) -> bool:
    """Whether the sender itself wants no body in a bounce."""
    return _given(parameters).get("RET", "").upper() == "HDRS"


def marked(envid: str, mark: str) -> str:
    """``envid`` with ``mark`` at its end, after a dot.

    The mark counts for more than the sender's own identifier, which is given up
    where both together would be too long. One that is there already stays the
    only one: each hop of a site may mark.
    """
    if envid.lower() == mark.lower() or envid.lower().endswith(f".{mark.lower()}"):
        return envid
    both = f"{envid}.{mark}" if envid else mark
    return both if len(both) <= MAX_ENVID else mark


def new_parameters(parameters: Iterable[bytes], *, mark: str, keeps: bool) -> str:
    """The parameters for chgfrom, as one text.

    Args:
        parameters: those of MAIL, as the MTA handed them over.
        mark: to end ENVID with; "" for none.
        keeps: the MTA keeps what is not given (Postfix), and wants nothing else.
    """
    given = _given(parameters)
    envid = given.get("ENVID", "")
    # The mark first: of what a Sendmail with PrivacyOptions=noreceipts is given it takes one.
    new = []
    if mark:
        new.append(f"ENVID={marked(envid, mark)}")
    elif envid and not keeps:
        new.append(f"ENVID={envid}")
    if not keeps:
        new += [f"{name}={given[name]}" for name in _KEPT if name in given]
    return " ".join([*new, HEADERS_ONLY])
