from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.syntax.endpoint import (
    Endpoint,
    EndpointError,
    absolute_path,
    parse_endpoint,
    parse_milter_socket,
    parse_nameserver,
    parse_store_url,
    port_number,
    unix_path,
)
from requiretls_milter.syntax.names import DomainNameError

near = st.text(alphabet=st.sampled_from("unixet6:/@[]0123456789.ab\0\u00e9 "), max_size=40)
"""Text that often comes near to an endpoint."""

ports = st.integers(1, 65535)


@pytest.mark.parametrize(
    ("text", "port"),
    [
        *(("1", 1), ("25", 25), ("65535", 65535), ("00025", 25)),
        *(("0", None), ("65536", None), ("", None), ("smtp", None), ("-1", None), (" 25", None)),
        *(("000025", None), ("9" * 5000, None), ("\u0662\u0665", None)),
    ],
)
def test_a_port_is_a_number_of_16_bits(text: str, port: int | None) -> None:
    assert port_number(text) == port


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1", ("127.0.0.1", 53)),
        ("127.0.0.1:5353", ("127.0.0.1", 5353)),
        ("::1", ("::1", 53)),
        ("[::1]", ("::1", 53)),
        ("[::1]:5353", ("::1", 5353)),
    ],
)
def test_name_servers_are_addresses_with_or_without_a_port(
    text: str, expected: tuple[str, int]
) -> None:
    assert parse_nameserver(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "[::1",
        "[::1]53",
        "1.2.3.4:x",
    ],
)
def test_anything_else_is_no_name_server(text: str) -> None:
    with pytest.raises(EndpointError, match="expected"):
        parse_nameserver(text)


@given(st.ip_addresses(), ports)
def test_an_endpoint_reads_back_as_the_same(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    endpoint = Endpoint(str(address), port)
    assert parse_endpoint(str(endpoint)) == endpoint
    nameserver = parse_nameserver(str(endpoint))
    assert tuple(nameserver) == tuple(endpoint)
    assert parse_nameserver(str(nameserver)) == nameserver


def test_an_endpoint_knows_whether_only_this_host_reaches_it() -> None:
    assert parse_endpoint("127.0.0.2:53").is_loopback
    assert parse_nameserver("::1").is_loopback
    assert parse_nameserver("::ffff:127.0.0.1").is_loopback
    assert not parse_nameserver("::ffff:10.0.0.1").is_loopback
    assert not parse_endpoint("0.0.0.0:53").is_loopback


@pytest.mark.parametrize(
    "text",
    [
        "unix:/run/milter.sock",
        "inet:8894@localhost",
        "inet:8894@127.0.0.1",
        "inet6:8894@[::1]",
        "inet6:8894@mail.example",
    ],
)
def test_a_milter_socket_reads_back_as_the_same(text: str) -> None:
    assert str(parse_milter_socket(text)) == text


def test_a_store_keeps_its_url_as_it_was_given() -> None:
    url = "rediss://us%40er:se%2Fcret@[2001:db8::1]:65535?ssl_ca_certs=/etc/ca.pem"
    assert str(parse_store_url(url)) == url
    assert parse_store_url("sqlite:///var/./x//state.db").path == "/var/x/state.db"


@pytest.mark.parametrize("url", ["sqlite://relative.db", "file:/x", "redis://host:99999/0", ""])
def test_what_names_no_store_is_no_store(url: str) -> None:
    with pytest.raises(EndpointError, match="expected"):
        parse_store_url(url)


@pytest.mark.parametrize(
    "query",
    [
        "ssl_cert_reqs=none",
        "ssl_cert_reqs=optional",
        "ssl%5Fcert_reqs=none",
        "ssl_cert_reqs",
        "ssl_check_hostname=False",
        "ssl_ca_certs=/ca.pem&ssl_check_hostname=no",
        "a=1;ssl_check_hostname=0",
        "socket_timeout=3600",
        "decode_responses=1",
        "host=other.example",
        "protocol=3",
    ],
)
def test_a_store_cannot_be_told_not_to_verify_or_to_wait_for_longer(query: str) -> None:
    with pytest.raises(EndpointError, match="cannot be changed"):
        parse_store_url(f"rediss://redis.example/0?{query}")


@pytest.mark.parametrize("query", ["ssl_cert_reqs=required", "ssl_check_hostname=True"])
def test_a_store_may_be_told_what_it_does_anyway(query: str) -> None:
    assert parse_store_url(f"rediss://redis.example/0?{query}").kind == "redis"


@pytest.mark.parametrize(
    ("url", "in_clear"),
    [
        ("redis://redis.example/0", True),
        ("redis://:secret@192.0.2.1:6379", True),
        ("redis://[2001:db8::1]/0", True),
        ("redis://localhost/0", False),
        ("redis://127.0.0.1:6379/0", False),
        ("redis://[::1]/0", False),
        ("rediss://redis.example/0", False),
        ("sqlite:///x", False),
        ("memory:", False),
    ],
)
def test_a_store_on_another_host_without_tls_is_known(url: str, in_clear: bool) -> None:
    assert parse_store_url(url).crosses_network_in_clear is in_clear


PARSERS: list[Callable[[str], object]] = [
    absolute_path,
    unix_path,
    parse_endpoint,
    parse_nameserver,
    parse_milter_socket,
    parse_store_url,
]


@pytest.mark.parametrize("parse", PARSERS)
@given(st.text(max_size=300) | near)
def test_any_text_is_an_endpoint_or_a_mistake_in_one_line(
    parse: Callable[[str], object], text: str
) -> None:
    try:
        found = parse(text)
    except (EndpointError, DomainNameError) as error:
        assert str(error).isprintable()  # noqa: PT017 - an accepted text is as good
        assert str(error).isascii()  # noqa: PT017
        return
    assert parse(str(found)) == found
