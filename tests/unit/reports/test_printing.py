"""Lines on a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from requiretls_milter.reports.printing import on_terminal

TEXT = "Name     one two three four five\n\n  inner  one two three four"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on(width: int, text: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines on a terminal of this width."""
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", f"{width}")
    return on_terminal(text, hang=9).splitlines()


def test_what_is_no_terminal_gets_the_lines_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setenv("COLUMNS", "20")
    assert on_terminal(TEXT, hang=9) == TEXT


def test_a_line_goes_on_below_its_value_and_an_indented_one_below_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert on(20, TEXT, monkeypatch) == [
        "Name     one two",
        "         three four",
        "         five",
        "",
        "  inner  one two",
        "    three four",
    ]


def test_lines_that_fit_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on(80, TEXT, monkeypatch) == TEXT.splitlines()


def test_a_word_is_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    word = "requiretls_not_offered.example.org"
    assert on(20, f"Reason   {word} now", monkeypatch)[1].strip() == word
