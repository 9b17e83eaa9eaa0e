from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.syntax.tables import (
    COMPILED,
    inline_entries,
    is_fixed,
    logical_lines,
    path_within,
    source_entries,
    split_list,
    split_table,
    static_result,
    without_braces,
)


def test_postmap_adds_to_the_name_of_a_source_what_the_type_has() -> None:
    """As dict_open(3) of Postfix has it; the lab makes such tables with postmap itself."""
    assert {
        **dict.fromkeys(("hash", "btree"), ".db"),
        **dict.fromkeys(("dbm", "sdbm"), ".pag"),
        "lmdb": ".lmdb",
        "cdb": ".cdb",
    } == COMPILED


# ---------------------------------------------------------------- lists of main.cf


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("", []),
        (" , ", []),
        ("a, b\tc\nd", ["a", "b", "c", "d"]),
        ("inline:{ {a = b}, c=d } enforce", ["inline:{ {a = b}, c=d }", "enforce"]),
        ("{ unix:m.sock, default_action=accept }", ["{ unix:m.sock, default_action=accept }"]),
        ("a} b", ["a}", "b"]),
        ("a{b c", ["a{b c"]),
    ],
)
def test_lists_are_split_as_postfix_does(text: str, items: list[str]) -> None:
    assert split_list(text) == items


@given(st.text(alphabet="a,{} \n:", max_size=40))
def test_splitting_loses_nothing_but_separators(text: str) -> None:
    kept = "".join("".join(split_list(text)).split()).replace(",", "")
    assert kept == "".join(text.split()).replace(",", "")


def test_braces_are_taken_off_once() -> None:
    assert without_braces("{\v a b\f }") == "a b"  # what C calls a space
    assert without_braces("{ {a b} }") == "{a b}"
    assert without_braces("{a") == "{a"


@pytest.mark.parametrize(
    ("item", "kind", "name"),
    [
        ("hash:/etc/postfix/tls", "hash", "/etc/postfix/tls"),
        ("proxy:hash:/etc/debug:x", "hash", "/etc/debug:x"),
        ("debug:proxy:socketmap:inet:h:1:x", "socketmap", "inet:h:1:x"),
    ],
)
def test_the_type_of_a_table_is_behind_its_adapters(item: str, kind: str, name: str) -> None:
    assert split_table(item) == (kind, name)


def test_a_static_table_has_one_result_for_every_key() -> None:
    assert static_result("static:{ a b }") == "a b"
    assert static_result("proxy:static:a") == "a"
    assert static_result("hash:/etc/a") is None


# ---------------------------------------------------------------- entries


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("a b\n", ["a b"]),
        ("a b\n  c\n\td\ne f", ["a b  c\td", "e f"]),
        ("# comment\na b\n# in between\n\n   \n  c\n", ["a b  c"]),
        ("  # comment\na b", ["a b"]),
        ("  lost\na b", ["a b"]),
        ("a b\r\nc d\r\n", ["a b\r", "c d\r"]),
    ],
)
def test_a_line_that_begins_with_a_blank_continues_the_one_before(
    text: str, lines: list[str]
) -> None:
    assert list(logical_lines(text)) == lines


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("a@x.test b@x.test", ("a@x.test", "b@x.test")),
        ("a \t b, c \r", ("a", "b, c")),
        ('"a b"@x.test  c', ('"a b"@x.test', "c")),
        ("a\\ b c", ("a\\ b", "c")),
        ('a "b c"@x.test', ("a", '"b c"@x.test')),
        ("a #not-a-comment", ("a", "#not-a-comment")),
    ],
)
def test_an_entry_is_a_key_blanks_and_a_value(line: str, entry: tuple[str, str]) -> None:
    assert list(source_entries(line)) == [entry]


@pytest.mark.parametrize("line", ["alone", "alone  ", '"a b', "a\udcff b", ""])
def test_a_line_that_is_no_entry_has_no_effect(line: str) -> None:
    assert list(source_entries(f"{line}\nc d\n")) == [("c", "d")]


def test_a_table_in_main_cf_has_pairs() -> None:
    text = '{ { a@x.test = b@x.test, c } d=e { "f g"=h } }'
    assert inline_entries(text) == {"a@x.test": "b@x.test, c", "d": "e", '"f g"': "h"}


@pytest.mark.parametrize("text", ["", "{}", "{ }", "a=b", "{ a }", "{ a=b, c }", "{ =b }"])
def test_what_postfix_would_not_take_has_no_entries(text: str) -> None:
    assert inline_entries(text) is None


@given(st.text(alphabet='ab"\\ #\n\t', max_size=60))
def test_any_text_has_entries_with_key_and_value(text: str) -> None:
    assert all(key and value for key, value in source_entries(text))


# ---------------------------------------------------------------- tables that are asked


@pytest.mark.parametrize(
    ("item", "fixed"),
    [
        ("hash:/x", True),
        ("ldap:/x", True),
        ("proxy:mysql:/x", True),
        ("sqlite:/x", True),
        ("static:x", True),
        ("regexp:/x", False),
        ("proxy:pcre:/x", False),
        ("cidr:/x", False),
        ("tcp:host:port", False),
        ("socketmap:unix:/x:y", False),
        ("randmap:{a, b}", False),
        ("unionmap:{ldap:/x,regexp:/x}", True),
        ("unionmap:{regexp:/x, ldap:/x}", False),
        ("pipemap:{unionmap:{pcre:/x},hash:/x}", False),
        ("unionmap:{}", True),
    ],
)
def test_parts_of_addresses_are_looked_up_in_tables_of_fixed_strings(
    item: str, fixed: bool
) -> None:
    assert is_fixed(item) is fixed


@pytest.mark.parametrize(
    ("command", "path", "within"),
    [
        ("/usr/sbin/postmap -c /etc/x", "/srv/mta/etc/x", "/srv/mta/etc/x"),
        ("/usr/sbin/chroot /srv/mta /usr/sbin/postmap", "/srv/mta/etc/x", "/etc/x"),
        ("chroot --userspec=a /srv/mta/ postmap", "/srv/mta/etc/x", "/etc/x"),
        ("chroot /srv/mta postmap", "/srv/mtas/x", "/srv/mtas/x"),
        ("chroot / postmap", "/etc/x", "/etc/x"),
        ("chroot", "/etc/x", "/etc/x"),
    ],
)
def test_a_path_is_that_which_the_program_sees(command: str, path: str, within: str) -> None:
    assert path_within(command.split(), path) == within
