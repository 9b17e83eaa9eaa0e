"""Next hops, in the notation of Postfix and of Sendmail.

A next hop is the name under which an MTA looks for the server of a message. :func:`parse` reads it
as smtp(8) and lmtp(8) do (host_port() and smtp_parse_destination()): ``example.org`` (MX
lookup), ``[mx.example.org]`` (address lookup only), ``192.0.2.1``, ``[192.0.2.1]``,
``[IPv6:2001:db8::1]``, each with an optional ``:port`` or ``:service`` behind its *last* colon. On
anything else the daemon ends with a fatal error: ``2001:db8::1`` is the host ``2001:db8:``, which
is none, at port 1.

Sendmail sends the same in ``{rcpt_host}``, with a trailing dot after a name that it has looked up,
and with further hosts after colons (``[mx1.example.org]:[mx2.example.org]``).

Names become A-labels in lower case (:func:`~requiretls_milter.syntax.names.to_alabel`). What
Postfix tells apart although it leads to the same servers (``example.org:25`` and ``example.org``,
``[192.0.2.1]`` and ``192.0.2.1``) is kept in :attr:`NextHop.given`.
"""

from __future__ import annotations

import functools
import re
import socket
from dataclasses import dataclass

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.model import (
    LMTP_PORT,
    LMTP_PREFIX,
    SMTP_PORT,
    SRV_PREFIX,
    HopKind,
    MailProtocol,
    NextHop,
)
from requiretls_milter.syntax.endpoint import MAX_PORT, port_number
from requiretls_milter.syntax.names import (
    MAX_TEXT,
    DomainNameError,
    address_literal,
    is_address,
    mail_exchanger,
    to_alabel,
)
from requiretls_milter.syntax.text import escaped, quoted

KNOWN_PORTS = {
    "lmtp": LMTP_PORT,
    "smtp": SMTP_PORT,
    "submission": 587,
    "submissions": 465,
    "smtps": 465,
}
"""Services that Postfix knows by itself (known_tcp_ports), before those of the system."""

MAX_KEPT = 1024
"""Next hops whose reading is kept: most mail goes to few of them."""

LOCAL = NextHop(HopKind.LOCAL, "")
"""The MTA delivers the message itself, without SMTP."""

SEPARATOR = re.compile(r"[,\s]+")
"""What separates the next hops of a list (Postfix 3.5 and later)."""

_INET = "inet:"
"""What lmtp(8) takes before a host, and smtp(8) does not."""

_IPV6 = "ipv6:"
"""What stands before an IPv6 address in brackets (RFC 5321 section 4.1.3)."""

_DEFAULT_PORTS = {MailProtocol.SMTP: SMTP_PORT, MailProtocol.LMTP: LMTP_PORT}

_FURTHER_HOSTS = re.compile(r":[A-Za-z0-9_.:\[\]-]*[.\[][A-Za-z0-9_.:\[\]-]*", re.ASCII)
_HEX_FIELD = re.compile(r"[0-9A-Fa-f]{1,4}")
_UNUSABLE = re.compile(r"[\x00-\x20\x7f]")


class NextHopError(RequiretlsMilterError, ValueError):
    """Text that is not a next hop; the message says what is wrong with it.

    Conclude: there is nothing to look up. The forecast of a recipient with this next hop is
    unknown; an argument of a command has a mistake.
    """


class UnusableNextHopError(NextHopError):
    """Text that smtp(8) or lmtp(8) of Postfix cannot use ("fatal: ... in server description").

    Conclude: Postfix delivers nothing there. The transport is throttled, and the mail stays in the
    queue until the operator has mended the setting.
    """


@functools.lru_cache(maxsize=MAX_KEPT)
def parse(
    text: str, protocol: MailProtocol = MailProtocol.SMTP, *, postfix: bool = False
) -> NextHop:
    """Read one next hop, as Postfix or as the mailertable and macros of Sendmail write it.

    Args:
        text: one next hop.
        protocol: what the transport speaks.
        postfix: whether Postfix reads it, so that nothing of Sendmail's is taken.

    Raises:
        UnusableNextHopError: smtp(8) or lmtp(8) cannot use it, and it is not Sendmail's either.
        NextHopError: *text* is empty, too long, or a list of several.
    """
    try:
        return _parse_as_postfix(text, protocol)
    except UnusableNextHopError:
        if postfix:
            raise
        found = _as_sendmail(text.strip())
        if found is None:
            raise
        return found


def _parse_as_postfix(text: str, protocol: MailProtocol) -> NextHop:
    """Read one next hop as smtp(8), or lmtp(8), reads it."""
    if len(text) > MAX_TEXT:
        raise NextHopError(f"a next hop of {len(text)} characters: at most {MAX_TEXT}")
    stripped = text.strip()
    if SEPARATOR.search(stripped):
        raise NextHopError(f"{quoted(text)} is a list of next hops, or not a next hop: give one")
    if not stripped:
        raise NextHopError("an empty next hop")
    if _UNUSABLE.search(stripped):
        raise NextHopError(f"{quoted(text)} is not a next hop")
    if stripped.startswith(SRV_PREFIX):
        return as_srv(_parse_as_postfix(stripped.removeprefix(SRV_PREFIX), protocol))
    if stripped.startswith(LMTP_PREFIX):
        return _split(stripped.removeprefix(LMTP_PREFIX), MailProtocol.LMTP)
    if protocol is MailProtocol.LMTP:
        return _split(stripped.removeprefix(_INET), protocol)
    return _split(stripped, protocol)


