from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from requiretls_milter.syntax.names import (
    MAX_NAME,
    DomainNameError,
    address_literal,
    domain_of,
    envelope_domain,
    is_address,
    mail_exchanger,
    patterns,
    to_alabel,
    valid_hostname,
)

odd = st.text(alphabet=st.sampled_from("ab1-._:[]@ ,\0\u00e9%*0x"), max_size=30)
"""Text that often comes near to a name or an address."""

# ---------------------------------------------------------------- to_alabel


def test_limits_hold_to_the_octet() -> None:
    assert to_alabel("a" * 63 + ".example") == "a" * 63 + ".example"
    name = ".".join(["a" * 63] * 3) + "." + "b" * 61
    assert len(name) == MAX_NAME
    assert to_alabel(name) == name
    with pytest.raises(DomainNameError, match="at most 253"):
        to_alabel(name + "b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.Example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),  # non-transitional: not fass
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("a_b.bücher.example", "a_b.xn--bcher-kva.example"),
        ("\uff45xample.org", "example.org"),
    ],
)
def test_r54_names_become_a_labels_by_uts46_without_transition(text: str, expected: str) -> None:
    assert to_alabel(text) == expected


@pytest.mark.parametrize(
    "text", ["\u00ad", "ex\u3000ample.org", "a\u200c.example", "💣" * 70 + "."]
)
def test_what_idna_does_not_allow_is_an_error_and_not_a_guess(text: str) -> None:
    with pytest.raises(DomainNameError):
        to_alabel(text)


@given(st.text())
@example("\udcff.example")
@example("\u3002")
@example("xn--\u00fc")
@example("\uff11\uff19\uff12.0.2.1")
def test_any_text_is_an_a_label_or_an_error(text: str) -> None:
    try:
        name = to_alabel(text)
    except DomainNameError:
        return
    assert name.isascii()
    assert name == name.lower()
    assert 1 <= len(name) <= MAX_NAME
    assert to_alabel(name) == name


@pytest.mark.parametrize("text", ["a b", "1.2.3.4", "a" * 64, "a..b", "b\u00fc..a"])
def test_what_is_wrong_with_a_name_is_said_of_the_name_in_quotes(text: str) -> None:
    with pytest.raises(DomainNameError, match=r'^"'):
        to_alabel(text)


# ---------------------------------------------------------------- addresses, patterns


@pytest.mark.parametrize(
    ("address", "domain"),
    [
        ("<bob@example.org>", "example.org"),
        ("bob@example.org", "example.org"),
        ('<"a@b"@example.org>', "example.org"),
        ("<bob@[192.0.2.1]>", "[192.0.2.1]"),
        ("<bob>", ""),
        ("<>", ""),
        ("", ""),
        ("<@a.example,@b.example:bob@example.org>", "example.org"),
        ("<bob@>", ""),
    ],
)
def test_the_domain_is_what_follows_the_last_at(address: str, domain: str) -> None:
    assert domain_of(address) == domain


def test_patterns_are_the_name_and_its_parents_the_longest_first() -> None:
    assert list(patterns("a.b.example")) == ["a.b.example", ".b.example", ".example"]
    assert list(patterns("localhost")) == ["localhost"]
    assert list(patterns("")) == [""]


def test_the_first_key_of_a_pattern_is_the_pattern_itself() -> None:
    assert list(patterns(".b.example")) == [".b.example", ".example"]


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"])
def test_an_address_has_no_parents(address: str) -> None:
    assert list(patterns(address)) == [address]


@given(st.text() | odd)
def test_every_key_is_the_end_of_the_name_and_comes_once(name: str) -> None:
    keys = list(patterns(name))
    assert keys[0] == name
    assert all(key.startswith(".") and name.endswith(key) for key in keys[1:])
    assert len(set(keys)) == len(keys)


@given(st.text() | odd)
def test_any_envelope_address_has_a_domain_or_none(address: str) -> None:
    domain = domain_of(address)
    assert domain in address
    assert "@" not in domain


