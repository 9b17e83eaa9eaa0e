"""Where mail goes if the MTA does not name its next hop: mail of sendmail(1). Pure.

Postfix tells a milter the transport and the next hop of each recipient that comes by SMTP, but not
of one that comes by sendmail(1). For these :func:`find` does what its trivial-rewrite(8) does
(resolve.c, transport.c), with the tables of ``[mta]``:

1. the most specific key of ``routes`` that matches, or of ``local_domains``. ``mta import`` makes
   one table of transport_maps and of the address classes, in which transport_maps go first;
2. else default_transport, or the entry for the sender in its place. Its next hop is the one that
   it names itself, else the relay host of the sender, else relayhost, else the recipient's domain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from requiretls_milter.model import NextHop
from requiretls_milter.syntax.expansion import without_extension
from requiretls_milter.syntax.mailbox import Origin, routed_to, to_external, to_internal
from requiretls_milter.syntax.names import (
    DomainNameError,
    domain_literal,
    domain_of,
    is_null_sender,
    patterns,
    to_alabel,
)

if TYPE_CHECKING:
    from requiretls_milter.config.schema.mta import Mta

ANY = "*"
"""The key that matches whatever no other key does, of transport(5) and of tables by sender."""

NULL_SENDER = "<>"
"""The key of the null reverse-path (empty_address_relayhost_maps_lookup_key)."""

LOCAL_TRANSPORT = "local"
"""The transport of mail for an address of this host's interfaces."""

MAX_OPERATORS = 100
"""Operators that are followed in one local part: more than an address of 64 octets has."""

_NO_OPINION = "dunno"
"""The result of a table by sender that stands for "as if there were no entry"."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A transport and its next hop, both as Postfix writes them; either may be empty."""

    transport: str
    nexthop: str

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Split ``transport:nexthop`` at its first colon."""
        transport, _, nexthop = text.partition(":")
        return cls(transport.lstrip(), nexthop.strip())


@dataclass(frozen=True, slots=True)
class Way:
    """Where a recipient's mail goes: the transport decides how, the next hop where to."""

    transport: str
    nexthop: NextHop


def find(mta: Mta, recipient: str, sender: str) -> Destination | None:
    """Find where mail to *recipient* from *sender* goes; None if this host delivers it.

    Args:
        mta: the tables.
        recipient: an envelope address, with or without ``<>``; one without a domain is local.
        sender: the reverse-path; only the tables by sender read it.
    """
    recipient = _resolved(mta, recipient)
    domain = domain_of(recipient)
    if not domain:
        return None
    name = _name(domain)
    is_ours = _is_own_address(name, mta.my_addresses)
    for key in _recipient_keys(recipient, name, mta.recipient_delimiter):
        if key == ANY and is_ours:
            break
        if key in mta.routes:
            return _by_route(mta, mta.routes[key], domain, sender)
        if key in mta.local_domains:
            return None
    if is_ours:
        return Destination(LOCAL_TRANSPORT, mta.myhostname or domain)
    return _by_default(mta, domain, sender)


def _resolved(mta: Mta, recipient: str) -> str:
    """Write a recipient as Postfix looks it up: with the quotes that it needs, and no others.

    In a domain of ours a local part that names another address is followed. These domains are
    those of mydestination; if they are not known, all local ones.
    """
    bare = recipient.strip()
    if bare.startswith("<") and bare.endswith(">"):
        bare = bare[1:-1]
    if not any(character in bare.rpartition("@")[0] for character in '@!%"\\'):
        return bare
    address = to_internal(bare)
    ours = mta.mydestination or mta.local_domains
    origin = Origin("", mta.mydomain if mta.append_dot_mydomain else "")
    for _ in range(MAX_OPERATORS):
        name = _name(domain_of(address))
        is_ours = name in ours or _is_own_address(name, mta.my_addresses)
        inner = routed_to(address, origin) if is_ours else ""
        if not inner:
            break
        address = inner
    return to_external(address)


def handed_over(mta: Mta, to: Destination, recipient: str) -> Destination:
    """Follow ``hand_over``: where the mail of a transport such as local(8) goes in the end.

    Args:
        mta: has the table.
        to: where the MTA sends the mail first.
        recipient: an envelope address; a key ``user@transport`` is for one local part.
    """
    if not mta.hand_over:
        return to
    local = _local_part(recipient).lower()
    for user in dict.fromkeys((local, without_extension(local, mta.recipient_delimiter)[0])):
        text = mta.hand_over.get(f"{user}@{to.transport}")
        if text is not None:
            break
    else:
        text = mta.hand_over.get(to.transport)
    if text is None:
        return to
    over = Destination.parse(text)
    return Destination(over.transport, over.nexthop or to.nexthop)


def _by_route(mta: Mta, text: str, domain: str, sender: str) -> Destination:
    """Apply an entry: without a transport the default one stays, ``transport:`` is for the domain.

    A transport without a colon is that of an address class: relayhost has a say.
    """
    route = Destination.parse(text)
    if not route.transport:
        default = _by_default(mta, domain, sender)
        return Destination(default.transport, route.nexthop or default.nexthop)
    if ":" not in text:
        return Destination(route.transport, _relay(mta, domain, sender))
    return Destination(route.transport, route.nexthop or domain)


def _by_default(mta: Mta, domain: str, sender: str) -> Destination:
    channel = _by_sender(mta.sender_transports, sender, mta) or mta.default_transport
    route = Destination.parse(channel)
    return Destination(route.transport, route.nexthop or _relay(mta, domain, sender))


def _relay(mta: Mta, domain: str, sender: str) -> str:
    return _by_sender(mta.sender_relayhosts, sender, mta) or mta.relayhost or domain


def _by_sender(table: Mapping[str, str], sender: str, mta: Mta) -> str:
    """Look up a sender: its address, without its extension, its domain, ``*``; "" for none.

    ``*`` stands for a static table, which answers already when Postfix asks for the whole address.
    """
    if not table:
        return ""
    for key in _sender_keys(sender, "" if ANY in table else mta.recipient_delimiter):
        if key in table:
            return "" if table[key].lower() == _NO_OPINION else table[key]
    return ""


# ---------------------------------------------------------------- keys


def _recipient_keys(recipient: str, name: str, delimiter: str) -> Iterator[str]:
    yield from _addresses(recipient, name, delimiter)
    yield from patterns(name)
    yield ANY


def _sender_keys(sender: str, delimiter: str) -> Iterator[str]:
    if is_null_sender(sender):
        yield NULL_SENDER
    else:
        name = _name(domain_of(sender))
        yield from _addresses(sender, name, delimiter)
        yield f"@{name}"
    yield ANY


def _addresses(address: str, name: str, delimiter: str) -> Iterator[str]:
    local = _local_part(address).lower()
    yield f"{local}@{name}"
    bare = without_extension(local, delimiter)[0]
    if bare != local:
        yield f"{bare}@{name}"


def _local_part(address: str) -> str:
    return address.strip().removeprefix("<").removesuffix(">").rpartition("@")[0]


def _name(domain: str) -> str:
    try:
        return domain_literal(domain) or to_alabel(domain)
    except DomainNameError:
        return domain.lower()


def _is_own_address(name: str, own: tuple[str, ...]) -> bool:
    """Whether a domain is an address literal of this host (resolve_local() of Postfix)."""
    return name.startswith("[") and name[1:-1].removeprefix("ipv6:") in own
