"""When readers have waited for too long, too often."""

from __future__ import annotations

import pytest

from requiretls_milter.store.slowness import Slowness


def waits_until_too_much(seconds: float, most: int = 200) -> int:
    slowness, at = Slowness(), 0.0
    for number in range(most):
        if slowness.is_too_much:
            return number
        slowness.note(at, at + seconds)
        at += seconds
    return most


@pytest.mark.parametrize("seconds", [0.11, 0.15, 0.2, 0.3, 0.45, 0.5])
def test_a_store_that_is_slow_each_time_is_given_up_within_two_seconds(seconds: float) -> None:
    assert seconds * waits_until_too_much(seconds) <= 2.2


@pytest.mark.parametrize("seconds", [0.001, 0.05, 0.1])
def test_a_store_that_is_far_away_is_not(seconds: float) -> None:
    assert waits_until_too_much(seconds) == 200


def test_a_single_hiccup_is_forgiven() -> None:
    slowness = Slowness()
    for number in range(100):
        slowness.note(number, number + (0.5 if number % 10 == 0 else 0.001))
    assert not slowness.is_too_much


def test_a_moment_in_which_all_stands_still_counts_once_however_many_wait() -> None:
    slowness = Slowness()
    for _ in range(100):
        slowness.note(1.0, 1.5)
    assert 0.05 < slowness.mean < 0.1
    slowness.note(2.0, 2.5)
    assert slowness.is_too_much


def test_what_was_found_well_begins_anew() -> None:
    slowness = Slowness()
    slowness.note(1.0, 9.0)
    slowness.forget()
    assert not slowness.is_too_much
