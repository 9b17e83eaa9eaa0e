"""A recipient's next hop, from the macros that the MTA sends at RCPT. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from requiretls_milter.model import NextHop
from requiretls_milter.syntax.names import DomainNameError, patterns, to_alabel
from requiretls_milter.syntax.nexthop import LOCAL, SEPARATOR, parse

if TYPE_CHECKING:
    from requiretls_milter.config import Mta

_UNIX_SOCKET = "unix:"
"""What lmtp(8) writes before the path of a unix socket."""


def from_macros(mailer: str, host: str, recipient_domain: str, mta: Mta) -> NextHop:
    """The next hop to which the MTA will deliver a recipient's mail.

    If the MTA names several (Postfix 3.5: ``a.example, b.example``), the first
    one stands for all: the MTA uses the others only when it fails. If the MTA
    names none (mail of Postfix's pickup service), the recipient's domain is the
    next hop, or the address in ``user@[192.0.2.1]``. An address without a domain
    is local.

    The MTA computes both macros before it expands virtual aliases: an alias
    that leaves by SMTP looks local.

    Args:
        mailer: macro ``{rcpt_mailer}``, a transport's or mailer's name; may be "".
        host: macro ``{rcpt_host}``; may be "".
        recipient_domain: as typed, may be "".
        mta: the configuration's ``[mta]``.

    Raises:
        NextHopError: the host, or the domain in its place, is not a next hop.
    """
    if mailer and mailer in mta.local_transports:
        return LOCAL
    if not recipient_domain and not host:
        return LOCAL
    if recipient_domain and mta.local_domains:
        try:
            name = to_alabel(recipient_domain)
        except DomainNameError:
            name = ""  # an address literal, for example: the host decides
        if name and any(pattern in mta.local_domains for pattern in patterns(name)):
            return LOCAL
    target = SEPARATOR.split(host.strip(), maxsplit=1)[0] if host else recipient_domain
    if target.startswith(_UNIX_SOCKET):  # LMTP, whatever the transport's name (R19)
        return LOCAL
    return parse(target)
