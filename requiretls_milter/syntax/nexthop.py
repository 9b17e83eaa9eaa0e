"""Next hops: the notation of Postfix and Sendmail, and the domain names in it.

A next hop is what an MTA looks up to find its server. Postfix writes it as
transport(5) and smtp(8) describe: ``example.org`` (MX lookup),
``[mx.example.org]`` (address lookup only), ``[192.0.2.1]``,
``[IPv6:2001:db8::1]``, each with an optional ``:port`` or ``:service``.
Sendmail hands over the same in ``{rcpt_host}``, with a trailing dot after a
name that it has looked up, and with further hosts after colons
(``[mx1.example.org]:[mx2.example.org]``).

Names become A-labels in lower case (RFC 5890, UTS #46 non-transitional); what
cannot stand in DNS raises :class:`NextHopError`, whose text is meant for people.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
from collections.abc import Iterator

import idna

from requiretls_milter.model import HopKind, NextHop

MAX_DOMAIN = 253
"""Octets of a domain name in text form (RFC 1035 section 2.3.4)."""

MAX_LABEL = 63
"""Octets of one label (RFC 1035 section 2.3.4)."""

MAX_TEXT = 1024
"""Characters of a next hop that are looked at: IDNA costs more than linear time."""

MAX_PORT = 65535
"""RFC 9293 section 3.1: 16 bits."""

SMTP_PORT = 25
"""RFC 5321 section 4.5.4.2."""

KNOWN_PORTS = {"smtp": SMTP_PORT, "submission": 587, "submissions": 465, "smtps": 465}
"""Postfix's known_tcp_ports, looked at before the system's services as Postfix does."""

LOCAL = NextHop(HopKind.LOCAL, "")
"""No SMTP hop: the MTA delivers itself."""

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?", re.ASCII)
_SERVICE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?", re.ASCII)
_LIST = re.compile(r"[,\s]+")
_FURTHER_HOSTS = re.compile(r"[A-Za-z0-9_.:\[\]-]+", re.ASCII)
_UNUSABLE = re.compile(r"[\x00-\x20\x7f]")


class NextHopError(ValueError):
    """Text that is no next hop, or no domain name; says what is wrong with it."""


def _shown(text: str) -> str:
    """Of hostile text, what fits into a message: printable ASCII, at most 60 characters."""
    shown = text[:61].encode("unicode_escape").decode("ascii")
    return shown if len(shown) <= 60 else shown[:57] + "..."


@functools.lru_cache(maxsize=4096)
def to_alabel(domain: str) -> str:
    """``domain`` as it stands in DNS: A-labels, lower case, no trailing dot.

    Underscores pass: they occur in names of mail domains, and Postfix lets
    them. A name that is all numbers does not: it would be an address.

    Raises:
        NextHopError: it is empty, too long, or has a label that DNS or IDNA
            does not allow.
    """
    if len(domain) > MAX_TEXT:
        raise NextHopError(f"a domain name of {len(domain)} characters: at most {MAX_DOMAIN}")
    name = domain
    if not name.isascii():
        try:
            name = idna.uts46_remap(name, std3_rules=False, transitional=False)
        except (idna.IDNAError, UnicodeError) as error:
            raise NextHopError(
                f"{_shown(domain)} is no domain name: {_shown(str(error))}"
            ) from None
    labels = name.lower().removesuffix(".").split(".")
    labels = [_label(label, domain) for label in labels]
    name = ".".join(labels)
    if len(name) > MAX_DOMAIN:
        raise NextHopError(
            f"{_shown(domain)} has {len(name)} octets as a domain name: at most {MAX_DOMAIN}"
        )
    if all(label.isdigit() for label in labels):
        raise NextHopError(f"{_shown(domain)} is a number, not a domain name: write [{name[:60]}]")
    return name


def _label(label: str, domain: str) -> str:
    if not label.isascii():
        try:
            return idna.alabel(label).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
            raise NextHopError(
                f"{_shown(domain)} is no domain name: {_shown(str(error))}"
            ) from None
    if not label:
        raise NextHopError(f"{_shown(domain) or 'the empty text'} is no domain name: empty label")
    if len(label) > MAX_LABEL:
        raise NextHopError(
            f"{_shown(domain)} has a label of {len(label)} octets: at most {MAX_LABEL}"
        )
    if not _LABEL.fullmatch(label):
        raise _no_domain(
            domain,
            "letters, digits, '-' and '_' make a label, which neither begins nor ends with '-'",
        )
    return label


def _no_domain(domain: str, why: str) -> NextHopError:
    reason = why[:200].encode("unicode_escape").decode("ascii")
    return NextHopError(f'"{_shown(domain)}" is no domain name: {reason}')


def parse(text: str) -> NextHop:
    """One next hop in Postfix's syntax, or as Sendmail's mailertable and macros have it.

    Raises:
        NextHopError: it is none. A list of next hops is an error here too.
    """
    if len(text) > MAX_TEXT:
        raise NextHopError(f"a next hop of {len(text)} characters: at most {MAX_TEXT}")
    stripped = text.strip()
    if _LIST.search(stripped):
        raise NextHopError(f"{_shown(text)} is a list of next hops, or no next hop: give one")
    if not stripped:
        raise NextHopError("an empty next hop")
    if _UNUSABLE.search(stripped):
        raise NextHopError(f"{_shown(text)} is no next hop")
    # smtp(8) knows "inet:" before a next hop, as lmtp(8) does
    stripped = stripped.removeprefix("inet:")
    if stripped.startswith("["):
        return _bracketed(stripped)
    host, colon, rest = stripped.partition(":")
    if colon and _is_address(stripped):
        raise NextHopError(f"{_shown(text)} is an address: write [{_shown(stripped)}]")
    port = _port(rest) if colon else SMTP_PORT
    domain = to_alabel(host)
    if colon and domain == "inet":
        raise NextHopError(f'{_shown(text)}: "inet:" is no domain with a port, nor one without')
    return NextHop(HopKind.MX, domain, port)


def _bracketed(text: str) -> NextHop:
    """``[host]``, ``[address]``, with a port or with further hosts of a Sendmail list."""
    inner, bracket, rest = text[1:].partition("]")
    if not bracket:
        raise NextHopError(f"{_shown(text)} lacks its closing bracket")
    if rest and not rest.startswith(":"):
        raise NextHopError(f"after the bracket of {_shown(text)} only :port may stand")
    port = _port(rest[1:]) if rest else SMTP_PORT
    address = _address(inner)
    if address:
        return NextHop(HopKind.ADDRESS, address, port)
    return NextHop(HopKind.HOST, to_alabel(inner), port)


def _address(text: str) -> str:
    """An address literal (RFC 5321 section 4.1.3) in :mod:`ipaddress`' form, or ``""``."""
    prefix, colon, rest = text.partition(":")
    literal = rest if colon and prefix.lower() == "ipv6" else text
    try:
        address = ipaddress.ip_address(literal)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
        return ""
    return str(address)


