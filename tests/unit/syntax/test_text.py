from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.syntax.text import MAX_TEXT, error_text, printable


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
