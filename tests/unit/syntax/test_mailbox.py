from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.syntax.mailbox import (
    AddressError,
    Origin,
    local_to_external,
    read_list,
    read_one,
    routed_to,
    to_external,
    to_internal,
)

HOME = Origin("mine.test")
WITH_DOMAIN = Origin("mine.test", "test")

local_parts = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n\0"), max_size=20)
domains = st.from_regex(r"[a-z]{1,5}(\.[a-z]{1,5}){0,2}", fullmatch=True)


@pytest.mark.parametrize(
    ("internal", "external"),
    [
        ("bob@x.test", "bob@x.test"),
        ("bob+ext@x.test", "bob+ext@x.test"),
        ("bob", "bob"),
        ("john doe@x.test", '"john doe"@x.test'),
        ("a@b@x.test", '"a@b"@x.test'),
        (".bob@x.test", '".bob"@x.test'),
        ("bob.@x.test", '"bob."@x.test'),
        ("a..b@x.test", '"a..b"@x.test'),
        ("@x.test", '""@x.test'),
        ('a"b\\c@x.test', r'"a\"b\\c"@x.test'),
        ("a,b@x.test", '"a,b"@x.test'),
        ("a!b%c|d@x.test", "a!b%c|d@x.test"),
        ("gr\u00fc\u00df@x.test", "gr\u00fc\u00df@x.test"),
    ],
)
def test_a_local_part_has_quotes_only_if_it_needs_them(internal: str, external: str) -> None:
    assert to_external(internal) == external


def test_a_local_part_alone_may_hold_what_a_domain_begins_with() -> None:
    assert local_to_external("a@b") == '"a@b"'
    assert local_to_external("bob") == "bob"


@pytest.mark.parametrize("local", ["\xa0", "\u2003bob", "bob\u3000"])
def test_a_space_of_another_kind_is_a_part_of_the_address_as_for_postfix(local: str) -> None:
    """Postfix splits octets: only ASCII has blanks."""
    assert read_one(f"{local}@x.test", HOME) == f"{local}@x.test"
    assert read_one(f" <{local}@x.test>\t", HOME) == f"{local}@x.test"


@given(local_parts, domains)
def test_what_is_written_is_read_again(local: str, domain: str) -> None:
    address = f"{local}@{domain}"
    assert read_one(to_external(address), HOME) == address


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("a@x.test", ["a@x.test"]),
        ("a@x.test, b@y.test", ["a@x.test", "b@y.test"]),
        ("a@x.test,b@y.test,,", ["a@x.test", "b@y.test"]),
        ("a@x.test b@y.test", ["a@x.test", "b@y.test"]),
        ("a b c", ["a@mine.test", "b@mine.test", "c@mine.test"]),
        ("a . b @ x.test", ["a.b@x.test"]),
        ("John Doe <jd@x.test>", ["jd@x.test"]),
        ('"Doe, John" <jd@x.test>, b', ["jd@x.test", "b@mine.test"]),
        ("c@z.test <jd@x.test> b", ["jd@x.test", "b@mine.test"]),
        ('"john doe"@x.test', ["john doe@x.test"]),
        (r'"a\"b"@x.test', ['a"b@x.test']),
        ("a@[192.0.2.1]", ["a@[192.0.2.1]"]),
        ("a@x.test.", ["a@x.test"]),
        ("a@x.test..", ["a@x.test.."]),
        ("x.test!a", ["a@x.test"]),
        ("y.test!x.test!a", ["x.test!a@y.test"]),
        ("a%x.test", ["a@x.test"]),
        ("a%y.test%x.test", ["a%y.test@x.test"]),
        ("a%y.test@x.test", ["a%y.test@x.test"]),
        ("/var/mail/a", ["/var/mail/a@mine.test"]),
        ("", []),
    ],
)
def test_a_list_is_read_as_postfix_reads_it(text: str, addresses: list[str]) -> None:
    assert read_list(text, HOME) == addresses


@pytest.mark.parametrize(
    "text",
    [
        "a (a comment)",
        "group: a, b;",
        "@x.test:a@y.test",
        ":include:/etc/list",
        "<>",
        "<a@x.test",
        "a@x.test>",
        "<a@x.test, b@x.test>",
        "<a@x.test b@x.test>",
        "<a <b@x.test>",
        '"a@x.test',
        "a@[192.0.2.1",
        "a\\@b@x.test",
        "a\0b",
    ],
)
def test_a_text_with_more_than_addresses_is_not_guessed_at(text: str) -> None:
    with pytest.raises(AddressError):
        read_list(text, HOME)


@pytest.mark.parametrize("text", ["", "<>", "a b", "a,b", "<<a@x.test>>", "a <b@x.test>", " "])
def test_a_recipient_is_one_address(text: str) -> None:
    with pytest.raises(AddressError):
        read_one(text, HOME)


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("a", "a@mine.test"),
        ("a@host", "a@host.test"),
        ("a@x.org", "a@x.org"),
        ("a@[192.0.2.1]", "a@[192.0.2.1]"),
        ("a@", "a@"),
        ("host!a", "a@host.test"),
        ("a%host", "a@host.test"),
    ],
)
def test_what_an_address_lacks_is_added(text: str, complete: str) -> None:
    assert read_one(f"<{text}>", WITH_DOMAIN) == complete


def test_an_origin_without_a_dot_gets_mydomain_as_any_other_domain_does() -> None:
    assert read_one("a", Origin("mail", "example.org")) == "a@mail.example.org"
    assert read_one("a", Origin("mail")) == "a@mail"


def test_without_an_origin_nothing_is_added() -> None:
    assert read_one("a", Origin("")) == "a"


@given(st.text(max_size=80))
def test_any_text_is_a_list_of_addresses_or_an_error(text: str) -> None:
    try:
        found = read_list(text, WITH_DOMAIN)
    except AddressError:
        return
    assert all(found)


@pytest.mark.parametrize(
    ("external", "internal"),
    [
        ("a@x.test", "a@x.test"),
        ('"a b"@x.test', "a b@x.test"),
        ('"a\\"b"@x.test', 'a"b@x.test'),
        ('"a@y.test"@x.test', "a@y.test@x.test"),
        ('"a', '"a'),
    ],
)
def test_an_address_can_be_written_without_its_quotes(external: str, internal: str) -> None:
    assert to_internal(external) == internal


@pytest.mark.parametrize(
    ("address", "other"),
    [
        ("a@mine.test", ""),
        ("a%x.test@mine.test", "a@x.test"),
        ("a%b%x.test@mine.test", "a%b@x.test"),
        ("x.test!a@mine.test", "a@x.test"),
        ("y.test!x.test!a@mine.test", "x.test!a@y.test"),
        ("a@x.test@mine.test", "a@x.test"),
        ("a%host@mine.test", "a@host.my.test"),
        ("a(%x.test@mine.test", ""),
    ],
)
def test_a_local_part_may_name_another_address(address: str, other: str) -> None:
    assert routed_to(address, Origin("mine.test", "my.test")) == other
