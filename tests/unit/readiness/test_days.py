"""The history: one report a day, and no more days than there is room for."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from requiretls_milter.readiness.days import MAX_COUNT, MAX_DAYS, Day, Days
from requiretls_milter.store.base import MAX_VALUE
from tests.support.readinesses import days


def one(day: str, ready: int = 1) -> Day:
    return Day(day=day, mail=10, mail_ready=ready, domains=10, domains_ready=ready)


def test_a_second_report_of_a_day_takes_the_place_of_the_first() -> None:
    kept = Days().with_day(one("2026-11-28")).with_day(one("2026-11-29", 2))
    kept = kept.with_day(one("2026-11-29", 3))
    assert [(day.day, day.mail_ready) for day in kept.days] == [
        ("2026-11-28", 1),
        ("2026-11-29", 3),
    ]


def test_a_day_that_comes_late_stands_where_it_belongs() -> None:
    kept = Days().with_day(one("2026-11-29")).with_day(one("2026-11-28"))
    assert [day.day for day in kept.days] == ["2026-11-28", "2026-11-29"]


def test_the_oldest_day_makes_room() -> None:
    kept = Days()
    for day in days(MAX_DAYS + 3):
        kept = kept.with_day(day)
    assert kept.days == days(MAX_DAYS + 3)[3:]


def test_a_full_history_fits_into_a_record() -> None:
    full = Day(
        day="2026-11-29",
        mail=MAX_COUNT,
        mail_ready=MAX_COUNT,
        domains=MAX_COUNT,
        domains_ready=MAX_COUNT,
    )
    written = Days(days=(full,) * MAX_DAYS).model_dump_json().encode()
    assert len(written) < MAX_VALUE


@pytest.mark.parametrize("day", ["", "2026-11-29\n", "<b>", "2026-11-290", "٢٠٢٦-11-29"])
def test_what_is_no_day_is_refused(day: str) -> None:
    with pytest.raises(ValidationError):
        one(day)