def as_srv(hop: NextHop) -> NextHop:
    """The same next hop with its servers named by SRV records; one in brackets stays as it is."""
    if hop.kind is HopKind.LOCAL or hop.destination.startswith("["):
        return hop
    return NextHop(HopKind.SRV, hop.host, hop.port, hop.protocol, hop.given)


def _split(text: str, protocol: MailProtocol) -> NextHop:
    """Split a next hop into host and port, as host_port() of Postfix does."""
    if text.startswith("["):
        inner, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise UnusableNextHopError(f"{quoted(text)} lacks its closing bracket")
        if rest and not rest.startswith(":"):
            raise UnusableNextHopError(f"only :port may follow the bracket of {quoted(text)}")
        service, kind = rest[1:], HopKind.HOST
    else:
        inner, colon, service = text.rpartition(":")
        if not colon:
            inner, service = text, ""
        kind = HopKind.MX if protocol is MailProtocol.SMTP else HopKind.HOST
    port = _port(service) if service else _DEFAULT_PORTS[protocol]
    host = _host(inner, text)
    if host.address:
        kind = HopKind.ADDRESS
    plain = NextHop(kind, host.name, port, protocol)
    given = text.lower()
    if not text.isascii() or given == plain.destination:
        return plain
    return NextHop(kind, host.name, port, protocol, given)


@dataclass(frozen=True, slots=True)
class _Host:
    """A host name as A-labels, or an address in the form of :mod:`ipaddress`."""

    name: str
    address: bool = False


def _host(name: str, text: str) -> _Host:
    """Read the host of next hop *text*: a name or an address, with or without ``IPv6:``."""
    if text.startswith("[") and name.lower().startswith(_IPV6):
        name = name[len(_IPV6) :]
        if address_literal(name) is None or ":" not in name:
            raise UnusableNextHopError(f"{quoted(text)}: malformed IPv6 address")
    found = mail_exchanger(name)
    if found is not None and is_address(found):
        return _Host(found, address=True)
    if _passes_for_ipv6(name):
        return _Host(name.lower())
    if address_literal(text) is not None:  # without brackets: its last field is not a port
        raise UnusableNextHopError(
            f"{quoted(text)} is an address, but what follows its last colon is taken for a port: "
            f"write [{escaped(text)}]"
        )
    if name.endswith("."):
        raise UnusableNextHopError(f"{quoted(text)}: a name with a dot at its end")
    try:
        return _Host(to_alabel(name))
    except DomainNameError as error:
        inet = f'; "{_INET}" is for lmtp(8) only' if text.startswith(_INET) else ""
        raise UnusableNextHopError(f"{error}{inet}") from None


def _passes_for_ipv6(name: str) -> bool:
    """Whether valid_ipv6_hostaddr() of Postfix takes an address that is too short.

    That happens to an address without brackets: its last field is taken for the port. The host is
    looked up and not found (5.4.4).
    """
    fields = name.split(":")
    return 3 <= len(fields) < 8 and all(_HEX_FIELD.fullmatch(field) for field in fields)


def _port(text: str) -> int:
    """The port that follows a colon: a number, or the name of a service in /etc/services."""
    if text.isascii() and text.isdigit():
        number = port_number(text)
        if number is None:
            raise UnusableNextHopError(
                f"port {quoted(text)}: expected a number from 1 to {MAX_PORT}"
            )
        return number
    if text[0].isdigit() or not text.isascii():
        raise UnusableNextHopError(
            f"port {quoted(text)}: expected a number or the name of a service"
        )
    known = KNOWN_PORTS.get(text)
    if known is not None:
        return known
    try:
        return socket.getservbyname(text, "tcp")
    except OSError:
        raise UnusableNextHopError(f"port {quoted(text)}: there is no such service") from None


def _as_sendmail(text: str) -> NextHop | None:
    """Read what Sendmail writes and Postfix does not take; None if it is not that either.

    Of a list of hosts the first one stands for all, and its port is that of SMTP.
    """
    if text.startswith(_INET):
        return None
    if text.startswith("["):
        inner, bracket, rest = text[1:].partition("]")
        if not bracket:
            return None
    else:
        inner, colon, rest = text.partition(":")
        rest = colon + rest
    if rest and not _FURTHER_HOSTS.fullmatch(rest):
        return None
    first = inner.removesuffix(".")
    try:
        return _split(f"[{first}]" if text.startswith("[") else first, MailProtocol.SMTP)
    except NextHopError:
        return None
