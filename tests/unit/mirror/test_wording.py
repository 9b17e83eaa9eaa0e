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


def test_the_settings_of_a_table_stay_where_they_are() -> None:
    value = "mysql:{ {password = x}, {hosts = y} }"
    assert shown(value) == "mysql:{...}"
    assert examples([value]) == "mysql:{...}"
