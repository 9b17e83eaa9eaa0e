"""What Postfix is set to stays one bounded line wherever it is quoted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.mirror.wording import (
    MAX_NAME,
    MAX_NAMED,
    MAX_SHOWN,
    examples,
    shown,
    without_settings,
)


@given(st.text(max_size=300))
def test_a_value_is_one_bounded_line_of_ascii(value: str) -> None:
    text = shown(value)
    assert text.isascii()
    assert len(text) <= MAX_SHOWN
    assert len(text.splitlines()) <= 1


def test_a_long_value_says_that_it_goes_on() -> None:
    assert shown("x" * MAX_SHOWN) == "x" * MAX_SHOWN
    assert shown("x" * (MAX_SHOWN + 1)).endswith("x...")


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a"] * MAX_NAMED, ", ".join("a" * MAX_NAMED)),
        (["a"] * (MAX_NAMED + 2), ", ".join("a" * MAX_NAMED) + " and 2 more"),
        (["b\N{LATIN SMALL LETTER U WITH DIAERESIS}\n"], "b\\xfc\\n"),
        (["x" * 100], "x" * MAX_NAME),
    ],
)
def test_the_first_names_are_listed_and_the_others_counted(names: list[str], text: str) -> None:
    assert examples(names) == text


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("mysql:{ {password = x}, {hosts = y} }", "mysql:{...}"),
        (
            "hash:/a, proxy:pgsql:{hosts=postgresql://u:x@h/d} cidr:/b",
            "hash:/a, proxy:pgsql:{...} cidr:/b",
        ),
        (
            "unionmap:{hash:/a, ldap: {{bind_pw=x}}, hash:/b}",
            "unionmap:{hash:/a, ldap: {...}, hash:/b}",
        ),
        ("{ ldap:{ {bind_pw = x} } } hash:/a", "{ ldap:{...} } hash:/a"),
        ("newdb:{ {secret = x} }", "newdb:{...}"),
        ("mysql:{ {password = x}", "mysql:{...}"),
        ("} ldap:{x}", "} ldap:{...}"),
    ],
)
def test_the_settings_of_a_table_stay_where_they_are(value: str, told: str) -> None:
    assert without_settings(value) == told
    assert shown(value) == told
    assert examples([value]) == told[:MAX_NAME]


@pytest.mark.parametrize(
    "value",
    [
        *("inline:{ {a = b}, {c = d} }", "static:{a b}", "regexp:{{/^x{2}$/ a:{1}}}", "ldap:/x.cf"),
        *("pipemap:{inline:{a=b},regexp:/x}", "{ a b }", "no brace", ""),
    ],
)
def test_entries_and_names_of_files_are_no_settings(value: str) -> None:
    assert without_settings(value) == value


@pytest.mark.parametrize(
    "value", ["b" * 500_000, "a:" * 200_000, "ldap:{}" * 50_000, "{" * 200_000]
)
@pytest.mark.timeout(10)
def test_a_long_value_takes_no_long_time(value: str) -> None:
    assert without_settings(value)
