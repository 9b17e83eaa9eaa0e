"""Every form of an endpoint, one by one, and what is said of text that has none of them."""

from __future__ import annotations

import pytest

from requiretls_milter.syntax.endpoint import (
    EndpointError,
    MilterSocket,
    absolute_path,
    parse_endpoint,
    parse_milter_socket,
    parse_nameserver,
    parse_store_url,
    port_number,
    unix_path,
)


@pytest.mark.parametrize(("text", "port"), [("1", 1), ("65535", 65535), ("65536", None)])
def test_a_port_has_16_bits(text: str, port: int | None) -> None:
    assert port_number(text) == port


# ---------------------------------------------------------------- paths


@pytest.mark.parametrize("text", ["relative", "", "/a\0b", "/" + "x" * 4095, "/" + "\u00e9" * 2048])
def test_what_is_no_absolute_path_of_4095_bytes_is_shown(text: str) -> None:
    with pytest.raises(EndpointError, match="absolute path, got the text") as caught:
        absolute_path(text)
    assert text[:10].encode("unicode_escape").decode() in str(caught.value)


def test_a_path_has_4095_bytes_and_that_of_a_unix_socket_107() -> None:
    longest = "/" + "x" * 4094
    assert absolute_path(longest) == longest
    for socket in ("/" + "x" * 106, "/" + "\u00e9" * 53):
        assert unix_path(socket) == socket
    for socket in ("/" + "x" * 107, "/" + "\u00e9" * 54):
        with pytest.raises(EndpointError, match="at most 107 bytes"):
            unix_path(socket)


def test_a_path_may_hold_octets_that_are_no_text() -> None:
    """As os.fsdecode() gives them."""
    assert absolute_path("/\udcff") == "/\udcff"
    assert unix_path("/\udcff") == "/\udcff"


# ---------------------------------------------------------------- ADDRESS:PORT


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("192.0.2.1:25", "192.0.2.1", 25),
        ("[192.0.2.1]:25", "192.0.2.1", 25),
        ("[2001:DB8:0::1]:25", "2001:db8::1", 25),
    ],
)
def test_without_a_usual_port_one_has_to_be_there(text: str, address: str, port: int) -> None:
    found = parse_endpoint(text)
    assert (found.address, found.port) == (address, port)


@pytest.mark.parametrize("text", ["192.0.2.1", "[2001:db8::1]", "2001:db8::1:25", "a.example:25"])
def test_an_address_alone_or_a_bare_ipv6_address_with_a_port_is_no_endpoint(text: str) -> None:
    with pytest.raises(EndpointError) as caught:
        parse_endpoint(text)
    assert str(caught.value).startswith("expected ADDRESS:PORT or [IPV6ADDRESS]:PORT")
    assert text in str(caught.value)


@pytest.mark.parametrize("text", ["a.example", "a.example:53", "[192.0.2.1"])
def test_where_a_port_is_usual_the_mistake_says_that_it_may_be_left_out(text: str) -> None:
    with pytest.raises(EndpointError) as caught:
        parse_nameserver(text)
    assert str(caught.value).startswith("expected ADDRESS, ADDRESS:PORT or [IPV6ADDRESS]:PORT")
    assert text in str(caught.value)


@pytest.mark.parametrize("port", ["", "0", "65536", "smtp"])
def test_a_port_that_is_none_is_shown(port: str) -> None:
    for text in (f"192.0.2.1:{port}", f"[::1]:{port}"):
        with pytest.raises(EndpointError, match="a port from 1 to 65535") as caught:
            parse_endpoint(text)
        assert f'"{port}"' in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("192.0.2.1:53", "192.0.2.1"),
        ("192.0.2.1:54", "192.0.2.1:54"),
        ("::1", "::1"),
        ("[::1]:54", "[::1]:54"),
    ],
)
def test_a_resolver_at_its_usual_port_is_told_without_it(text: str, shown: str) -> None:
    assert str(parse_nameserver(text)) == shown


# ---------------------------------------------------------------- a milter's socket


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:/run/m.sock", MilterSocket("unix", path="/run/m.sock")),
        ("local:/run/m.sock", MilterSocket("unix", path="/run/m.sock")),
        ("inet:8894@127.0.0.1", MilterSocket("inet", host="127.0.0.1", port=8894)),
        ("inet:8894@[127.0.0.1]", MilterSocket("inet", host="127.0.0.1", port=8894)),
        ("inet6:8894@::1", MilterSocket("inet6", host="::1", port=8894)),
        ("inet6:8894@[::1]", MilterSocket("inet6", host="::1", port=8894)),
        ("inet:8894@Mail.Example.", MilterSocket("inet", host="mail.example", port=8894)),
        ("inet6:8894@mail.example", MilterSocket("inet6", host="mail.example", port=8894)),
    ],
)
def test_a_milters_socket_is_a_path_or_a_port_at_a_host(text: str, expected: MilterSocket) -> None:
    assert parse_milter_socket(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("unix:run/m.sock", "Postfix's main.cf only"),
        ("local:run/m.sock", "Postfix's main.cf only"),
        ("unix:", "Postfix's main.cf only"),
        ("inet:8894", "expected unix:/PATH, inet:PORT@HOST"),
        ("inet:8894@", "expected unix:/PATH, inet:PORT@HOST"),
        ("inet5:8894@localhost", "expected unix:/PATH, inet:PORT@HOST"),
        ("/run/m.sock", "expected unix:/PATH, inet:PORT@HOST"),
        ("inet:smtp@localhost", "a port from 1 to 65535"),
        ("inet:8894@::1", "::1 is an IPv6 address, but the family is inet"),
        ("inet6:8894@127.0.0.1", "127.0.0.1 is an IPv4 address, but the family is inet6"),
    ],
)
def test_what_is_no_milters_socket_is_told_why(text: str, words: str) -> None:
    with pytest.raises(EndpointError) as caught:
        parse_milter_socket(text)
    assert words in str(caught.value)
    if words.startswith(("expected", "Postfix")):
        assert f'"{text}"' in str(caught.value)


