"""A recipient's transport and next hop, from the macros that the MTA sends at RCPT. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from requiretls_milter.config.routes import Destination
from requiretls_milter.model import NextHop
from requiretls_milter.syntax.names import domain_of
from requiretls_milter.syntax.nexthop import LOCAL, SEPARATOR

if TYPE_CHECKING:
    from requiretls_milter.config import Mta

_UNIX_SOCKET = "unix:"
"""What lmtp(8) writes before the path of a unix socket."""


@dataclass(frozen=True, slots=True)
class Way:
    """Where a recipient's mail goes: the transport decides how, the next hop where to."""

    transport: str
    nexthop: NextHop


def from_macros(
    mailer: str, host: str, recipient: str, sender: str, mta: Mta, *, postfix: bool = False
) -> Way:
    """The way that the MTA will send a recipient's mail.

    What the MTA tells comes first. If it tells nothing (mail of Postfix's pickup service), the
    routes of the configuration decide (:mod:`requiretls_milter.config.routes`), and without any
    the recipient's domain, or the address in ``user@[192.0.2.1]``, is the next hop. An address
    without a domain is local.

    If the MTA names several next hops (Postfix 3.5: ``a.example, b.example``), the first
    one stands for all: the MTA uses the others only when it fails.

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
    if mailer or host:
        told = Destination(mailer, host)
    else:
        found = mta.destination_of(recipient, sender)
        if found is None:
            return Way("", LOCAL)
        told = found
    to = mta.handed_over(told, recipient)
    text = to.nexthop or domain_of(recipient)
    if not text or (to.transport and to.transport in mta.local_transports):
        return Way(to.transport, LOCAL)
    first = SEPARATOR.split(text.strip(), maxsplit=1)[0]
    if first.startswith(_UNIX_SOCKET):  # LMTP, whatever the transport's name (R19)
        return Way(to.transport, LOCAL)
    return Way(to.transport, mta.nexthop_of(first, to.transport, postfix=postfix))
