"""How each of the two MTAs writes a time."""

from __future__ import annotations

import pytest

from requiretls_milter.doctor.times import postfix_seconds, sendmail_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("30", 30), (" 2 m ", 120), ("1H", 3600), ("1d", 86_400), ("1w", 604_800)],
)
def test_a_time_is_read_as_postfix_reads_it(text: str, seconds: int) -> None:
    assert postfix_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "30 s s", "-1", "1.5s", "5minutes"])
def test_what_is_no_time_of_postfix_is_none(text: str) -> None:
    assert postfix_seconds(text) is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("5m", 300), ("5minutes", 300), ("2 Hours", 7200)]
)
def test_a_unit_of_sendmail_may_be_a_word(text: str, seconds: int) -> None:
    assert sendmail_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", " 5m", "5m!"])
def test_what_is_no_time_of_sendmail_is_none(text: str) -> None:
    assert sendmail_seconds(text) is None
