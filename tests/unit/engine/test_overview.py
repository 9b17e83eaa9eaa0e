"""How the running service is, in sentences."""

from __future__ import annotations

import pytest

from requiretls_milter.engine.overview import FileState, age
from tests.support.overviews import overview, service_status


def test_the_page_goes_by_what_the_supervisor_saw_of_the_file() -> None:
    well = FileState.told_by(service_status())
    other = FileState.told_by(service_status(file_differs=True))
    bad = FileState.told_by(service_status(file_differs=True, file_usable=False))
    assert not [*overview(file=well).problems(), *overview(file=well).notes()]
    assert list(overview(file=other).notes()) == [
        "the file differs from what is in force: reload, or restart"
    ]
    assert not list(overview(file=other).problems())
    assert list(overview(file=bad).problems()) == [
        "/etc/x.toml cannot be used any more: a restart would fail"
    ]
    assert not list(overview(file=bad).notes())


def test_a_suspension_by_command_is_told_and_no_difference_of_the_file() -> None:
    file = FileState.told_by(service_status(file_differs=True, suspended=True))
    one = overview(file=file, suspended=True)
    assert list(one.problems()) == ["rules are suspended: nothing is enforced"]
    assert not list(one.notes())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (59.9, "59 s"), (60, "1 min"), (3_661, "1 h 1 min"), (200_000, "2 d 7 h")],
)
def test_an_age_has_two_units(seconds: float, text: str) -> None:
    assert age(seconds) == text
