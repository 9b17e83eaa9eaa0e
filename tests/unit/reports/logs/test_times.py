"""Times are read in every form in which they stand before log lines."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.reports.logs.times import Times

TENTH = 1795860000.0
"""2026-11-28T10:00:00Z."""

TIMES = Times(TENTH + 86_400)


@pytest.fixture(autouse=True)
def _in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-28T10:00:00Z mx postfix",
        "2026-11-28T10:00:00+00:00 [1:mail1:postfix/smtp] ",
        "2026-11-28T11:00:00+0100 mx",
        "2026-11-28T05:00:00-05:00 mx",
        "2026-11-28 10:00:00 +0000 mail.postfix: ",
        "2026-11-28 11:00:00 mx",
        "2026-11-28T11:00:00 mx",
        "<22>1 2026-11-28T10:00:00.000000+00:00 mx postfix/smtp 1234 - - ",
        "2026-11-28T10:00:00.000000000Z stdout F Nov 28 01:00:00 mx ",
        "Sat 2026-11-28 10:00:00 UTC mx",
        "1795860000.000000 mx postfix",
        "[1795860000.000000] mx",
        "1795860000 mx",
        "Nov 28 11:00:00 mx postfix/smtp[1]: ",
        "<22>Nov 28 11:00:00 mx postfix/smtp[1]: ",
        "smtp_1       | Nov 28 11:00:00 mx",
        "Nov 28 2026 11:00:00 mx",
        "2026 Nov 28 11:00:00 mx",
        "Nov 28 11:00:00.000 mx",
    ],
)
def test_one_time_in_many_forms(text: str) -> None:
    assert TIMES.of(text) == TENTH


@pytest.mark.parametrize(
    ("text", "fraction"),
    [
        ("2026-11-28T10:00:00.5Z", 0.5),
        ("2026-11-28T10:00:00.123456789Z", 0.123457),
        ("2026-11-28 11:00:00,250", 0.25),
        ("1795860000.75 mx", 0.75),
        ("Nov 28 11:00:00.125", 0.125),
    ],
)
def test_fractions_of_a_second_count(text: str, fraction: float) -> None:
    assert TIMES.of(text) == pytest.approx(TENTH + fraction, abs=1e-6)


def test_a_missing_year_is_the_latest_that_is_not_in_the_future() -> None:
    def year(text: str, latest: float) -> int | None:
        found = Times(latest).of(text)
        return None if found is None else time.localtime(found).tm_year

    assert year("Nov 28 11:00:00", TENTH) == 2026
    assert year("Nov 28 11:00:01", TENTH) == 2025
    assert year("Dec 31 23:59:59", TENTH) == 2025
    assert year("Jan  1 00:00:00", TENTH) == 2026
    assert year("Feb 29 12:00:00", TENTH) == 2024


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mx postfix/smtp[1]: ",
        "Απρ 15 12:20:28 mx2",
        "Feb 30 12:00:00 mx",
        "Nov  0 12:00:00 mx",
        "2026-13-28T10:00:00Z",
        "2026-11-28T24:00:00Z",
        "0000-11-28T10:00:00Z",
        "[ 1234.567890] mx",
        "99999999999 mx",
        " " * 300 + "2026-11-28T10:00:00Z",
    ],
)
def test_what_is_no_time_is_none(text: str) -> None:
    assert TIMES.of(text) is None


@given(st.text("0123456789-:TZ+. JanFeb", max_size=60))
def test_no_text_raises_anything(text: str) -> None:
    TIMES.of(text)
