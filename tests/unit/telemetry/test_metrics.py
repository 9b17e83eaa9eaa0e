"""Each metric declared once, counted anywhere, added up without loss."""

from __future__ import annotations

import itertools
import json
import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from pydantic import TypeAdapter

from requiretls_milter import config
from requiretls_milter.engine.exposition import EngineCollector, Exposition, set_build_info
from requiretls_milter.model import Action, Reason, Requirement
from requiretls_milter.telemetry.metrics import (
    INCARNATIONS,
    MAX_PROCESSES,
    METRICS,
    OTHER,
    STATUSES,
    Aggregate,
    Counters,
    Gauges,
    Kind,
    MetricError,
    Snapshot,
    Totals,
    configured_domains,
    known_status,
)
from tests.support.paths import ORACLE

NAMES = (
    "messages_total{requirement,action}",
    "requirement_sources_total{source}",
    "recipients_total{requirement,action}",
    "forecasts_total{requirement,status,reason}",
    "domain_forecasts_total{domain,status}",
    "noncompliant_deliveries_total{reason}",
    "requirement_lost_total",
    "forecast_wait_seconds",
    "assessments_total{result}",
    "assessment_seconds",
    "probes_total{result}",
    "mta_sts_fetches_total{result}",
    "mta_sts_refreshes_total{result}",
    "cache_requests_total{layer,result}",
    "cache_entries{layer}",
    "downgrades_total{kind}",
    "store_up",
    "store_errors_total{operation}",
    "store_damaged_total",
    "store_evicted_total",
    "fleet_flights_total{result}",
    "domain_ready{domain}",
    "resolver_validates",
    "outbound_reachable{service}",
    "saturated_total{bound}",
    "callback_errors_total{stage}",
    "process_restarts_total{process}",
    "config_last_reload_successful",
    "config_last_reload_success_timestamp_seconds",
    "build_info{version,python,pymilter,openssl}",
)
"""The contract: others' dashboards and alerts rely on these."""


def render(
    totals: Totals = Totals(),  # noqa: B008 - frozen
    gauges: Gauges | None = None,
    domains: tuple[str, ...] = (),
    accept: str = "",
) -> tuple[str, str]:
    collector = EngineCollector(lambda: totals, gauges or Gauges(), lambda: domains)
    text, media_type = Exposition(collector).render(accept)
    return text.decode(), media_type


def samples(text: str) -> dict[str, float]:
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if not line.startswith("#")
    }


def test_all_metrics_of_the_contract_are_declared_and_no_other() -> None:
    declared = {
        metric.name + ("{" + ",".join(metric.label_names) + "}" if metric.labels else "")
        for metric in METRICS.values()
    }
    assert declared == set(NAMES)


def test_every_metric_shows_from_the_first_scrape_on() -> None:
    gauges = Gauges()
    set_build_info(gauges)
    text, media_type = render(gauges=gauges, domains=("example.org",))
    assert media_type.startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for metric in METRICS.values():
        family = families["requiretls_milter_" + metric.name.removesuffix("_total")]
        assert family.documentation == metric.help
        assert family.samples, metric.name
        assert str(family.type) == metric.kind.value


def test_every_known_combination_starts_at_zero() -> None:
    found = samples(render(domains=("example.org", ".example.net"))[0])
    for requirement, action in itertools.product(Requirement, Action):
        labels = f'{{action="{action}",requirement="{requirement}"}}'
        assert found[f"requiretls_milter_messages_total{labels}"] == 0
        assert found[f"requiretls_milter_recipients_total{labels}"] == 0
    for source in ("esmtp", "require-tls-esmtp", "rule", "tls-required", "none"):
        assert found[f'requiretls_milter_requirement_sources_total{{source="{source}"}}'] == 0
    for domain, status in itertools.product(("example.org", ".example.net", OTHER), STATUSES):
        labels = f'{{domain="{domain}",status="{status}"}}'
        assert found[f"requiretls_milter_domain_forecasts_total{labels}"] == 0
    assert found['requiretls_milter_process_restarts_total{process="engine"}'] == 0
    assert found['requiretls_milter_cache_requests_total{layer="host",result="held"}'] == 0
    assert found["requiretls_milter_requirement_lost_total"] == 0
    assert found['requiretls_milter_assessment_seconds_bucket{le="+Inf"}'] == 0


