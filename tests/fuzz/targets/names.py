"""Names that an operator, a sender or an MTA writes: next hops, domains, addresses."""

from __future__ import annotations

from requiretls_milter.config import Config
from requiretls_milter.milter import hop
from requiretls_milter.model import HopKind, NextHop
from requiretls_milter.syntax import names, nexthop
from requiretls_milter.syntax.endpoint import MAX_PORT
from requiretls_milter.syntax.names import address_literal, valid_hostname
from tests.fuzz import expect, inputs

MAX_ERROR = 400
"""Characters of what is said of a bad next hop."""

_MTA = Config.model_validate({"mta": {"local_domains": ["here.example", ".here.example"]}}).mta


def next_hop(data: bytes) -> None:
    """A next hop in Postfix's notation."""
    _parse(inputs.text(data))


def _parse(text: str) -> None:
    try:
        found = nexthop.parse(text)
    except nexthop.NextHopError as error:
        expect.one_line(str(error), MAX_ERROR)
        return
    _check(found)


def _check(found: NextHop) -> None:
    assert found.kind is not HopKind.LOCAL
    assert 1 <= found.port <= MAX_PORT
    expect.one_line(str(found), names.MAX_NAME + len("srv:[ipv6:]:") + len("service-of-the-system"))
    assert nexthop.parse(str(found)) == found, "its text says something else"
    if found.kind is HopKind.ADDRESS:
        assert address_literal(found.host) == found.host
    elif ":" in found.host:  # too short an IPv6 address, or cut by Postfix: looked up, never found
        assert address_literal(found.host) is None
    else:
        assert valid_hostname(found.host)


def domain_name(data: bytes) -> None:
    """A domain name, in UTF-8."""
    text = data.decode("utf-8", "replace")
    try:
        name = names.to_alabel(text)
    except names.DomainNameError as error:
        expect.one_line(str(error), MAX_ERROR)
        # A wildcard is a host to Postfix, but no next hop.
        known = text.startswith("*.") or not valid_hostname(text)
        assert known, "two opinions on what a domain name is"
        return
    assert valid_hostname(name)
    assert name == name.lower()
    assert names.to_alabel(name) == name
    assert names.to_alabel(f"{name}.") == name
    assert names.to_alabel(name.upper()) == name
    *_, last = names.patterns(name)
    assert name.endswith(last)


def macros(data: bytes) -> None:
    """Mailer, host and an envelope address, separated by NUL."""
    mailer, host, address = (inputs.text(part) for part in [*data.split(b"\0"), b"", b""][:3])
    domain = names.domain_of(address)
    assert domain in address
    assert "@" not in domain
    try:
        found = hop.from_macros(mailer, host, address, address, _MTA).nexthop
    except nexthop.NextHopError as error:
        expect.one_line(str(error), MAX_ERROR)
        return
    if found != nexthop.LOCAL:
        assert mailer not in _MTA.local_transports
        _check(found)
