"""A recipient's transport and next hop, from the macros that the MTA sends at RCPT. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from requiretls_milter.config.routes import Destination, Way

if TYPE_CHECKING:
    from requiretls_milter.config import Mta


def from_macros(
    mailer: str, host: str, recipient: str, sender: str, mta: Mta, *, postfix: bool = False
) -> Way:
    """The way that the MTA will send a recipient's mail.

    What the MTA tells comes first. If it tells nothing (mail of Postfix's pickup service), the
    routes of the configuration decide (:mod:`requiretls_milter.config.routes`), and without any
    the recipient's domain, or the address in ``user@[192.0.2.1]``, is the next hop.

    The MTA computes both macros before it expands virtual aliases: an alias
    that leaves by SMTP looks local.

    Args:
        mailer: macro ``{rcpt_mailer}``, a transport's or mailer's name; may be "".
        host: macro ``{rcpt_host}``; may be "".
        recipient: the envelope address, as typed.
        sender: the reverse-path, as typed.
        mta: the configuration's ``[mta]``.
        postfix: whether the MTA says that it is Postfix.

    Raises:
        UnusableNextHopError: Postfix can deliver nothing there.
        NextHopError: the host, or the domain in its place, is not a next hop.
    """
    told = Destination(mailer, host) if mailer or host else None
    return mta.way(recipient, sender, told=told, postfix=postfix)
