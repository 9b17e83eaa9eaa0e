"""Findings as text, as JSON and as an exit status."""

from __future__ import annotations

import json

import pytest

from requiretls_milter.doctor.finding import error, exit_status, ok, to_json, to_text, warning

FINE = ok("mta", "all is well")
ODD = warning("level", "something is odd", "Look at it.")
BAD = error("milter", "nobody answers " + "very " * 40, "Start it.")


def test_only_an_error_fails() -> None:
    assert exit_status([]) == exit_status([FINE, ODD]) == 0
    assert exit_status([FINE, BAD, ODD]) == 1


def test_text_has_each_finding_with_its_advice_and_a_sum() -> None:
    text = to_text([FINE, ODD, BAD])
    lines = text.splitlines()
    assert lines[0] == "ok      all is well"
    assert lines[1:3] == ["warning something is odd", "        -> Look at it."]
    assert lines[-1] == "1 error, 1 warning"
    assert to_text([FINE]).endswith("no errors, no warnings")


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_the_text_is_as_wide_as_it_may_be(width: int) -> None:
    text = to_text([FINE, ODD, BAD], width=width)
    longest = max(map(len, text.splitlines()))
    assert longest <= width
    assert longest > width - len("answers very")
    said = " ".join(text.split())
    assert f"error {BAD.found.strip()} -> Start it. 1 error" in said


def test_a_word_that_is_wider_than_the_terminal_is_not_lost() -> None:
    path = "/run/" + "x" * 200
    text = to_text([ok("socket", f"{path} is there")], width=60)
    assert path in "".join(text.split())


def test_only_a_terminal_has_colours_and_not_if_they_are_unwanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "\x1b" not in to_text([BAD])
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;31merror" in to_text([BAD])
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in to_text([BAD])


def test_json_is_an_array_in_order() -> None:
    assert json.loads(to_json([ODD])) == [
        {
            "check": "level",
            "severity": "warning",
            "found": "something is odd",
            "advice": "Look at it.",
        }
    ]


def test_hostile_text_stays_on_its_line() -> None:
    text = to_text([ok("outside", "greets: 220 \x1b[2J\r\nerror  forged \N{SNOWMAN}")])
    assert text.isascii()
    assert "\x1b" not in text
    assert len(text.splitlines()) == 3
