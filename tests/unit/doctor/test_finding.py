"""Findings as text, as JSON and as an exit status."""

from __future__ import annotations

import json

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
    assert lines[0] == "ok       all is well"
    assert lines[1:3] == ["warning  something is odd", "         -> Look at it."]
    assert lines[-1] == "1 error, 1 warning"
    assert max(map(len, lines)) <= 96
    assert to_text([FINE]).endswith("no errors, no warnings")


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
