from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.syntax.text import (
    MAX_QUOTED,
    MAX_TEXT,
    bounded,
    error_text,
    escape,
    escaped,
    one_line,
    printable,
    quantity,
    quoted,
    visible,
)


@given(st.text() | st.binary())
def test_r62_nothing_but_printable_ascii_of_bounded_length_passes(text: str | bytes) -> None:
    result = printable(text)
    assert len(result) <= MAX_TEXT
    assert all(" " <= c <= "~" for c in result)


@pytest.mark.parametrize("length", [MAX_TEXT - 1, MAX_TEXT, MAX_TEXT + 1])
def test_r62_text_is_cut_at_the_limit(length: int) -> None:
    assert len(printable("x" * length)) == min(length, MAX_TEXT)


def test_r62_control_and_eight_bit_characters_become_question_marks() -> None:
    assert printable("a\r\nb\0c\x7fd\u00e9e\u202ef") == "a??b?c?d?e?f"
    assert printable(b"a\xff\x00b") == "a??b"


def test_an_exception_without_text_is_told_by_its_class() -> None:
    assert error_text(ConnectionResetError()) == "ConnectionResetError"


def test_an_error_of_the_system_is_told_by_its_own_text() -> None:
    hidden = OSError(errno.ENETUNREACH, "Connect call failed ('192.0.2.1', 25)")
    assert error_text(hidden) == "Network is unreachable"
    assert error_text(OSError(errno.EACCES, "not there")) == "not there"
    assert error_text(OSError("plain")) == "plain"


@given(st.text())
def test_r62_any_text_becomes_one_line_of_printable_ascii(text: str) -> None:
    for shown in (escape(text), escaped(text), quoted(text), visible(text), one_line(text)):
        assert all(" " <= c <= "~" for c in shown)
    assert len(escaped(text)) <= MAX_QUOTED
    assert quoted(text) == f'"{escaped(text)}"'
    assert escape(text).encode().decode("unicode_escape") == text


@given(st.text(), st.integers(3, 80))
def test_a_long_text_is_cut_and_says_so(text: str, limit: int) -> None:
    assert len(bounded(text, limit)) <= limit
    assert bounded(text, limit) == text or bounded(text, limit).endswith("...")
    assert escaped(text, limit) == bounded(escape(text), limit)


def test_what_is_escaped_can_be_told_from_what_was_there() -> None:
    assert escape("a\\n\n\x1b\u00e9\u2603") == r"a\\n\n\x1b\xe9\u2603"
    assert visible("a\\n\n\x1b\u00e9\u2603") == r"a\n\n\x1b\xe9\u2603"


def test_blanks_and_line_ends_become_one_blank() -> None:
    assert one_line(" a\r\n\t b\x1b[2J\u2603 ") == r"a b?[2J\u2603"


@pytest.mark.parametrize(
    ("number", "told"),
    [(0, "0 next hops"), (1, "1 next hop"), (2, "2 next hops"), (1204, "1,204 next hops")],
)
def test_a_number_stands_with_its_noun(number: int, told: str) -> None:
    assert quantity(number, "next hop") == told
