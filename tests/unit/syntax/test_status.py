"""Enhanced status codes: what they lead to, and which of several is the worst."""

from __future__ import annotations

import itertools

import pytest

from requiretls_milter.model import Outcome
from requiretls_milter.syntax import status

WORST_FIRST = ["5.7.30", "5.4.4", "4.7.5", "4.4.1", "unknown", "2.0.0"]


@pytest.mark.parametrize(("worse", "better"), list(itertools.combinations(WORST_FIRST, 2)))
def test_permanent_before_temporary_and_of_each_what_is_about_security_first(
    worse: str, better: str
) -> None:
    assert status.worst_of([worse, better]) == worse
    assert status.worst_of([better, worse]) == worse


@pytest.mark.parametrize(
    "equals", [("5.7.10", "5.7.30"), ("5.4.4", "5.1.0"), ("4.7.0", "4.7.5"), ("4.4.1", "4.3.0")]
)
def test_of_equals_the_first_is_the_worst(equals: tuple[str, str]) -> None:
    assert status.worst_of(equals) == equals[0]
    assert status.worst_of(equals[::-1]) == equals[1]


def test_only_the_subject_7_is_about_security() -> None:
    assert status.worst_of(["5.17.1", "5.70.1", "5.7.1"]) == "5.7.1"
    assert status.worst_of(["4.70.7", "4.7.1"]) == "4.7.1"


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("2.0.0", Outcome.DELIVER),
        ("4.7.5", Outcome.DEFER),
        ("5.7.30", Outcome.BOUNCE),
        ("unknown", Outcome.UNKNOWN),
        ("", Outcome.UNKNOWN),
        ("3.0.0", Outcome.UNKNOWN),
    ],
)
def test_the_class_of_a_status_is_what_becomes_of_the_message(code: str, outcome: Outcome) -> None:
    assert status.outcome_of(code) is outcome


@pytest.mark.parametrize("code", ["2.0.0", "4.7.5", "5.7.30", "5.999.999"])
def test_three_numbers_of_class_2_4_or_5_are_a_status(code: str) -> None:
    assert status.is_enhanced(code)


@pytest.mark.parametrize(
    "code",
    ["", "1.0.0", "3.0.0", "6.0.0", "5.7", "5.7.1000", "5.1000.1", "5.7.1 ", "x5.7.1", "5..1"],
)
def test_nothing_else_is_a_status(code: str) -> None:
    assert not status.is_enhanced(code)