def _is_address(text: str) -> bool:
    return bool(_address(text))


def _port(text: str) -> int:
    """A port's number or a service's name; of a Sendmail list of hosts, its first one's.

    Sendmail separates the hosts of a list by colons: what follows the first
    colon is a host of its own where it has a dot or a bracket, which no
    service has, and the port is that of SMTP.
    """
    if text.startswith("[") or "." in text:
        if not _FURTHER_HOSTS.fullmatch(text):
            raise NextHopError(f"port {_shown(text)}: a number or a service's name")
        return SMTP_PORT
    if text.isascii() and text.isdigit():
        number = int(text) if len(text) <= 5 else 0
        if not 1 <= number <= MAX_PORT:
            raise NextHopError(f"port {_shown(text)}: from 1 to {MAX_PORT}")
        return number
    if not _SERVICE.fullmatch(text):
        raise NextHopError(f"port {_shown(text) or 'is empty'}: a number or a service's name")
    known = KNOWN_PORTS.get(text)
    if known is not None:
        return known
    try:
        return socket.getservbyname(text, "tcp")
    except OSError:
        raise NextHopError(f"port {_shown(text)}: no such service") from None


def patterns(domain: str) -> Iterator[str]:
    """The keys under which ``domain`` is sought, as in Postfix's tables.

    ``a.example.org``, then ``.example.org`` and ``.org``, the longest first: a
    pattern with a leading dot stands for all subdomains, not for the domain.
    """
    yield domain
    position = domain.find(".")
    while position >= 0:
        yield domain[position:]
        position = domain.find(".", position + 1)


def domain_of(address: str) -> str:
    """What follows the last ``@`` of an envelope address, brackets removed; may be empty.

    The local part may hold ``@`` in quotes (RFC 5321 section 4.1.2), the
    domain cannot.
    """
    bare = address.strip()
    if bare.startswith("<") and bare.endswith(">"):
        bare = bare[1:-1]
    return bare.rpartition("@")[2] if "@" in bare else ""
