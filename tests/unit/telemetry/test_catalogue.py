"""Each metric is declared once, as the contract and Prometheus want it."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping

import pytest

from requiretls_milter.config import Limits, Rules
from requiretls_milter.telemetry.catalogue import (
    AUDIT_METRICS,
    METRICS,
    Metric,
    MetricError,
    MetricKind,
)
from requiretls_milter.telemetry.labels import status_label
from tests.support.paths import ORACLE

NAMES = (
    "messages_total{requirement,action}",
    "requirement_sources_total{source}",
    "recipients_total{requirement,action}",
    "forecasts_total{requirement,status,reason}",
    "domain_forecasts_total{domain,status}",
    "noncompliant_deliveries_total{reason}",
    "requirement_lost_total",
    "alias_lookups_total{result}",
    "alias_queries_total{result}",
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
    "domain_state{domain,outcome}",
    "domain_reason{domain,reason}",
    "domain_last_assessed_timestamp_seconds{domain}",
    "domain_certificate_expiry_timestamp_seconds{domain}",
    "domain_policy_expiry_timestamp_seconds{domain}",
    "rules_suspended",
    "resolver_validates",
    "resolver_selftest_last_success_timestamp_seconds",
    "engine_longest_turn_seconds",
    "outbound_reachable{service}",
    "limit_reached_total{limit}",
    "saturated_total{bound}",
    "waiting_for_turn{resource,lane}",
    "callback_errors_total{stage}",
    "log_lines_dropped_total",
    "process_restarts_total{process}",
    "milter_connections",
    "milter_threads",
    "workers_ready",
    "sockets_lost_total{socket}",
    "config_last_reload_successful",
    "config_last_reload_success_timestamp_seconds",
    "watched_server_ready{domain,host}",
    "watched_certificate_expiry_timestamp_seconds{domain,host}",
    "watched_policy_expiry_timestamp_seconds{domain}",
    "watched_problem{domain,problem}",
    "watch_notifications_total{result}",
    "watch_mails_total{result}",
    "config_file_differs",
    "rules{mode}",
    "process_cpu_seconds_total{process}",
    "process_resident_memory_bytes{process}",
    "process_virtual_memory_bytes{process}",
    "process_open_fds{process}",
    "process_max_fds{process}",
    "process_start_time_seconds{process}",
    "build_info{version,python,pymilter,openssl}",
)
"""The contract: others' dashboards and alerts rely on these."""

AUDIT_NAMES = (
    "audit_deliveries_total{result}",
    "audit_differences_total{reason}",
    "audit_recipients_in_flight",
    "audit_given_up_total{bound}",
    "audit_lines_total",
    "audit_logs_unreadable",
)
"""Those of ``audit --follow``."""


@pytest.mark.parametrize(("catalogue", "names"), [(METRICS, NAMES), (AUDIT_METRICS, AUDIT_NAMES)])
def test_all_metrics_of_the_contract_are_declared_and_no_other(
    catalogue: Mapping[str, Metric], names: tuple[str, ...]
) -> None:
    declared = {
        metric.name + ("{" + ",".join(metric.label_names) + "}" if metric.labels else "")
        for metric in catalogue.values()
    }
    assert declared == set(names)


def test_what_the_oracle_records_is_among_what_starts_at_zero() -> None:
    scenarios = json.loads(ORACLE.read_text())["scenarios"]
    known = {status for _, status, _ in METRICS["forecasts_total"].combinations()}
    for scenario in scenarios:
        for expected in scenario["expected"]:
            assert status_label(expected["dsn"]) in known


def test_a_former_name_has_the_labels_and_values_of_the_new_one() -> None:
    renamed = [metric for metric in METRICS.values() if metric.same_as]
    assert [metric.name for metric in renamed] == ["limit_reached_total"]
    for metric in renamed:
        former = METRICS[metric.same_as]
        assert (metric.kind, metric.start) == (former.kind, former.start)
        assert [values for _, values in metric.labels] == [values for _, values in former.labels]
        with pytest.raises(MetricError, match="shows what is counted as saturated_total"):
            metric.checked(("hosts",), frozenset())


def test_buckets_rise_and_each_deadline_has_one() -> None:
    for name in ("forecast_wait_seconds", "assessment_seconds"):
        buckets = METRICS[name].buckets
        assert list(buckets) == sorted(set(buckets))
        limits, rules = Limits(), Rules()
        for deadline in (
            *(rules.tag_wait, rules.decide_wait),
            *(limits.evidence_wait, limits.assessment_timeout, limits.message_wait),
        ):
            assert deadline in buckets
        # Between two of them a quantile is guessed: no step is wider than the one before it twice.
        assert all(high <= 2.5 * low for low, high in itertools.pairwise(buckets))


def test_names_and_help_are_as_prometheus_wants_them() -> None:
    for metric in METRICS.values():
        assert re.fullmatch(r"[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is MetricKind.COUNTER)
        assert metric.help.endswith(".")
        assert "\n" not in metric.help
