from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.config import Config, ConfigError, parse, values
from requiretls_milter.config.patterns import domain_pattern
from requiretls_milter.syntax.endpoint import StoreUrl
from tests.support.configured import configured, mistakes_in


def accepted(key: str, value: str) -> object:
    """What a configuration with this one key holds there."""
    section, name = key.split(".")
    return getattr(getattr(configured(f"{key} = {value}\n"), section), name)


def refused(key: str, value: str) -> str:
    (mistake,) = mistakes_in(f"{key} = {value}\n")
    return mistake


# ---------------------------------------------------------------- sockets


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("unix:/run/a.sock", "unix:/run/a.sock"),
        ("local:/run/a.sock", "unix:/run/a.sock"),
        ("unix:/run//./a.sock", "unix:/run/a.sock"),
        ("inet:8894@127.0.0.1", "inet:8894@127.0.0.1"),
        ("inet:08894@localhost", "inet:8894@localhost"),
        ("inet6:8894@[::1]", "inet6:8894@[::1]"),
        ("inet6:8894@0:0::1", "inet6:8894@[::1]"),
        ("inet:1@Mail.Example.", "inet:1@mail.example"),
        ("inet:65535@0.0.0.0", "inet:65535@0.0.0.0"),
    ],
)
def test_milter_sockets_get_one_form(given: str, canonical: str) -> None:
    assert str(accepted("milter.socket", f'"{given}"')) == canonical


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "expected unix:/PATH"),
        ("/run/a.sock", "expected unix:/PATH"),
        ("unix:a/b.sock", "relative to the queue directory is for Postfix's main.cf only"),
        ("unix:", "expected unix:/ABSOLUTE/PATH"),
        ("inet:8894", "expected unix:/PATH"),  # libmilter would listen on all addresses
        ("inet:@127.0.0.1", "expected a port"),
        ("inet:0@127.0.0.1", "expected a port from 1 to 65535"),
        ("inet:99999@127.0.0.1", "expected a port from 1 to 65535"),  # libmilter wraps it
        ("inet:65536@127.0.0.1", "expected a port from 1 to 65535"),
        ("inet:smtp@127.0.0.1", "expected a port"),
        ("inet:8894@::1", "the family is inet"),
        ("inet6:8894@127.0.0.1", "the family is inet6"),
        ("inet:8894@a b", "not a domain name"),
        ("tcp:8894@127.0.0.1", "expected unix:/PATH"),
    ],
)
def test_what_libmilter_would_misread_is_no_milter_socket(given: str, said: str) -> None:
    assert said in refused("milter.socket", f'"{given}"')


@pytest.mark.parametrize(("length", "good"), [(106, True), (107, True), (108, False)])
def test_the_path_of_a_unix_socket_has_107_bytes_at_most(length: int, good: bool) -> None:
    path = "/" + "a" * (length - 1)
    for key, value in (("milter.socket", f"unix:{path}"), ("engine.socket", path)):
        if good:
            assert str(accepted(key, f'"{value}"')) == value
        else:
            assert "at most 107 bytes" in refused(key, f'"{value}"')


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("127.0.0.1:9894", "127.0.0.1:9894"),
        ("[::1]:9894", "[::1]:9894"),
        ("[0::1]:09894", "[::1]:9894"),
        ("", ""),
    ],
)
def test_the_metrics_endpoint_is_an_address_and_a_port(given: str, canonical: str) -> None:
    assert str(accepted("metrics.listen", f'"{given}"') or "") == canonical


@pytest.mark.parametrize("value", ["9894", ":9894", "localhost:9894", "::1:9894", "1.2.3.4"])
def test_what_is_no_address_and_port_is_no_metrics_endpoint(value: str) -> None:
    assert "expected ADDRESS:PORT or [IPV6ADDRESS]:PORT" in refused("metrics.listen", f'"{value}"')


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1:53", "127.0.0.1"),
        ("127.0.0.1:5353", "127.0.0.1:5353"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("[::1]:53", "::1"),
        ("[0::1]:5353", "[::1]:5353"),
    ],
)
def test_resolvers_get_one_form(given: str, canonical: str) -> None:
    found = accepted("dns.nameservers", f'["{given}"]')
    assert isinstance(found, tuple)
    assert [str(one) for one in found] == [canonical]


