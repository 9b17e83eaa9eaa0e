from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from requiretls_milter.model import HopKind, MailProtocol, NextHop
from requiretls_milter.syntax.nexthop import NextHopError, UnusableNextHopError, parse

MX, HOST, ADDRESS = HopKind.MX, HopKind.HOST, HopKind.ADDRESS


def hop(kind: HopKind, host: str, port: int, given: str) -> NextHop:
    """A next hop that Postfix calls by another text than the canonical one."""
    return NextHop(kind, host, port, given=given)


# ---------------------------------------------------------------- Postfix's syntax


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.org", NextHop(MX, "example.org")),
        ("Example.ORG", NextHop(MX, "example.org")),
        ("example.org:587", NextHop(MX, "example.org", 587)),
        ("example.org:submission", hop(MX, "example.org", 587, "example.org:submission")),
        ("example.org:smtp", hop(MX, "example.org", 25, "example.org:smtp")),
        ("Example.org:25", hop(MX, "example.org", 25, "example.org:25")),
        ("example.org:", hop(MX, "example.org", 25, "example.org:")),
        ("192.0.2.25", hop(ADDRESS, "192.0.2.25", 25, "192.0.2.25")),
        ("192.0.2.25:25", hop(ADDRESS, "192.0.2.25", 25, "192.0.2.25:25")),
        ("192.0.2.25:submission", hop(ADDRESS, "192.0.2.25", 587, "192.0.2.25:submission")),
        ("2001:db8::1:25", hop(ADDRESS, "2001:db8::1", 25, "2001:db8::1:25")),
        (
            "2001:db8:0:0:0:0:0:25",  # a host that does not exist, to Postfix
            hop(MX, "2001:db8:0:0:0:0:0", 25, "2001:db8:0:0:0:0:0:25"),
        ),
        ("2001:db8::1:", hop(ADDRESS, "2001:db8::1", 25, "2001:db8::1:")),
        ("inet:25", hop(MX, "inet", 25, "inet:25")),
        ("[mx.example.org]", NextHop(HOST, "mx.example.org")),
        ("[mx.example.org]:587", NextHop(HOST, "mx.example.org", 587)),
        (
            "[mx.example.org]:submissions",
            hop(HOST, "mx.example.org", 465, "[mx.example.org]:submissions"),
        ),
        ("[mx.example.org]:smtps", hop(HOST, "mx.example.org", 465, "[mx.example.org]:smtps")),
        ("[mx.example.org]:lmtp", hop(HOST, "mx.example.org", 24, "[mx.example.org]:lmtp")),
        ("[192.0.2.1]", NextHop(ADDRESS, "192.0.2.1")),
        ("[192.0.2.1]:2525", NextHop(ADDRESS, "192.0.2.1", 2525)),
        ("[IPv6:2001:db8::1]", hop(ADDRESS, "2001:db8::1", 25, "[ipv6:2001:db8::1]")),
        ("[ipv6:2001:DB8:0::1]", hop(ADDRESS, "2001:db8::1", 25, "[ipv6:2001:db8:0::1]")),
        ("[2001:db8::1]:587", NextHop(ADDRESS, "2001:db8::1", 587)),
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
        (
            "[IPv6:2001:db8::1]:[IPv6:2001:db8::2]",
            hop(ADDRESS, "2001:db8::1", 25, "[ipv6:2001:db8::1]"),
        ),
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
        ("1234", "is a number"),
        ("192.0.2", "is a number"),
        ("0.0.0.1", "is an address, but|is a number"),
        ("inet:mx.example.org", "no such service"),
        ("inet:[mx.example.org]:25", r"lmtp\(8\) only"),
        ("inet:mx.example.org:25", r"lmtp\(8\) only"),
        (":25", "empty"),
        ("[IPv6:192.0.2.1]", "malformed IPv6"),
        ("[IPv6:mx.example.org]", "malformed IPv6"),
        ("example.org:25x", "number or the name of a service"),
        ("2001:db8::1", r"\[2001:db8::1\]"),
        ("::1", r"\[::1\]"),
        ("[mx.example.org", "closing bracket"),
        ("[mx.example.org]587", "only :port"),
        ("[]", "empty"),
        ("example.org:0", "1 to 65535"),
        ("example.org:65536", "1 to 65535"),
        ("example.org:" + "9" * 500, "1 to 65535"),
        ("example.org:no-such-service-", "no such service"),
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
        ("unix:/run/lmtp", "no such service"),
    ],
)
def test_what_is_no_next_hop_is_told_so_clearly(text: str, hint: str) -> None:
    with pytest.raises(NextHopError, match=hint) as caught:
        parse(text)
    with pytest.raises(NextHopError):
        parse(text, postfix=True)
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
    if "%" not in hop.host and not hop.host.startswith(
        "0."
    ):  # smtp(8) takes 0.0.0.1 for no address
        assert parse(str(hop)) == hop


# ---------------------------------------------------------------- who reads it


@pytest.mark.parametrize(
    "text",
    ["example.org.", "mx1.example:mx2.example", "[a.example]:[b.example]", "[relay.example.]"],
)
def test_smtp_dies_of_what_sendmail_writes(text: str) -> None:
    with pytest.raises(UnusableNextHopError):
        parse(text, postfix=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("inet:[mx.example.org]", NextHop(HOST, "mx.example.org", 24, MailProtocol.LMTP)),
        ("[mx.example.org]:2400", NextHop(HOST, "mx.example.org", 2400, MailProtocol.LMTP)),
        ("inet:192.0.2.1", NextHop(ADDRESS, "192.0.2.1", 24, MailProtocol.LMTP, "192.0.2.1")),
        ("box.example", NextHop(HOST, "box.example", 24, MailProtocol.LMTP, "box.example")),
    ],
)
def test_lmtp_looks_up_no_mx_and_takes_inet(text: str, expected: NextHop) -> None:
    found = parse(text, MailProtocol.LMTP)
    assert found == expected
    assert parse(str(found)) == expected
