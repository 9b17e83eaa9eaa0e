"""Domain names, host names, IP addresses and envelope addresses in text.

A domain name has labels of at most 63 octets, and at most 253 octets in all (RFC 1035 section
2.3.4). In the names of mail servers a label holds letters, digits and hyphens, neither first nor
last; underscores too, since they occur and Postfix accepts them. There are two questions about a
name:

- *How does it stand in DNS?* :func:`to_alabel` takes a name that a person or an MTA wrote, and
  returns A-labels in lower case (RFC 5890, UTS #46 non-transitional).
- *Would Postfix accept it?* :func:`valid_hostname` and :func:`mail_exchanger` judge a name that
  came out of DNS as valid_hostname() of Postfix and the C library do.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
import string
from collections.abc import Iterator

import idna

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.syntax.text import escaped, quoted

MAX_NAME = 253
"""Octets of a domain name as text, without the trailing dot (RFC 1035 section 2.3.4)."""

MAX_LABEL = 63
"""Octets of one label (RFC 1035 section 2.3.4)."""

MAX_TEXT = 1024
"""Characters of a name or next hop, beyond which it is refused: IDNA is slower than linear."""

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_LITERAL = re.compile(r"\[(?:ipv6:)?([^\[\]]*)\]", re.IGNORECASE)
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?", re.ASCII)


class DomainNameError(RequiretlsMilterError, ValueError):
    """Text that is not a domain name; the message says what is wrong with it.

    Conclude: DNS has nothing to say about it. It may still be an address.
    """


# ---------------------------------------------------------------- names that are given to us


@functools.lru_cache(maxsize=4096)
def to_alabel(domain: str) -> str:
    """Return *domain* as it stands in DNS: A-labels, lower case, no trailing dot (R54).

    A name that is all numbers is refused: it would be an address.

    Raises:
        DomainNameError: it is empty, too long, or has a label that DNS or IDNA does not allow.
    """
    if not domain:
        raise DomainNameError("an empty domain name")
    if len(domain) > MAX_TEXT:
        raise DomainNameError(f"a domain name of {len(domain)} characters: at most {MAX_NAME}")
    name = domain
    if not name.isascii():
        try:
            name = idna.uts46_remap(name, std3_rules=False, transitional=False)
        except (idna.IDNAError, UnicodeError) as error:
            raise _no_name(domain, escaped(str(error))) from None
    labels = [_alabel(label, domain) for label in name.lower().removesuffix(".").split(".")]
    name = ".".join(labels)
    if len(name) > MAX_NAME:
        raise DomainNameError(
            f"{quoted(domain)} has {len(name)} octets as a domain name: at most {MAX_NAME}"
        )
    if all(label.isdigit() for label in labels):
        raise DomainNameError(
            f"{quoted(domain)} is a number, not a domain name: write [{name[:60]}]"
        )
    return name


def _alabel(label: str, domain: str) -> str:
    """One label of *domain*, as an A-label."""
    if not label.isascii():
        try:
            return idna.alabel(label).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
            raise _no_name(domain, escaped(str(error))) from None
    if not label:
        raise _no_name(domain, "empty label")
    if len(label) > MAX_LABEL:
        raise DomainNameError(
            f"{quoted(domain)} has a label of {len(label)} octets: at most {MAX_LABEL}"
        )
    if not _LABEL.fullmatch(label):
        raise _no_name(
            domain,
            "letters, digits, '-' and '_' make a label, which neither begins nor ends with '-'",
        )
    return label


def _no_name(domain: str, why: str) -> DomainNameError:
    return DomainNameError(f"{quoted(domain)} is not a domain name: {why}")


def patterns(name: str) -> Iterator[str]:
    """Yield the keys under which Postfix looks *name* up in a table, the most specific first.

    ``a.example.org``, then ``.example.org`` and ``.org``: a pattern with a leading dot stands for
    all subdomains, not for the domain. If *name* is a pattern, it is the first of its own keys. An
    address has no parents.
    """
    yield name
    if is_address(name):
        return
    position = name.find(".", 1)
    while position >= 0:
        yield name[position:]
        position = name.find(".", position + 1)


# ---------------------------------------------------------------- envelope addresses


def domain_of(address: str) -> str:
    """What follows the last ``@`` of an envelope address, without angle brackets; may be empty.

    The local part may hold ``@`` in quotes (RFC 5321 section 4.1.2); the domain cannot.
    """
    bare = address.strip()
    if bare.startswith("<") and bare.endswith(">"):
        bare = bare[1:-1]
    return bare.rpartition("@")[2] if "@" in bare else ""


def is_null_sender(reverse_path: str) -> bool:
    """Whether it is the null reverse-path (R7); Postfix sends "" for bounces of its own."""
    return reverse_path.strip() in ("", "<>")


def envelope_domain(address: str) -> str:
    """The domain of an envelope address, as rules have it: A-labels; "" if there is none.

    Text that is not a domain name (an address literal, for example) stays as it is, in lower case.
    """
    domain = domain_of(address)
    try:
        return to_alabel(domain) if domain else ""
    except DomainNameError:
        return domain.lower()


# ---------------------------------------------------------------- addresses


def is_address(text: str) -> bool:
    """Whether *text* is an IPv4 or IPv6 address, with or without a zone (``fe80::1%eth0``)."""
    if ":" not in text and not text[-1:].isdigit():
        return False  # most names: ipaddress takes ten times as long to say so
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def address_literal(text: str) -> str | None:
    """Return *text*, if it is an IP address, in the form of :mod:`ipaddress`; else None.

    An address with a zone does not count: a zone has a meaning on one host only.
    """
    if ":" not in text and not text[-1:].isdigit():
        return None  # most are names: an IPv4 address ends with a digit
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if "%" in text else str(address)


def domain_literal(text: str) -> str:
    """Return *text*, if it is an address in brackets, in its one form; else "".

    The form is that of RFC 5321 section 4.1.3 in lower case: ``[192.0.2.1]``,
    ``[ipv6:2001:db8::1]``.
    """
    match = _LITERAL.fullmatch(text)
    address = address_literal(match[1]) if match else None
    if address is None:
        return ""
    return f"[ipv6:{address}]" if ":" in address else f"[{address}]"


# ---------------------------------------------------------------- names that DNS gives us


def valid_hostname(name: str) -> bool:
    """Whether valid_hostname() of Postfix accepts *name* as a host or domain name.

    A name of digits and dots alone is refused. The first label may be a wildcard.
    """
    if not name or len(name) > MAX_NAME:
        return False
    for label in name.removeprefix("*.").split("."):
        if len(label) > MAX_LABEL or not _LABEL.fullmatch(label):
            return False
    return not set(name) <= set(string.digits + ".")


def mail_exchanger(name: str) -> str | None:
    """Return the host that an MX record names, a host name or an address; None if it is neither.

    As in Postfix everything that the C library takes for an address is one: 0x7f.1 and 0177.0.0.1
    are 127.0.0.1.
    """
    if ":" in name:
        return address_literal(name)
    valid = valid_hostname(name)
    if not valid and not _four_octets(name):
        return None
    try:
        return str(ipaddress.IPv4Address(socket.inet_aton(name)))
    except OSError:
        return name if valid else None


def _four_octets(name: str) -> bool:
    """Whether valid_ipv4_hostaddr() of Postfix accepts *name*.

    It accepts leading zeros and 0.0.0.0, and refuses the rest of 0.0.0.0/8.
    """
    if len(name) > MAX_NAME:
        return False
    fields = name.split(".")
    if len(fields) != 4 or not all(field.isascii() and field.isdigit() for field in fields):
        return False
    octets = [int(field) for field in fields]
    return max(octets) <= 255 and (octets[0] > 0 or not any(octets))