@pytest.mark.parametrize("value", ["", "localhost", "1.2.3", "1.2.3.4:", "1.2.3.4:0", "[::1]x"])
def test_what_is_no_address_is_no_resolver(value: str) -> None:
    assert refused("dns.nameservers", f'["{value}"]').startswith("dns.nameservers[0]: expected")


@pytest.mark.parametrize("value", ['"0660"', '"660"'])
def test_permissions_are_octal(value: str) -> None:
    assert accepted("milter.socket_mode", value) == "0660"


@pytest.mark.parametrize("value", ['"0668"', '"66"', '"rw-"', '"04660"', '""'])
def test_what_is_no_octal_is_no_permission(value: str) -> None:
    assert 'such as "0660"' in refused("milter.socket_mode", value)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("key", ["milter.socket_owner", "milter.socket_group"])
def test_an_account_is_a_name_or_a_number_that_a_system_can_have(key: str) -> None:
    for value in ("postfix", "0", "4294967294", ""):
        assert accepted(key, f'"{value}"') == value
    assert "at most 4294967294" in refused(key, '"4294967295"')
    assert "expected the name of a" in refused(key, '"no such"')


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("Example.ORG.", "example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        (".Bücher.example", ".xn--bcher-kva.example"),
        ("_dmarc.example", "_dmarc.example"),
    ],
)
def test_domains_become_a_labels(given: str, canonical: str) -> None:
    assert accepted("mta.local_domains", f'["{given}"]') == (canonical,)
    config = configured(f'[rules.recipient."{given}"]\nmode = "off"\n')
    assert list(config.rules.recipient) == [canonical]


@pytest.mark.parametrize(
    "value", ["", ".", "..example", "a..b", "-a.example", "a b", "a" * 64, "192.0.2.1", "x@y.z"]
)
def test_what_is_no_domain_is_no_key_of_a_rule(value: str) -> None:
    for section in ("recipient", "nexthop", "sender"):
        (mistake,) = mistakes_in(f'[rules.{section}."{value}"]\nmode = "off"\n')
        assert mistake.startswith(f"rules.{section}.")


def test_a_domain_cannot_have_two_rules_in_a_section() -> None:
    for twin in ("EXAMPLE.org", "example.org."):
        with pytest.raises(ConfigError) as caught:
            configured(f'[rules.sender]\n"example.org" = {{}}\n"{twin}" = {{}}\n')
        (mistake,) = caught.value.mistakes
        assert mistake == (
            f'test:3:1: rules.sender."{twin}": "example.org" and "{twin}" are the same domain'
        )


def test_a_domain_and_its_subdomains_are_two_rules() -> None:
    config = parse(b'[rules.sender]\n"example.org" = {}\n".example.org" = {}\n', "test")
    assert list(config.rules.sender) == ["example.org", ".example.org"]


@pytest.mark.parametrize("name", ["X-RequireTLS", "X" * 76, "x!#$%&'*+-./"])
def test_the_tag_has_a_legal_field_name(name: str) -> None:
    assert accepted("milter.header_name", f'"{name}"') == name


@pytest.mark.parametrize("name", ["", "X:Y", "X Y", "X\\n", "Ü", "X" * 77])
def test_what_rfc_5322_does_not_allow_is_no_field_name(name: str) -> None:
    assert "expected the name of a header field" in refused("milter.header_name", f'"{name}"')


@pytest.mark.parametrize("name", ["Subject", "received", "TLS-Required", "Require-TLS-ESMTP"])
def test_a_field_with_a_meaning_of_its_own_cannot_be_the_tag(name: str) -> None:
    # fields of the tag's name are removed from incoming mail
    assert "has a meaning of its own" in refused("milter.header_name", f'"{name}"')


