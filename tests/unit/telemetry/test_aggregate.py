"""Counts of several processes are added up without loss."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from requiretls_milter.telemetry.aggregate import INCARNATIONS, MAX_PROCESSES, Aggregate, Snapshot
from requiretls_milter.telemetry.catalogue import METRICS, MetricError
from requiretls_milter.telemetry.counting import Totals


def lost(value: float) -> Totals:
    return Totals((("requirement_lost_total", (), value),))


def waits(*counts: int) -> Totals:
    buckets = len(METRICS["forecast_wait_seconds"].buckets) + 1
    filled = (*counts, *[0] * (buckets - len(counts)))
    return Totals((), (("forecast_wait_seconds", filled, float(sum(counts))),))


def shown(aggregate: Aggregate) -> float:
    return sum(value for _, _, value in aggregate.totals().counters)


def test_totals_are_cumulative_and_their_order_does_not_matter() -> None:
    aggregate = Aggregate()
    for value in (1, 5, 3):
        aggregate.update("worker-1", 1, lost(value))
    assert shown(aggregate) == 5


def test_a_dead_worker_s_counts_stay_and_its_successor_s_are_added() -> None:
    aggregate = Aggregate()
    aggregate.update("worker-1", 1, lost(5))
    aggregate.update("worker-2", 2, lost(7))
    aggregate.update("worker-1", 3, lost(1))
    assert shown(aggregate) == 13
    aggregate.update("worker-1", 1, lost(6))  # the last word of the dead one, late
    assert shown(aggregate) == 14


def test_histograms_add_up_bucket_by_bucket() -> None:
    aggregate = Aggregate()
    aggregate.update("worker-1", 1, waits(1, 2))
    aggregate.update("worker-1", 1, waits(1))  # older
    aggregate.update("worker-2", 1, waits(10, 0, 3))
    ((_, counts, total),) = aggregate.totals().histograms
    assert counts[:3] == (11, 2, 3)
    assert total == 16


def test_many_lives_take_no_more_memory_than_a_few_and_lose_nothing() -> None:
    aggregate = Aggregate()
    for incarnation in range(1000):
        aggregate.update("worker-1", incarnation, lost(2))
    assert shown(aggregate) == 2000
    assert len(aggregate.snapshot().lives) == INCARNATIONS
    aggregate.update("worker-1", 3, lost(99))  # long folded: counted already
    assert shown(aggregate) == 2000


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["worker-1", "worker-2", "engine"]),
            st.integers(0, 8),
            st.integers(0, 50),
        ),
        max_size=30,
    ),
    st.integers(0, 30),
)
def test_an_engine_that_takes_over_shows_what_the_last_one_showed(
    updates: list[tuple[str, int, int]], cut: int
) -> None:
    whole = Aggregate()
    first = Aggregate()
    for process, incarnation, value in updates[:cut]:
        whole.update(process, incarnation, lost(value))
        first.update(process, incarnation, lost(value))
    adapter = TypeAdapter(Snapshot)
    second = Aggregate.restore(
        adapter.validate_python(json.loads(adapter.dump_json(first.snapshot())))
    )
    assert sorted(second.totals().counters) == sorted(whole.totals().counters)
    for process, incarnation, value in updates[cut:]:
        whole.update(process, incarnation, lost(value))
        second.update(process, incarnation, lost(value))
    assert sorted(second.totals().counters) == sorted(whole.totals().counters)


def test_an_engine_that_takes_over_knows_which_lives_are_a_sum_already() -> None:
    first = Aggregate()
    for incarnation in range(10):
        first.update("worker-1", incarnation, lost(1))
    second = Aggregate.restore(first.snapshot())
    second.update("worker-1", 2, lost(1))
    assert shown(second) == 10


@pytest.mark.parametrize(
    "totals",
    [
        Totals((("no_such_total", (), 1.0),)),
        Totals((("cache_entries", ("host",), 1.0),)),
        Totals((("messages_total", ("requiretls",), 1.0),)),
        Totals((), (("forecast_wait_seconds", (1, 2), 1.0),)),
        Totals((("requirement_lost_total", (), 1.0),), (("no_such_seconds", (1,), 1.0),)),
    ],
)
def test_totals_with_something_undeclared_are_refused_whole(totals: Totals) -> None:
    aggregate = Aggregate()
    with pytest.raises(MetricError):
        aggregate.update("worker-1", 1, totals)
    assert aggregate.totals() == Totals()


def test_there_is_an_end_to_how_many_processes_are_kept_apart() -> None:
    aggregate = Aggregate()
    for number in range(MAX_PROCESSES):
        aggregate.update(f"worker-{number}", 1, lost(1))
    with pytest.raises(MetricError):
        aggregate.update("one-more", 1, lost(1))
    aggregate.update("worker-1", 1, lost(2))
    assert shown(aggregate) == MAX_PROCESSES + 1
