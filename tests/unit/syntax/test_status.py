from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.model import Outcome
from requiretls_milter.syntax import status
from requiretls_milter.syntax.status import FORECAST_STATUSES

codes = st.from_regex(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}", fullmatch=True)
WORST_FIRST = ("5.7.30", "5.4.4", "4.7.5", "4.4.1", "unknown", "2.0.0")


@pytest.mark.parametrize(
    ("text", "enhanced"),
    [
        *(("2.0.0", True), ("4.7.10", True), ("5.7.30", True), ("5.999.999", True)),
        *(("3.0.0", False), ("5.7", False), ("5.7.1000", False), ("5.7.3x", False), ("", False)),
        *(("unknown", False), ("5.7.\u0663", False), ("5.7.30\n", False)),
    ],
)
def test_an_enhanced_status_code_has_a_class_and_two_numbers(text: str, enhanced: bool) -> None:
    assert status.is_enhanced(text) is enhanced


def test_there_is_one_order_of_severity() -> None:
    assert tuple(sorted(WORST_FIRST, key=status.severity, reverse=True)) == WORST_FIRST
    assert status.worst_of(reversed(WORST_FIRST)) == "5.7.30"
    assert status.worst_of(["5.7.10", "5.7.30"]) == "5.7.10"


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("2.0.0", Outcome.DELIVER),
        ("4.7.5", Outcome.DEFER),
        ("5.7.30", Outcome.BOUNCE),
        ("unknown", Outcome.UNKNOWN),
        ("", Outcome.UNKNOWN),
    ],
)
def test_the_class_says_what_becomes_of_the_message(text: str, outcome: Outcome) -> None:
    assert status.outcome_of(text) is outcome


@given(st.text())
def test_any_text_has_a_severity_and_an_outcome(text: str) -> None:
    assert 0 <= status.severity(text) <= 5
    assert status.outcome_of(text) in Outcome


def test_what_an_mta_gives_by_itself_is_enhanced_and_told_once() -> None:
    assert all(map(status.is_enhanced, FORECAST_STATUSES))
    assert len(set(FORECAST_STATUSES)) == len(FORECAST_STATUSES)


@given(codes)
def test_the_temporary_form_differs_in_its_class_only(code: str) -> None:
    temporary = status.as_temporary(code)
    assert status.as_permanent(temporary) == f"5{code[1:]}"
    assert status.is_enhanced(temporary)
    assert temporary == f"4{code[1:]}"


@pytest.mark.parametrize(("worse", "better"), list(itertools.combinations(WORST_FIRST, 2)))
def test_permanent_goes_before_temporary_and_of_each_what_is_about_security_before_the_rest(
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
