"""Counting in one process, from any thread."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.telemetry.catalogue import MetricError
from requiretls_milter.telemetry.counting import Counters, Gauges, Totals


def test_r62_a_domain_that_is_not_configured_never_becomes_a_label() -> None:
    counters = Counters(("example.org",))
    for number in range(1000):
        counters.inc("domain_forecasts_total", (f"x{number}.example", "2.0.0"))
    counters.inc("domain_forecasts_total", ("example.org", "2.0.0"))
    counters.configure(("x1.example",))
    counters.inc("domain_forecasts_total", ("x1.example", "2.0.0"))
    counters.inc("domain_forecasts_total", ("example.org", "2.0.0"))
    assert {labels[0]: value for _, labels, value in counters.totals().counters} == {
        "other": 1001,
        "example.org": 1,
        "x1.example": 1,
    }


@pytest.mark.parametrize(
    ("metric", "labels", "by"),
    [
        ("no_such_total", (), 1),
        ("cache_entries", ("host",), 1),
        ("forecast_wait_seconds", (), 1),
        ("limit_reached_total", ("hosts",), 1),  # the name under which saturated_total is shown
        ("messages_total", (), 1),
        ("messages_total", ("requiretls",), 1),
        ("messages_total", ("requiretls", "discard"), 1),
        ("messages_total", ("REQUIRETLS", "accept"), 1),
        ("requirement_lost_total", (), -1),
        ("requirement_lost_total", (), float("nan")),
    ],
)
def test_a_mistake_in_the_program_is_told_and_counts_nothing(
    metric: str, labels: tuple[str, ...], by: float
) -> None:
    counters = Counters()
    with pytest.raises(MetricError):
        counters.inc(metric, labels, by)
    with pytest.raises(MetricError):
        counters.observe("messages_total", 1)
    assert counters.totals() == Totals()


def test_nothing_is_lost_between_threads() -> None:
    counters = Counters()

    def count() -> None:
        for _ in range(2000):
            counters.inc("requirement_lost_total")
            counters.observe("forecast_wait_seconds", 0.5)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    totals = counters.totals()
    assert totals.counters == (("requirement_lost_total", (), 16000.0),)
    assert sum(totals.histograms[0][1]) == 16000
    assert totals.histograms[0][2] == 8000.0


@given(st.integers(1, 7), st.integers(0, 20))
def test_pieces_of_totals_are_the_totals(size: int, number: int) -> None:
    totals = Totals(
        tuple((f"m{index}", (), float(index)) for index in range(number)), (("h", (1,), 1.0),)
    )
    pieces = list(totals.pieces(size))
    assert all(len(piece.counters) <= size for piece in pieces)
    assert tuple(one for piece in pieces for one in piece.counters) == totals.counters
    assert [piece.histograms for piece in pieces if piece.histograms] == [totals.histograms]


def test_of_the_words_of_a_gauge_one_is_there() -> None:
    gauges = Gauges()
    gauges.set_word("domain_state", ("example.net",), "deliver")
    for word in ("unknown", "bounce", "bounce"):
        gauges.set_word("domain_state", ("example.org",), word)
        assert set(gauges.items()) == {
            ("domain_state", ("example.net", "deliver"), 1.0),
            ("domain_state", ("example.org", word), 1.0),
        }


@pytest.mark.parametrize(
    ("metric", "labels", "word"),
    [
        ("domain_state", ("example.org",), "delivered"),
        ("domain_state", (), "deliver"),
        ("resolver_validates", (), "yes"),
        ("messages_total", ("requiretls",), "accept"),
    ],
)
def test_a_word_that_a_gauge_does_not_have_is_a_mistake_in_the_program(
    metric: str, labels: tuple[str, ...], word: str
) -> None:
    gauges = Gauges()
    with pytest.raises(MetricError):
        gauges.set_word(metric, labels, word)
    assert not list(gauges.items())


def test_what_is_known_of_a_domain_goes_with_its_rule_and_nothing_else_does() -> None:
    gauges = Gauges()
    for name in ("example.org", "example.net"):
        gauges.set("domain_ready", 1, (name,))
        gauges.set_word("domain_state", (name,), "deliver")
    gauges.set("resolver_validates", 1)
    gauges.set("cache_entries", 7, ("host",))
    for _ in gauges.retain_domains({"example.net"}):
        pass
    assert set(gauges.items()) == {
        ("domain_ready", ("example.net",), 1),
        ("domain_state", ("example.net", "deliver"), 1.0),
        ("resolver_validates", (), 1),
        ("cache_entries", ("host",), 7),
    }


def test_a_copy_of_the_gauges_is_that_of_its_moment() -> None:
    gauges = Gauges()
    gauges.set("resolver_validates", 1)
    copy = gauges.copy()
    gauges.set("resolver_validates", 0)
    gauges.drop("resolver_validates", ())
    gauges.drop("store_up", ())
    assert list(copy.items()) == [("resolver_validates", (), 1)]
    assert not list(gauges.items())