@pytest.mark.parametrize(
    ("address", "domain"),
    [
        ("<bob@B\u00fccher.Example>", "xn--bcher-kva.example"),
        ("bob@[192.0.2.1]", "[192.0.2.1]"),
        ("bob@[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"),
        ("bob@-No.Name", "-no.name"),
        ("postmaster", ""),
        ("<>", ""),
    ],
)
def test_rules_know_an_envelope_by_the_a_label_of_its_domain(address: str, domain: str) -> None:
    assert envelope_domain(address) == domain


@given(st.text() | odd)
def test_any_envelope_address_is_of_a_domain_for_rules(address: str) -> None:
    domain = envelope_domain(address)
    assert domain == domain.lower()


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", None),
        ("192.0.2", None),
        ("192.0.2.01", None),
        ("[192.0.2.1]", None),
        ("", None),
    ],
)
def test_an_address_literal_is_an_address_without_a_zone(text: str, literal: str | None) -> None:
    assert address_literal(text) == literal


def test_an_address_with_a_zone_is_an_address() -> None:
    assert is_address("fe80::1%eth0")
    assert not is_address("example.org")


@given(st.ip_addresses().map(str) | st.text() | odd)
def test_any_text_is_an_address_or_not(text: str) -> None:
    literal = address_literal(text)
    if literal is not None:
        assert is_address(text)
        assert ipaddress.ip_address(literal) == ipaddress.ip_address(text)


# ---------------------------------------------------------------- names out of DNS


@pytest.mark.parametrize(
    "name",
    ["a.test", "A.TEST", "_25._tcp.a.test", "xn--bcher-kva.test", "a" * 63 + ".test", "1a", "*.a"],
)
def test_letters_digits_hyphens_and_underscores_make_a_host_name(name: str) -> None:
    assert valid_hostname(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a.",
        ".a",
        "a..b",
        "a" * 64 + ".test",
        ".".join(["a" * 49] * 5) + ".aaaa",
        "a-.test",
        "b\u00fccher.test",
        "a\\.test",
        "*",
        "*test",
        "*.",
        "a.*.test",
        "127.0.0.1",
        "a/b.test",
    ],
)
def test_all_else_is_no_host_name(name: str) -> None:
    assert not valid_hostname(name)


@pytest.mark.parametrize(("length", "valid"), [(252, True), (253, True), (254, False)])
def test_a_name_has_at_most_253_characters(length: int, valid: bool) -> None:
    name = ".".join(["a" * 49] * 5)
    assert valid_hostname(name + "." + "a" * (length - len(name) - 1)) is valid


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("mx.example.org", "mx.example.org"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("0x7f.1", "127.0.0.1"),
        ("0xC0000201", "192.0.2.1"),
        ("0300.0.2.1", None),  # more than 255, as Postfix reads it
        ("0177.0.0.1", "127.0.0.1"),
        ("0.0.0.256", None),
        ("0.0.0.0", "0.0.0.0"),
        ("0.1.2.3", None),
        ("000.1.2.3", None),
        ("*.example.org", "*.example.org"),
        ("a.*.org", None),
        ("*", None),
        ("127.1", None),
        ("1.2.3", None),
        ("1.2.3.4.5", None),
        ("1.2.3.\u0664", None),
        ("1.2.3.4 x", None),
        ("0x7g.1", "0x7g.1"),
        ("a b", None),
        ("", None),
    ],
)
def test_an_exchange_is_a_host_an_address_or_nothing(name: str, host: str | None) -> None:
    assert mail_exchanger(name) == host


@given(st.text() | odd | st.from_regex(r"[0-9]{1,4}(\\.[0-9x]{1,4}){0,3}", fullmatch=True))
@example("9" * 5000 + ".0.0.0")
@example("1.2.3.4\0")
def test_any_exchange_is_an_address_or_a_host_name_or_nothing(name: str) -> None:
    host = mail_exchanger(name)
    assert host is None or address_literal(host) == host or (valid_hostname(host) and host == name)


@given(st.text() | odd)
def test_a_name_that_may_stand_in_dns_is_a_host_name_to_postfix(text: str) -> None:
    try:
        name = to_alabel(text)
    except DomainNameError:
        return
    assert valid_hostname(name)
