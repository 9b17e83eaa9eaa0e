from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.evidence.addresses import NAT64, AddressPolicy


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_a_global_address_may_be_contacted(address: str) -> None:
    assert AddressPolicy([]).allows(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "fe80::1",
        "fe80::1%1",
        "fc00::1",
        "fec0::1",
        "224.0.0.1",
        "ff02::1",
        "ff0e::1",
        "0.0.0.0",
        "0.1.2.3",
        "::",
        "255.255.255.255",
        "240.0.0.1",
        "192.0.2.1",
        "198.51.100.1",
        "198.18.0.1",
        "2001:db8::1",
        "3fff::1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "64:ff9b:1::808:808",
        "2002:808:808::1",
        "2001::1",
        "192.88.99.1",
        "localhost",
        "",
        "8.8.8.8.8",
        "0x8.8.8.8",
        "8.8.8.8\x00",
    ],
)
def test_any_other_address_may_not(address: str) -> None:
    assert not AddressPolicy([]).allows(address)


def test_an_address_in_an_allowed_network_may_be_contacted() -> None:
    policy = AddressPolicy([ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("fd00::/8")])
    assert policy.allows("127.1.2.3")
    assert policy.allows("fd00::1")
    assert not policy.allows("10.0.0.1")


def test_a_mapped_address_is_not_the_address_that_it_maps() -> None:
    policy = AddressPolicy([ipaddress.ip_network("127.0.0.0/8")])
    assert not policy.allows("::ffff:127.0.0.1")


# IANA's registries of special-purpose addresses (RFC 6890) as of 2026, with what we make of
# each. Those that only a part of is global are not contacted at all: no mail server is there.
REGISTRY = {
    "0.0.0.0/8": False,
    "10.0.0.0/8": False,
    "100.64.0.0/10": False,
    "127.0.0.0/8": False,
    "169.254.0.0/16": False,
    "172.16.0.0/12": False,
    "192.0.0.0/24": False,
    "192.0.0.0/29": False,
    "192.0.0.8/32": False,
    "192.0.0.9/32": False,
    "192.0.0.10/32": False,
    "192.0.0.170/31": False,
    "192.0.2.0/24": False,
    "192.31.196.0/24": True,
    "192.52.193.0/24": True,
    "192.88.99.0/24": False,
    "192.88.99.2/32": False,
    "192.168.0.0/16": False,
    "192.175.48.0/24": True,
    "198.18.0.0/15": False,
    "198.51.100.0/24": False,
    "203.0.113.0/24": False,
    "224.0.0.0/4": False,
    "240.0.0.0/4": False,
    "255.255.255.255/32": False,
    "::/128": False,
    "::1/128": False,
    "::/96": False,
    "::ffff:0:0/96": False,
    "64:ff9b:1::/48": False,
    "100::/64": False,
    "100:0:0:1::/64": False,
    "1000::/4": False,
    "2001::/23": False,
    "2001::/32": False,
    "2001:1::1/128": False,
    "2001:1::2/128": False,
    "2001:1::3/128": False,
    "2001:2::/48": False,
    "2001:3::/32": False,
    "2001:4:112::/48": False,
    "2001:10::/28": False,
    "2001:20::/28": False,
    "2001:30::/28": False,
    "2001:db8::/32": False,
    "2002::/16": False,
    "2620:4f:8000::/48": True,
    "3ffe::/16": False,
    "3fff::/20": False,
    "4000::/3": False,
    "5f00::/16": False,
    "8000::/2": False,
    "fc00::/7": False,
    "fe80::/10": False,
    "fec0::/10": False,
    "ff00::/8": False,
}


@pytest.fixture
def python_without_opinion(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that is asked what kind of address one is fails the test: versions differ."""

    def asked(_: object) -> bool:
        raise AssertionError("Python was asked")

    kinds = ["global", "private", "reserved", "multicast", "unspecified", "loopback", "link_local"]
    for kind in kinds:
        for one in (ipaddress.IPv4Address, ipaddress.IPv6Address):
            monkeypatch.setattr(one, f"is_{kind}", property(asked))


@pytest.mark.usefixtures("python_without_opinion")
@pytest.mark.parametrize(("network", "contacted"), REGISTRY.items(), ids=REGISTRY)
def test_the_registry_decides_and_not_the_version_of_python(network: str, contacted: bool) -> None:
    block = ipaddress.ip_network(network)
    policy = AddressPolicy([])
    for address in (block[0], block[block.num_addresses // 2], block[-1]):
        assert policy.allows(str(address)) is contacted
        if block.version == 4:
            assert policy.allows(f"64:ff9b::{address}") is contacted
            assert not policy.allows(f"::ffff:{address}")


@pytest.mark.usefixtures("python_without_opinion")
@pytest.mark.parametrize(
    "address",
    [
        "1.0.0.0",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "191.255.255.255",
        "192.0.1.0",
        "192.0.3.0",
        "192.88.98.255",
        "192.88.100.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "198.51.101.0",
        "203.0.114.0",
        "223.255.255.255",
        "2000::",
        "2001:200::",
        "2001:db7:ffff::",
        "2001:db9::",
        "2003::",
        "3ffd:ffff::",
        "3fff:1000::",
    ],
)
def test_beside_each_block_addresses_are_contacted(address: str) -> None:
    assert AddressPolicy([]).allows(address)


@given(st.ip_addresses())
def test_nothing_is_contacted_that_this_python_knows_to_be_no_global_address(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    assert address.is_global or address in NAT64 or not AddressPolicy([]).allows(str(address))
