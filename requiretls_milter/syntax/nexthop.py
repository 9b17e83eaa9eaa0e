"""Next hops, in the notation of Postfix and of Sendmail.

A next hop is the name under which an MTA looks for the server of a message. Postfix writes it as
transport(5) and smtp(8) describe: ``example.org`` (MX lookup), ``[mx.example.org]`` (address lookup
only), ``[192.0.2.1]``, ``[IPv6:2001:db8::1]``, each with an optional ``:port`` or ``:service``.
Sendmail sends the same in ``{rcpt_host}``, with a trailing dot after a name that it has looked up,
and with further hosts after colons (``[mx1.example.org]:[mx2.example.org]``).

Names become A-labels in lower case (:func:`~requiretls_milter.syntax.names.to_alabel`).
"""

from __future__ import annotations

import re
import socket

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.model import SMTP_PORT, HopKind, NextHop
from requiretls_milter.syntax.endpoint import MAX_PORT, port_number
from requiretls_milter.syntax.names import (
    MAX_TEXT,
    DomainNameError,
    address_literal,
    to_alabel,
)
from requiretls_milter.syntax.text import escaped, quoted

KNOWN_PORTS = {"smtp": SMTP_PORT, "submission": 587, "submissions": 465, "smtps": 465}
"""Services that Postfix knows by itself (known_tcp_ports), before those of the system."""

LOCAL = NextHop(HopKind.LOCAL, "")
"""The MTA delivers the message itself, without SMTP."""

SEPARATOR = re.compile(r"[,\s]+")
"""What separates the next hops of a list (Postfix 3.5 and later)."""

_SERVICE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?", re.ASCII)
_FURTHER_HOSTS = re.compile(r"[A-Za-z0-9_.:\[\]-]+", re.ASCII)
_UNUSABLE = re.compile(r"[\x00-\x20\x7f]")


class NextHopError(RequiretlsMilterError, ValueError):
    """Text that is not a next hop; the message says what is wrong with it.

    Conclude: there is nothing to look up. The forecast of a recipient with this next hop is
    unknown; an argument of a command has a mistake.
    """


def parse(text: str) -> NextHop:
    """Read one next hop, as Postfix or as the mailertable and macros of Sendmail write it.

    Raises:
        NextHopError: *text* is not a next hop, or is a list of several.
    """
    if len(text) > MAX_TEXT:
        raise NextHopError(f"a next hop of {len(text)} characters: at most {MAX_TEXT}")
    stripped = text.strip()
    if SEPARATOR.search(stripped):
        raise NextHopError(f"{quoted(text)} is a list of next hops, or not a next hop: give one")
    if not stripped:
        raise NextHopError("an empty next hop")
    if _UNUSABLE.search(stripped):
        raise NextHopError(f"{quoted(text)} is not a next hop")
    # smtp(8) accepts "inet:" before a next hop, as lmtp(8) does.
    stripped = stripped.removeprefix("inet:")
    if stripped.startswith("["):
        return _bracketed(stripped)
    host, colon, rest = stripped.partition(":")
    if colon and _address(stripped):
        raise NextHopError(f"{quoted(text)} is an address: write [{escaped(stripped)}]")
    port = _port(rest) if colon else SMTP_PORT
    domain = _domain(host)
    if colon and domain == "inet":
        raise NextHopError(f'{quoted(text)}: "inet:" is not a domain, with or without a port')
    return NextHop(HopKind.MX, domain, port)


def _bracketed(text: str) -> NextHop:
    """Read ``[host]`` or ``[address]``, with a port or the further hosts of a Sendmail list."""
    inner, bracket, rest = text[1:].partition("]")
    if not bracket:
        raise NextHopError(f"{quoted(text)} lacks its closing bracket")
    if rest and not rest.startswith(":"):
        raise NextHopError(f"only :port may follow the bracket of {quoted(text)}")
    port = _port(rest[1:]) if rest else SMTP_PORT
    address = _address(inner)
    if address:
        return NextHop(HopKind.ADDRESS, address, port)
    return NextHop(HopKind.HOST, _domain(inner), port)


def _domain(text: str) -> str:
    try:
        return to_alabel(text)
    except DomainNameError as error:
        raise NextHopError(str(error)) from None


def _address(text: str) -> str | None:
    """The address in a literal (RFC 5321 section 4.1.3), with or without ``IPv6:``, or None."""
    prefix, colon, rest = text.partition(":")
    return address_literal(rest if colon and prefix.lower() == "ipv6" else text)


def _port(text: str) -> int:
    """The port that follows a colon: a number, or the name of a service in /etc/services.

    Sendmail separates the hosts of a list by colons too. If the text has a dot or a bracket, which
    no service has, it is a further host, and the port of the first one is that of SMTP.
    """
    if text.startswith("[") or "." in text:
        if not _FURTHER_HOSTS.fullmatch(text):
            raise NextHopError(f"port {quoted(text)}: expected a number or the name of a service")
        return SMTP_PORT
    if text.isascii() and text.isdigit():
        number = port_number(text)
        if number is None:
            raise NextHopError(f"port {quoted(text)}: expected a number from 1 to {MAX_PORT}")
        return number
    if not _SERVICE.fullmatch(text):
        shown = quoted(text) if text else "is empty"
        raise NextHopError(f"port {shown}: expected a number or the name of a service")
    known = KNOWN_PORTS.get(text)
    if known is not None:
        return known
    try:
        return socket.getservbyname(text, "tcp")
    except OSError:
        raise NextHopError(f"port {quoted(text)}: there is no such service") from None
