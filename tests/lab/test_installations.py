"""Installations at random: what ``mta import`` makes of them is forecast as Postfix then delivers.

A main.cf, a master.cf and tables each, with letters by SMTP and by sendmail(1). Status code,
outcome and tls= word are equal, or a warning names the setting without which they are equal.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from tests.lab import roots
from tests.lab.errors import LabUnavailable
from tests.lab.fixtures import unavailable
from tests.lab.installations import Installation, Letter, Place, at_random, settle
from tests.lab.installed import LOCAL, End, Outcome, Result, explained, prepared_root, unexplained
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

SEED = 8689
COUNT = int(os.environ.get("INSTALLATIONS", "30"))
FEWER = max(4, COUNT // 8)
"""Of an older Postfix."""

LONG = 120.0 + 20.0 * COUNT
"""Seconds for all of them on a busy machine."""


@pytest.fixture(scope="module")
def places(lab: Lab) -> tuple[Place, ...]:
    return settle(lab)


@pytest.mark.timeout(LONG)
@pytest.mark.parametrize(
    ("recipe", "version", "count"),
    [
        pytest.param(roots.POSTFIX_3_11, (3, 11), COUNT, id="3.11"),
        pytest.param(roots.POSTFIX_3_10, (3, 10), FEWER, id="3.10"),
        pytest.param(roots.POSTFIX_3_7, (3, 7), FEWER, id="3.7"),
    ],
)
def test_each_installation_delivers_as_forecast_or_a_warning_says_why_not(
    lab: Lab,
    places: tuple[Place, ...],
    recipe: roots.Recipe,
    version: tuple[int, int],
    count: int,
) -> None:
    try:
        root = prepared_root(recipe)
    except LabUnavailable as reason:
        unavailable(reason)
    letters, _, found = unexplained(lab, root, SEED, count, places, version=version)
    assert not found, "\n".join(found)
    assert letters > 3 * count, "most letters are taken"


# ---------------------------------------------------------------- what counts as explained

LETTER = Letter("u@a.test", "s@b.test", False, "", False, False, False, False)
MADE = Installation("1-1", {}, "", "", {}, (LETTER,), quirk="soft_bounce")
AS_FORECAST = Result(LETTER, End("2.0.0", "deliver", "may"), End("2.0.0", "deliver", "may"))
OTHERWISE = Result(LETTER, End("5.4.4", "bounce", ""), End("4.4.4", "defer", ""))
TOLD = ("soft_bounce = yes: the class is 4, not 5",)


def test_a_difference_is_explained_by_a_warning_of_the_setting_that_makes_it() -> None:
    outcome = Outcome(MADE, TOLD, [OTHERWISE])
    assert explained(outcome, Outcome(MADE, (), [AS_FORECAST])) == []


def test_without_a_warning_it_is_not() -> None:
    outcome = Outcome(MADE, ("relayhost = x: a smart host",), [OTHERWISE])
    assert explained(outcome, Outcome(MADE, (), [AS_FORECAST])) == [OTHERWISE]


def test_if_it_differs_without_the_setting_too_it_is_not() -> None:
    outcome = Outcome(MADE, TOLD, [OTHERWISE])
    assert explained(outcome, Outcome(MADE, (), [OTHERWISE])) == [OTHERWISE]


def test_what_was_not_expanded_is_explained_by_a_warning_of_its_table_alone() -> None:
    one = replace(OTHERWISE, expanded=False)
    told = ('virtual_alias_maps: regexp:x: it is expanded only with aliases = "ask"',)
    assert Outcome(MADE, told, [one, OTHERWISE]).different == [OTHERWISE]
    assert Outcome(MADE, TOLD, [one]).different == [one]


def test_a_forecast_for_mail_that_stays_here_is_a_difference() -> None:
    assert not Result(LETTER, End("2.0.0", "deliver", "may"), LOCAL).equal
    assert not Result(LETTER, LOCAL, None).equal


def test_the_same_seed_makes_the_same_installations_and_twins_are_alike_but_for_the_quirk() -> None:
    places = tuple(Place(f"{n}.test", f"mx.{n}.test", f"192.0.2.{n}") for n in range(1, 20))
    made, again = (list(at_random(1, 50, places)) for _ in range(2))
    assert made == again
    twins = list(at_random(1, 50, places, quirks=False))
    assert [one.letters for one in made] == [one.letters for one in twins]
    assert not any(one.quirk for one in twins)
    assert len({one.quirk for one in made}) > 5
