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

GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""The one block of IPv6 from which addresses are given out (RFC 4291 section 2.4)."""

NOT_GLOBAL: tuple[IpNetwork, ...] = (
    ipaddress.IPv4Network("0.0.0.0/8"),  # this network, RFC 791
    ipaddress.IPv4Network("10.0.0.0/8"),  # private use, RFC 1918
    ipaddress.IPv4Network("100.64.0.0/10"),  # shared with the provider, RFC 6598
    ipaddress.IPv4Network("127.0.0.0/8"),  # loopback, RFC 1122
    ipaddress.IPv4Network("169.254.0.0/16"),  # link-local, RFC 3927
    ipaddress.IPv4Network("172.16.0.0/12"),  # private use, RFC 1918
    ipaddress.IPv4Network("192.0.0.0/24"),  # IETF protocols, RFC 6890: the provider's, at most
    ipaddress.IPv4Network("192.0.2.0/24"),  # documentation, RFC 5737
    ipaddress.IPv4Network("192.88.99.0/24"),  # 6to4 relays, RFC 7526
    ipaddress.IPv4Network("192.168.0.0/16"),  # private use, RFC 1918
    ipaddress.IPv4Network("198.18.0.0/15"),  # benchmarks, RFC 2544
    ipaddress.IPv4Network("198.51.100.0/24"),  # documentation, RFC 5737
    ipaddress.IPv4Network("203.0.113.0/24"),  # documentation, RFC 5737
    ipaddress.IPv4Network("224.0.0.0/4"),  # multicast, RFC 5771
    ipaddress.IPv4Network("240.0.0.0/4"),  # reserved, RFC 1112; limited broadcast, RFC 8190
    ipaddress.IPv6Network("2001::/23"),  # IETF protocols, Teredo and ORCHID among them
    ipaddress.IPv6Network("2001:db8::/32"),  # documentation, RFC 3849
    ipaddress.IPv6Network("2002::/16"),  # 6to4: an IPv4 address in disguise, RFC 7526
    ipaddress.IPv6Network("3ffe::/16"),  # the 6bone, given back, RFC 3701
    ipaddress.IPv6Network("3fff::/20"),  # documentation, RFC 9637
)
"""Networks of IANA's special-purpose registries (RFC 6890) that hold no server of the internet.

Blocks in which a few addresses are global, such as 192.0.0.9 for PCP, stand here whole: none of
those is a mail server. IPv6 outside of GLOBAL_UNICAST needs no entry. Python's ``is_global``
does not decide: versions differ in 192.0.0.0/24, 64:ff9b:1::/48, 2001::/23, 2002::/16 and
3fff::/20.
"""


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
        if ip.scope_id is not None:
            return False
        if ip in NAT64:
            return is_global(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        if ip not in GLOBAL_UNICAST:
            return False
    return not any(ip in network for network in NOT_GLOBAL)
