"""What Postfix logs as ``relay=``."""

from __future__ import annotations

import pytest

from requiretls_milter.reports.logs.relay import Relay


@pytest.mark.parametrize(
    ("text", "relay"),
    [
        ("mx.example.org[192.0.2.1]:25", Relay("mx.example.org", "192.0.2.1", "25")),
        ("mx.example.org[2001:db8::1]:25", Relay("mx.example.org", "2001:db8::1", "25")),
        ("mx.example.org[private/dovecot]", Relay("mx.example.org", "private/dovecot", None)),
        ("none", None),
        ("local", None),
        ("mx.example.org[192.0.2.1]:25 x", None),
        ("", None),
    ],
)
def test_a_server_has_a_name_an_address_and_a_port(text: str, relay: Relay | None) -> None:
    assert Relay.parse(text) == relay


@pytest.mark.parametrize(
    ("address", "is_address", "is_here"),
    [
        ("192.0.2.1", True, False),
        ("127.0.0.9", True, True),
        ("::1", True, True),
        ("::ffff:127.0.0.1", True, True),
        ("::ffff:192.0.2.1", True, False),
        ("private/lmtp", False, False),
        ("127.1", False, False),
    ],
)
def test_only_an_address_can_be_of_this_host(address: str, is_address: bool, is_here: bool) -> None:
    relay = Relay("mx.example.org", address, "25")
    assert (relay.is_address, relay.is_here) == (is_address, is_here)