def test_a_socket_has_a_path_or_a_host_and_a_port_and_leaves_the_rest_empty() -> None:
    assert tuple(parse_milter_socket("unix:/run/m.sock")) == ("unix", "/run/m.sock", "", 0)
    assert tuple(parse_milter_socket("inet6:8894@::1")) == ("inet6", "", "::1", 8894)


# ---------------------------------------------------------------- the store


@pytest.mark.parametrize(
    ("text", "kind", "path"),
    [
        ("memory:", "memory", ""),
        ("sqlite:///var/lib/state.db", "sqlite", "/var/lib/state.db"),
        ("redis://localhost", "redis", ""),
        ("redis://localhost:6379/0", "redis", ""),
        ("rediss://user:secret@[::1]:65535/99999?x=y", "redis", ""),
    ],
)
def test_a_store_is_memory_a_file_or_a_redis(text: str, kind: str, path: str) -> None:
    found = parse_store_url(text)
    assert (found.kind, found.text, found.path) == (kind, text, path)


@pytest.mark.parametrize(
    "port",
    ["9999", "10000", "59999", "60000", "64999", "65000", "65499", "65500", "65529", "65535"],
)
def test_a_redis_has_any_port_of_16_bits(port: str) -> None:
    assert parse_store_url(f"redis://localhost:{port}/0").kind == "redis"


@pytest.mark.parametrize("url", ["65536", "65540", "65600", "66000", "70000", "100000"])
def test_no_redis_has_a_higher_port(url: str) -> None:
    with pytest.raises(EndpointError, match="redis://HOST:PORT/DB"):
        parse_store_url(f"redis://localhost:{url}/0")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://user:secret@host:99999/0?password=hidden", '"redis://...@host:99999/0"'),
        ("redis://user:sec\nret@host name", '"redis://...@host name"'),
        ("redis://:se?cret@host", '"redis://..."'),
        ("redis://:se@cret@host", '"redis://...@host"'),
        ("redis://:se/cret@host", '"redis://...@host"'),
        ("redis:/:secret@host", '"redis:/...@host"'),
        ("redis:secret@host", '"redis:...@host"'),
        (":secret@host", '"...@host"'),
        ("redis://user:secret", '"redis://user:..."'),
        ("redis://:secret/0", '"redis://:..."'),
        ("redis://host:99999/0", '"redis://host:99999/0"'),
        ("redis://host:99999/0?password=a@b", '"redis://..."'),
        ("file:/x", '"file:/x"'),
        ("sqlite:/x", '"sqlite:/x"'),
        ("memory", '"memory"'),
    ],
)
def test_what_names_no_store_is_shown_without_user_password_and_query(
    text: str, shown: str
) -> None:
    with pytest.raises(EndpointError, match="expected") as caught:
        parse_store_url(text)
    assert str(caught.value).endswith(shown)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("memory:", "memory:"),
        ("sqlite:///var/a:b@c?password=d", "sqlite:///var/a:b@c?password=d"),
        ("redis://localhost/0", "redis://localhost/0"),
        ("redis://user@localhost", "redis://user@localhost"),
        ("redis://user:@localhost", "redis://user:@localhost"),
        ("redis://:secret@localhost", "redis://:***@localhost"),
        ("redis://user:se:c*r#et@[::1]:1/0", "redis://user:***@[::1]:1/0"),
        ("redis://localhost?password=secret", "redis://localhost?password=***"),
        ("redis://localhost?a=b@c&PASSWORD=secret&d=", "redis://localhost?a=b@c&PASSWORD=***&d="),
        ("rediss://h?ssl_pass%77ord=a=secret", "rediss://h?ssl_pass%77ord=***"),
        ("redis://h?a=1;password=secret", "redis://h?a=***"),
    ],
)
def test_a_store_is_shown_without_passwords(text: str, masked: str) -> None:
    url = parse_store_url(text)
    assert url.masked == masked
    assert parse_store_url(masked).masked == masked
    assert url.has_password is (text != masked)
    assert not url.is_masked
    assert parse_store_url(masked).is_masked is url.has_password
    assert masked in repr(url)
    assert "secret" not in repr(url)
