"""Times in JSON and in texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.syntax.moments import day, moment, moment_if_any, seconds_of

NOON = 1_764_331_200.75


def test_a_time_is_written_to_the_second_in_utc() -> None:
    assert moment(NOON) == "2025-11-28T12:00:00Z"
    assert day(NOON) == "2025-11-28"


def test_no_time_is_none() -> None:
    assert moment_if_any(0.0) is None
    assert moment_if_any(NOON) == moment(NOON)


@given(st.integers(0, 253_402_300_799))
def test_what_is_written_is_read(seconds: int) -> None:
    assert seconds_of(moment(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "2025-11-28", "2025-11-28T12:00:00+01:00"])
def test_what_is_no_such_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not match"):
        seconds_of(text)