def test_what_the_oracle_records_is_among_what_starts_at_zero() -> None:
    scenarios = json.loads(ORACLE.read_text())["scenarios"]
    known = {status for _, status, _ in METRICS["forecasts_total"].combinations()}
    for scenario in scenarios:
        for expected in scenario["expected"]:
            assert known_status(expected["dsn"]) in known


def test_openmetrics_is_spoken_to_who_asks_for_it() -> None:
    text, media_type = render(accept="application/openmetrics-text; version=1.0.0")
    assert media_type.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


def test_counts_show_as_they_were_counted() -> None:
    counters = Counters(("example.org",))
    counters.inc("messages_total", (Requirement.REQUIRETLS, Action.REJECT))
    counters.inc("messages_total", ("requiretls", "reject"), 2)
    counters.inc("domain_forecasts_total", ("example.org", "2.0.0"))
    counters.observe("forecast_wait_seconds", 0.001)
    counters.observe("forecast_wait_seconds", 0.0011)
    counters.observe("forecast_wait_seconds", 99)
    counters.observe("forecast_wait_seconds", -1)
    found = samples(render(counters.totals(), domains=("example.org",))[0])
    name = "requiretls_milter_"
    assert found[name + 'messages_total{action="reject",requirement="requiretls"}'] == 3
    series = 'domain_forecasts_total{domain="example.org",status="2.0.0"}'
    assert found[name + series] == 1
    assert found[name + 'forecast_wait_seconds_bucket{le="0.001"}'] == 2
    assert found[name + 'forecast_wait_seconds_bucket{le="0.005"}'] == 3
    assert found[name + 'forecast_wait_seconds_bucket{le="+Inf"}'] == 4
    assert found[name + "forecast_wait_seconds_count"] == 4
    assert found[name + "forecast_wait_seconds_sum"] == pytest.approx(99.0021)


@pytest.mark.parametrize(
    ("status", "label"),
    [
        ("2.0.0", "2.0.0"),
        ("2.1.5", "2.0.0"),
        ("4.7.5", "4.7.5"),
        ("4.2.1", "4.other"),
        ("5.1.1", "5.other"),
        ("5.7.300", "5.other"),
        ("unknown", "unknown"),
        ("", "unknown"),
        ('5.7.1"}\n', "5.other"),
        ("9.9.9", "unknown"),
    ],
)
def test_r62_a_status_outside_the_list_counts_as_other_of_its_class(
    status: str, label: str
) -> None:
    assert known_status(status) == label
    counters = Counters()
    counters.inc("forecasts_total", ("none", status, Reason.SERVER_REJECTS))
    assert counters.totals().counters == (
        ("forecasts_total", ("none", label, "server_rejects"), 1.0),
    )


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


# ---------------------------------------------------------------- adding up


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


def test_gauges_are_set_and_forgotten() -> None:
    gauges = Gauges()
    gauges.set("domain_ready", 1, ("example.org",))
    gauges.set("resolver_validates", 1)
    text, _ = render(gauges=gauges, domains=("example.org",))
    assert 'domain_ready{domain="example.org"} 1.0' in text
    gauges.clear("domain_ready")
    text, _ = render(gauges=gauges, domains=("example.org",))
    assert 'domain_ready{domain="example.org"} 0.0' in text
    assert "resolver_validates 1.0" in text
    for name, labels in (("messages_total", ("a", "b")), ("cache_entries", ()), ("x", ())):
        with pytest.raises(MetricError):
            gauges.set(name, 1, labels)


def test_domains_are_the_keys_of_recipient_and_next_hop_rules() -> None:
    text = "".join(
        f'[rules.{table}."{domain}"]\nmode = "monitor"\n'
        for table, domain in (
            ("recipient", "example.org"),
            ("nexthop", ".example.net"),
            ("nexthop", "example.org"),
            ("sender", "bank.example"),
        )
    )
    assert configured_domains(config.parse(text.encode(), "test")) == (
        "example.org",
        ".example.net",
    )


def test_names_and_help_are_as_prometheus_wants_them() -> None:
    for metric in METRICS.values():
        assert re.fullmatch(r"[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert metric.help.endswith(".")
        assert "\n" not in metric.help
