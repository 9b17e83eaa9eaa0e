"""Which addresses may be contacted.

Strangers write DNS. If a domain names 127.0.0.1 or 10.0.0.1 as its mail server or
policy host, that must not make us connect to hosts inside this network. Only global
unicast addresses are contacted, and those that ``probe.allow_networks`` names.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from requiretls_milter.syntax.names import IpAddress, IpNetwork

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""The well-known prefix of IPv4 addresses behind a translator (RFC 6052 section 2.1)."""

NOT_GLOBAL: tuple[IpNetwork, ...] = (
    ipaddress.IPv4Network("192.88.99.0/24"),  # 6to4 relays, RFC 7526
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # local translation, RFC 8215
    ipaddress.IPv6Network("2001::/23"),  # IETF protocols, Teredo and ORCHID among them
    ipaddress.IPv6Network("2002::/16"),  # 6to4: an IPv4 address in disguise, RFC 7526
    ipaddress.IPv6Network("3fff::/20"),  # documentation, RFC 9637
    ipaddress.IPv6Network("5f00::/16"),  # segment routing, RFC 9602
    ipaddress.IPv6Network("fec0::/10"),  # site-local, RFC 3879
)
"""Networks that ``is_global`` of some supported Python versions takes for global."""


class AddressPolicy:
    """Says which addresses may be contacted: global ones, and those of *allow_networks*."""

    def __init__(self, allow_networks: Iterable[IpNetwork]) -> None:
        self._allowed = tuple(allow_networks)

    def allows(self, address: str) -> bool:
        """Say whether *address* may be contacted; text that is not an address may not."""
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._allowed) or is_global(ip)


def is_global(ip: IpAddress) -> bool:
    """Say whether *ip* is a global unicast address.

    An IPv4-mapped address is not, whatever it maps: nothing in DNS has a reason to hold
    one, and the kernel would connect to the IPv4 address. An address behind the
    well-known NAT64 prefix is as global as the IPv4 address that it embeds.
    """
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None or ip.scope_id is not None:
            return False
        if ip in NAT64:
            return is_global(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    if ip.is_multicast or ip.is_reserved or ip.is_unspecified or not ip.is_global:
        return False
    return not any(ip in network for network in NOT_GLOBAL)
