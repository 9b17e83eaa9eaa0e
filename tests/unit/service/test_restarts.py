"""When a dead child is replaced, and when the service gives up."""

from __future__ import annotations

import pytest

from requiretls_milter.service.restarts import (
    DEATHS_WITHIN,
    FIRST_BACKOFF,
    MAX_BACKOFF,
    MAX_DEATHS,
    Restarts,
)


def test_a_child_that_died_is_due_after_the_first_backoff_and_once() -> None:
    restarts = Restarts()
    restarts.died("engine", 100.0)
    (moment,) = restarts.moments
    assert moment == 100.0 + FIRST_BACKOFF
    assert restarts.take_due(moment - 0.001) == []
    assert restarts.take_due(moment) == ["engine"]
    assert restarts.take_due(moment + 60) == []


def test_the_backoff_doubles_with_each_death_up_to_a_second() -> None:
    restarts = Restarts()
    delays = []
    for number in range(MAX_DEATHS + 1):
        restarts.died(f"worker-{number}", 100.0)
        delays.append(restarts.moments[-1] - 100.0)
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, MAX_BACKOFF, MAX_BACKOFF])


def test_five_deaths_within_ten_seconds_are_a_crash_loop() -> None:
    restarts = Restarts()
    for number in range(MAX_DEATHS - 1):
        restarts.died("engine", 100.0 + number)
        assert not restarts.crash_loop
    restarts.died("engine", 100.0 + DEATHS_WITHIN)
    assert restarts.crash_loop
    assert restarts.deaths == MAX_DEATHS


def test_a_death_more_than_ten_seconds_ago_does_not_count() -> None:
    restarts = Restarts()
    for number in range(100):
        restarts.died("engine", 100.0 + number * (DEATHS_WITHIN / (MAX_DEATHS - 1) + 0.001))
        assert not restarts.crash_loop


def test_a_child_that_cannot_be_started_is_tried_again_after_a_second_and_is_no_death() -> None:
    restarts = Restarts()
    restarts.postpone("worker-1", 100.0)
    assert restarts.moments == [100.0 + MAX_BACKOFF]
    assert restarts.deaths == 0


def test_deaths_that_a_peer_provokes_make_no_crash_loop_but_lengthen_the_backoff() -> None:
    restarts = Restarts()
    delays = []
    for number in range(100):
        restarts.died("worker-1", 100.0 + number / 10, provoked=True)
        delays.append(restarts.moments[-1] - 100.0 - number / 10)
        assert not restarts.crash_loop
    assert delays[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert set(map(round, delays[4:])) == {round(MAX_BACKOFF)}
    assert restarts.deaths == 0


def test_deaths_by_themselves_count_among_those_that_a_peer_provokes() -> None:
    restarts = Restarts()
    for _ in range(MAX_DEATHS - 1):
        restarts.died("worker-1", 100.0, provoked=True)
        restarts.died("worker-2", 100.0)
    assert not restarts.crash_loop
    restarts.died("engine", 101.0)
    assert restarts.crash_loop


def test_for_a_while_it_is_known_that_a_peer_has_provoked_a_death() -> None:
    restarts = Restarts()
    restarts.died("worker-1", 100.0)
    assert not restarts.provoked(100.0)
    restarts.died("worker-1", 100.0, provoked=True)
    assert restarts.provoked(100.0 + DEATHS_WITHIN)
    assert not restarts.provoked(100.1 + DEATHS_WITHIN)
