"""Every clause has its code and its test, and docs/conformance.md says so."""

from __future__ import annotations

import pytest

from tests import conformance
from tests.conformance import LAST_CLAUSE, Clause

EACH_CLAUSE = pytest.mark.parametrize("clause", conformance.clauses(), ids=str)


def test_the_clauses_are_numbered_without_a_gap() -> None:
    numbers = [clause.number for clause in conformance.clauses()]
    assert numbers == list(range(1, LAST_CLAUSE + 1))


@EACH_CLAUSE
def test_each_clause_has_a_test_that_carries_its_number(clause: Clause) -> None:
    assert conformance.tests()[clause.number], f"{clause} has no test: {clause.text}"


@EACH_CLAUSE
def test_each_clause_has_code_that_exists(clause: Clause) -> None:
    assert clause.code
    for name in clause.code:
        assert conformance.resolve(name).first > 0


def test_the_code_of_a_clause_cites_it() -> None:
    assert conformance.uncited() == []


def test_the_page_is_current() -> None:
    assert conformance.PAGE.read_text(encoding="utf-8") == conformance.page(), "make docs"


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("test_r07_a_bounce_is_never_refused", (7,)),
        ("test_r14_r15_its_bounce_has_no_body", (14, 15)),
        ("test_a_rule_r07_says_so", ()),
        ("test_rfc8689_is_read", ()),
    ],
)
def test_a_name_tells_its_clauses(name: str, numbers: tuple[int, ...]) -> None:
    assert conformance.clauses_of(name) == numbers


@pytest.mark.parametrize("number", [0, LAST_CLAUSE + 1])
def test_a_name_that_tells_a_clause_that_is_not_there_is_a_mistake(number: int) -> None:
    with pytest.raises(LookupError, match=f"no clause R{number}"):
        conformance.clauses_of(f"test_r{number:02}_something")


def test_each_test_is_marked_with_the_clauses_of_its_name(request: pytest.FixtureRequest) -> None:
    for item in request.session.items:
        numbers = [mark.kwargs["number"] for mark in item.iter_markers("clause")]
        assert sorted(numbers) == sorted(conformance.clauses_of(item.name)), item.nodeid
