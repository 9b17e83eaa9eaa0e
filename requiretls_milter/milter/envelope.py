"""New ESMTP parameters for the sender, if the configuration wants the envelope changed. Pure.

A milter can set a message's sender with new ESMTP parameters (libmilter's chgfrom).
``RET=HDRS`` keeps the body of a message that needs TLS out of its bounces, which may
go without TLS (RFC 8689 section 5, R14). A mark at the end of ``ENVID`` tells an MTA
that cannot route by header fields, such as Sendmail, that a message needs TLS.

The two MTAs treat such parameters differently. Postfix changes those that are given,
knows only RET and ENVID, and logs a warning for any other. Sendmail drops all
parameters of the message and takes the given ones instead: what is to stay has to be
given again, except SIZE, which Sendmail keeps, and AUTH, which it refuses to take a
second time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_ENVID = 100
"""Characters of ENVID's value (RFC 3461 section 4.4)."""

HEADERS_ONLY = "RET=HDRS"

_KEPT = ("BODY", "BY")
"""Parameters that Sendmail drops and that can be given again as they were."""

_PARAMETER = re.compile(r"([A-Za-z0-9-]+)=([!-<>-~]+)", re.ASCII)
"""RFC 5321 section 4.1.2: esmtp-param with a value."""


def _given(parameters: Iterable[bytes]) -> dict[str, str]:
    """The parameters that have a value, by name in upper case; of equal names the first."""
    given: dict[str, str] = {}
    for parameter in parameters:
        match = _PARAMETER.fullmatch(parameter.decode("latin-1"))
        if match is not None:
            given.setdefault(match[1].upper(), match[2])
    return given


def is_headers_only(parameters: Iterable[bytes]) -> bool:
    """Whether the sender itself asks for bounces without the body."""
    return _given(parameters).get("RET", "").upper() == "HDRS"


def marked(envid: str, mark: str) -> str:
    """``envid`` with ``mark`` at its end, after a dot.

    If both together are too long, the sender's own identifier is dropped: the mark
    counts for more. A mark that is there already is not repeated, since every hop
    of a site may add it.
    """
    if envid.lower() == mark.lower() or envid.lower().endswith(f".{mark.lower()}"):
        return envid
    both = f"{envid}.{mark}" if envid else mark
    return both if len(both) <= MAX_ENVID else mark


def new_parameters(parameters: Iterable[bytes], *, mark: str, keeps: bool) -> str:
    """The parameters for chgfrom, as one text; always with ``RET=HDRS`` (R14).

    Args:
        parameters: those of MAIL, as the MTA handed them over.
        mark: the end of the new ENVID; "" for none.
        keeps: whether the MTA keeps parameters that are not given, as Postfix does.
    """
    given = _given(parameters)
    envid = given.get("ENVID", "")
    # The mark comes first: a Sendmail with PrivacyOptions=noreceipts takes only one parameter.
    new = []
    if mark:
        new.append(f"ENVID={marked(envid, mark)}")
    elif envid and not keeps:
        new.append(f"ENVID={envid}")
    if not keeps:
        new += [f"{name}={given[name]}" for name in _KEPT if name in given]
    return " ".join([*new, HEADERS_ONLY])
