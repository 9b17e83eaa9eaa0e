"""Each metric is declared once, as the contract and Prometheus want it."""

from __future__ import annotations

import json
import re

from requiretls_milter.telemetry.catalogue import METRICS, MetricKind
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
    "resolver_selftest_last_success_timestamp_seconds",
    "outbound_reachable{service}",
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
    "build_info{version,python,pymilter,openssl}",
)
"""The contract: others' dashboards and alerts rely on these."""


def test_all_metrics_of_the_contract_are_declared_and_no_other() -> None:
    declared = {
        metric.name + ("{" + ",".join(metric.label_names) + "}" if metric.labels else "")
        for metric in METRICS.values()
    }
    assert declared == set(NAMES)


def test_what_the_oracle_records_is_among_what_starts_at_zero() -> None:
    scenarios = json.loads(ORACLE.read_text())["scenarios"]
    known = {status for _, status, _ in METRICS["forecasts_total"].combinations()}
    for scenario in scenarios:
        for expected in scenario["expected"]:
            assert status_label(expected["dsn"]) in known


def test_names_and_help_are_as_prometheus_wants_them() -> None:
    for metric in METRICS.values():
        assert re.fullmatch(r"[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is MetricKind.COUNTER)
        assert metric.help.endswith(".")
        assert "\n" not in metric.help
