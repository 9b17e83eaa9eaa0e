from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from requiretls_milter.model import HopKind, NextHop
from requiretls_milter.syntax.nexthop import NextHopError, parse

MX, HOST, ADDRESS = HopKind.MX, HopKind.HOST, HopKind.ADDRESS


# ---------------------------------------------------------------- Postfix's syntax


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.org", NextHop(MX, "example.org")),
        ("Example.ORG", NextHop(MX, "example.org")),
        ("example.org:587", NextHop(MX, "example.org", 587)),
        ("example.org:submission", NextHop(MX, "example.org", 587)),
        ("example.org:smtp", NextHop(MX, "example.org", 25)),
        ("[mx.example.org]", NextHop(HOST, "mx.example.org")),
        ("[mx.example.org]:587", NextHop(HOST, "mx.example.org", 587)),
        ("[mx.example.org]:submissions", NextHop(HOST, "mx.example.org", 465)),
        ("[mx.example.org]:smtps", NextHop(HOST, "mx.example.org", 465)),
        ("[192.0.2.1]", NextHop(ADDRESS, "192.0.2.1")),
        ("[192.0.2.1]:2525", NextHop(ADDRESS, "192.0.2.1", 2525)),
        ("[IPv6:2001:db8::1]", NextHop(ADDRESS, "2001:db8::1")),
        ("[ipv6:2001:DB8:0::1]", NextHop(ADDRESS, "2001:db8::1")),
        ("[2001:db8::1]:587", NextHop(ADDRESS, "2001:db8::1", 587)),
        ("inet:[mx.example.org]:24", NextHop(HOST, "mx.example.org", 24)),
        (" example.org ", NextHop(MX, "example.org")),
        ("_dmarc.example.org", NextHop(MX, "_dmarc.example.org")),
        ("localhost", NextHop(MX, "localhost")),
        ("[mx.example.org]:1", NextHop(HOST, "mx.example.org", 1)),
        ("[mx.example.org]:65535", NextHop(HOST, "mx.example.org", 65535)),
    ],
)
def test_postfix_syntax_is_understood(text: str, expected: NextHop) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.org.", NextHop(MX, "example.org")),
        ("[relay.example.]", NextHop(HOST, "relay.example")),
        ("[relay.example]", NextHop(HOST, "relay.example")),
        ("mx1.example:mx2.example", NextHop(MX, "mx1.example")),
        ("[mx1.example]:[mx2.example]", NextHop(HOST, "mx1.example")),
        ("remote.test.:remote.test", NextHop(MX, "remote.test")),
        ("[IPv6:2001:db8::1]:[IPv6:2001:db8::2]", NextHop(ADDRESS, "2001:db8::1")),
    ],
)
def test_sendmails_trailing_dot_and_list_of_hosts_are_understood(
    text: str, expected: NextHop
) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("192.0.2.1", r"\[192.0.2.1\]"),
        ("2001:db8::1", r"\[2001:db8::1\]"),
        ("::1", r"\[::1\]"),
        ("[mx.example.org", "closing bracket"),
        ("[mx.example.org]587", "only :port"),
        ("[]", "empty"),
        ("example.org:", "empty"),
        ("example.org:0", "1 to 65535"),
        ("example.org:65536", "1 to 65535"),
        ("example.org:" + "9" * 500, "1 to 65535"),
        ("example.org:no-such-service-", "number or the name of a service"),
        ("example.org:nosuchservice", "no such service"),
        ("a.example, b.example", "list"),
        ("a.example b.example", "list"),
        ("ex\0ample.org", "not a next hop"),
        ("ex\rample.org", "list|not a next hop"),
        ("user@example.org", "not a domain name"),
        ("-example.org", "neither begins nor ends"),
        ("example-.org", "neither begins nor ends"),
        ("example..org", "empty"),
        (".example.org", "empty"),
        ("a" * 64 + ".example", "at most 63"),
        (".".join(["a" * 63] * 4) + ".org", "at most 253"),
        ("a." * 1000 + "org", "characters"),
        ("[fe80::1%eth0]", "not a domain name"),
        ("xn--.example\udcff", "not a domain name"),
        ("unix:/run/lmtp", "number or the name of a service"),
    ],
)
def test_what_is_no_next_hop_is_told_so_clearly(text: str, hint: str) -> None:
    with pytest.raises(NextHopError, match=hint) as caught:
        parse(text)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


# ---------------------------------------------------------------- whatever comes


@given(st.text(alphabet=st.sampled_from("ab1-._:[]@ ,\0é6IPv"), max_size=30))
@settings(max_examples=500)
def test_any_text_is_a_next_hop_or_an_error(text: str) -> None:
    try:
        hop = parse(text)
    except NextHopError:
        return
    assert 1 <= hop.port <= 65535
    assert parse(str(hop)) == hop


hosts = st.sampled_from(["example.org", "a.b.example", "xn--bcher-kva.example", "x_y.example"])


@given(
    st.one_of(
        st.builds(NextHop, st.sampled_from([MX, HOST]), hosts, st.integers(1, 65535)),
        st.builds(
            lambda address, port: NextHop(ADDRESS, str(address), port),
            st.ip_addresses(),
            st.integers(1, 65535),
        ),
    )
)
def test_the_canonical_form_is_read_back_as_the_same_next_hop(hop: NextHop) -> None:
    if "%" not in hop.host:
        assert parse(str(hop)) == hop