@pytest.mark.parametrize("name", ["smtp-strict", "smtp", "a.b_c"])
def test_transports_have_names_as_in_master_cf(name: str) -> None:
    config = configured(f'[mta.transport."{name}"]\n')
    assert list(config.mta.transport) == [name]


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 65, "smtp:"])
def test_what_is_no_service_of_master_cf_is_no_transport(name: str) -> None:
    with pytest.raises(ConfigError, match="expected the name of a transport"):
        configured(f'[mta.transport."{name}"]\n')


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("key", "value", "good"),
    [
        ("milter.workers", "-1", False),
        ("milter.workers", "0", True),
        ("milter.workers", "1", True),
        ("milter.workers", "64", True),
        ("milter.workers", "65", False),
        ("probe.port", "0", False),
        ("probe.port", "1", True),
        ("probe.port", "65535", True),
        ("probe.port", "65536", False),
        ("mta.mx_address_limit", "-1", False),
        ("mta.mx_address_limit", "0", True),
        ("mta.mx_address_limit", "1000", True),
        ("mta.mx_address_limit", "1001", False),
        ("dns.timeout", "0", False),
        ("dns.timeout", "0.001", True),
        ("dns.timeout", "3600", True),
        ("dns.timeout", "3600.1", False),
        ("probe.connect_timeout", "-1", False),
        ("rules.downgrade_grace", "0", True),
        ("rules.downgrade_grace", "-1", False),
        ("rules.decide_wait", "0", False),
        ("rules.decide_wait", "29.999", True),
        ("rules.tag_wait", "29.999", True),
    ],
)
def test_numbers_have_bounds(key: str, value: str, good: bool) -> None:
    if good:
        assert accepted(key, value) == float(value)
    else:
        assert "expected" in refused(key, value)


@pytest.mark.parametrize("key", ["rules.decide_wait", "rules.tag_wait"])
@pytest.mark.parametrize("value", ["30", "30.5", "3600"])
def test_r60_smtp_waits_less_than_milter_command_timeout(key: str, value: str) -> None:
    assert "milter_command_timeout" in refused(key, value)


# ---------------------------------------------------------------- words, networks, stores


@pytest.mark.parametrize(
    "level", ["none", "may", "encrypt", "dane", "dane-only", "verify", "secure"]
)
def test_each_level_of_postfix_can_be_configured(level: str) -> None:
    assert accepted("mta.tls_security_level", f'"{level}"') == level


def test_halfdane_is_no_level_that_can_be_configured() -> None:
    assert "expected" in refused("mta.tls_security_level", '"halfdane"')


@pytest.mark.parametrize(
    ("level", "good"),
    [("dane", True), ("encrypt", True), ("may", True), ("secure", False), ("none", False)],
)
def test_an_insecure_mx_has_one_of_three_levels(level: str, good: bool) -> None:
    if good:
        assert accepted("mta.insecure_mx_policy", f'"{level}"') == level
    else:
        assert 'expected "may", "encrypt" or "dane"' in refused(
            "mta.insecure_mx_policy", f'"{level}"'
        )


@pytest.mark.parametrize("value", ["[]", '["ipv5"]', '"ipv4"', "[4]", '["ipv4", "all"]'])
def test_there_is_ipv4_ipv6_or_both(value: str) -> None:
    assert "ipv4" in refused("mta.inet_protocols", value)


def test_the_order_of_protocols_does_not_matter() -> None:
    assert accepted("mta.inet_protocols", '["ipv6", "ipv4", "ipv6"]') == ("ipv4", "ipv6")


def test_networks_are_in_cidr_notation() -> None:
    value = '["10.0.0.0/8", "::1", "192.0.2.7"]'
    assert accepted("probe.allow_networks", value) == tuple(
        map(ipaddress.ip_network, ("10.0.0.0/8", "::1/128", "192.0.2.7/32"))
    )


def test_host_bits_in_a_network_are_told() -> None:
    assert '"10.1.2.3/8" has host bits set; did you mean "10.0.0.0/8"?' in refused(
        "milter.trusted_networks", '["10.1.2.3/8"]'
    )


