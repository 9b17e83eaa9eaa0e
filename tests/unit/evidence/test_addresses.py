from __future__ import annotations

import ipaddress

import pytest

from requiretls_milter.evidence.addresses import AddressPolicy


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