@pytest.mark.parametrize("value", ["x", "10.0.0.0/33", "", "10.0.0"])
def test_what_is_no_network_is_refused(value: str) -> None:
    assert "expected a network" in refused("milter.trusted_networks", f'["{value}"]')


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("memory:", ("memory", "")),
        ("sqlite:///var/lib/x/state.db", ("sqlite", "/var/lib/x/state.db")),
        ("redis://127.0.0.1:6379/0", ("redis", "")),
        ("rediss://:secret@valkey.example/1", ("redis", "")),
        ("rediss://us%40er:se%2Fcret@[2001:db8::1]:65535?ssl_ca_certs=/etc/ca.pem", ("redis", "")),
    ],
)
def test_stores_are_named_by_url(url: str, parsed: tuple[str, str]) -> None:
    found = accepted("store.url", f'"{url}"')
    assert isinstance(found, StoreUrl)
    assert (str(found), found.kind, found.path) == (url, *parsed)


@pytest.mark.parametrize(
    "url",
    [
        *("", "memory", "sqlite://state.db", "sqlite:", "redis://", "file:/x"),
        *("redis://host:65536/0", "redis://host:port/0", "redis://host/x", "redis:///0"),
        *("redis://user:a/b@host/0", "redis://a@b@host/0", "redis://ho st/0"),
    ],
)
def test_what_names_no_store_is_refused(url: str) -> None:
    assert refused("store.url", f'"{url}"').startswith("store.url: expected")


@pytest.mark.parametrize(
    "url",
    [
        *("redis://:geheim@host:99999/0", "rediss://us:ge/geheim@host", "redis://a@geheim@host/0"),
        *("redis://host/x?password=geheim", "redis:// geheim@host?x@y/0"),
    ],
)
def test_a_password_in_a_url_that_is_refused_is_not_shown(url: str) -> None:
    """What is wrong with a configuration is logged."""
    said = refused("store.url", f'"{url}"')
    assert "geheim" not in said
    assert 'got the text "redis' in said


def test_the_bounds_of_a_store_are_numbers_that_make_sense() -> None:
    assert accepted("store.max_records", "1000") == 1000
    assert accepted("store.max_bytes", "1048576") == 1_048_576
    for key, value in [
        ("store.max_records", "999"),
        ("store.max_records", "1.5"),
        ("store.max_bytes", "1048575"),
        ("store.max_bytes", '"64M"'),
    ]:
        assert refused(key, value).startswith(f"{key}: ")


@pytest.mark.parametrize("prefix", ["", "a b", "a\u00e9", "x" * 101])
def test_a_prefix_of_keys_is_short_and_plain(prefix: str) -> None:
    assert "printable ASCII" in refused("store.key_prefix", f'"{prefix}"')
    assert accepted("store.key_prefix", '"milter[1]:"') == "milter[1]:"


# ---------------------------------------------------------------- whatever comes

PARSERS: list[Callable[[str], object]] = [
    domain_pattern,
    values.policy_pattern,
    values.transport,
    values.group,
    values.field_name,
    values.address,
    values.network,
    values.key_prefix,
    values.file_mode,
]


@pytest.mark.parametrize("parse_field", PARSERS)
@given(st.text(max_size=300))
def test_any_text_is_a_value_or_a_mistake_in_one_line(
    parse_field: Callable[[str], object], text: str
) -> None:
    try:
        parse_field(text)
    except ValueError as error:
        assert str(error).isprintable()  # noqa: PT017 - an accepted text is as good


@given(st.binary(max_size=2000))
def test_any_bytes_are_a_configuration_or_mistakes(content: bytes) -> None:
    try:
        assert isinstance(parse(content, "test"), Config)
    except ConfigError as error:
        assert error.mistakes  # noqa: PT017 - an accepted file is as good


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ("virtual", "as in main.cf"),
        ("hash:", "as in main.cf"),
        ("Hash:/etc/virtual", "as in main.cf"),
        ("hash:virtual", "absolute"),
        ("proxy:lmdb:virtual", "absolute"),
        ("inline:" + "x" * 70000, "at most 65536"),
    ],
)
def test_a_table_is_named_as_in_main_cf(item: str, why: str) -> None:
    (mistake,) = mistakes_in(f'[mta]\nvirtual_alias_maps = ["{item}"]\n')
    assert mistake.startswith("mta.virtual_alias_maps")
    assert why in mistake
