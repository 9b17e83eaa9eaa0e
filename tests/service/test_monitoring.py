"""Prometheus itself reads our metrics and evaluates our rules."""

from __future__ import annotations

import functools
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from requiretls_milter.evidence.selftest import INSECURE_NAMES
from requiretls_milter.reports.audit_metrics import AuditFigures
from requiretls_milter.telemetry.catalogue import METRICS, PREFIX, MetricKind
from tests.lab.errors import LabUnavailable
from tests.lab.fixtures import unavailable
from tests.lab.roots import PROMETHEUS, ensure
from tests.monitoring.promtool import ALERTS, MONITORING, RECORDING, write_tests
from tests.support.dnsserver import found, show_validation
from tests.support.internet import Internet, loopback_internet
from tests.support.prometheusserver import PrometheusServer, promtool
from tests.support.service import Service
from tests.support.waiting import eventually

pytestmark = [pytest.mark.xdist_group("monitoring"), pytest.mark.once]

OFTEN = {
    "engine.process.RESOLVER_TICK": 0.5,
    "evidence.selftest.PASSED_INTERVAL": 0.5,
    "evidence.selftest.FAILED_INTERVAL": 0.5,
}
"""The resolver is tested all the time."""

NEEDS_A_POLICY = {
    "domain_policy_expiry_timestamp_seconds",
    "watched_policy_expiry_timestamp_seconds",
}
"""What the small internet of these tests has none of."""


@pytest.fixture(scope="module")
def root() -> Path:
    try:
        return ensure(PROMETHEUS)
    except LabUnavailable as reason:
        unavailable(reason)
        raise


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with loopback_internet(tmp_path_factory.mktemp("world")) as one:
        yield one


@pytest.fixture(scope="module")
def service(internet: Internet) -> Iterator[Service]:
    """One with rules, that has had mail. The tests go from those that read to those that change."""
    rules = '[rules.recipient."good.test"]\nmode = "reject"\n[rules.nexthop."lacking.test"]\n'
    rules += '[watch]\ndomains = ["lacking.test"]\n'
    one = Service(f"{internet.config}{rules}", workers=2, limits=OFTEN)
    try:
        one.start()
        one.send("<bob@good.test>", count=3)
        one.send("<bob@lacking.test>")
        for domain in ("good.test", "lacking.test"):
            series = f'domain_certificate_expiry_timestamp_seconds{{domain="{domain}"}}'
            eventually(functools.partial(service_has, one, series), series)
        yield one
    finally:
        one.destroy()


def service_has(service: Service, series: str) -> bool:
    value = service.metric(series)
    return value == value  # NaN: it is not there


def test_promtool_has_nothing_to_complain_of_in_the_metrics(root: Path, service: Service) -> None:
    assert promtool(root, "check", "metrics", text=service.http()) == ""


def test_promtool_has_nothing_to_complain_of_in_the_metrics_of_audit(root: Path) -> None:
    text = generate_latest(AuditFigures().registry).decode()
    assert promtool(root, "check", "metrics", text=text) == ""


def test_each_metric_that_is_documented_is_exported(service: Service) -> None:
    found = {
        name.removeprefix(PREFIX)
        for name in re.findall(r"^(\w+?)(?:_bucket|_sum|_count)?(?:\{| )", service.http(), re.M)
    }
    assert found >= set(METRICS) - NEEDS_A_POLICY
    for metric in METRICS.values():
        if metric.kind is MetricKind.HISTOGRAM:
            assert f"{PREFIX}{metric.name}_bucket" in service.http()


def test_each_process_of_the_service_shows_what_it_takes(service: Service) -> None:
    for process in ("supervisor", "engine", "worker-1", "worker-2"):
        assert service.metric(f'process_resident_memory_bytes{{process="{process}"}}') > 1e6
    old = service.metric('process_start_time_seconds{process="worker-1"}')
    service.replaced("worker-1", service.kill("worker-1"))
    eventually(
        lambda: service.metric('process_start_time_seconds{process="worker-1"}') > old,
        "the worker that took its place",
    )


def test_state_reason_and_rules_of_configured_domains_are_shown(service: Service) -> None:
    def one(series: str) -> bool:
        return service.metric(series) == 1

    assert one('domain_state{domain="good.test",outcome="deliver"}')
    assert one('domain_state{domain="lacking.test",outcome="bounce"}')
    assert service.metric('domain_state{domain="lacking.test",outcome="deliver"}') == 0
    assert one('domain_reason{domain="lacking.test",reason="requiretls_not_offered"}')
    assert service.metric('rules{mode="reject"}') == 1
    assert service.metric('rules{mode="monitor"}') == 2


def test_promtool_finds_each_rule_firing_and_silent_as_its_stories_say(
    root: Path, tmp_path: Path
) -> None:
    for path in (ALERTS, RECORDING, MONITORING / "prometheus.yml"):
        shutil.copy(path, tmp_path)
    promtool(root, "check", "rules", "--lint=all", "--lint-fatal", tmp_path / ALERTS.name)
    promtool(root, "check", "rules", "--lint=all", "--lint-fatal", tmp_path / RECORDING.name)
    promtool(root, "check", "config", "--lint=all", tmp_path / "prometheus.yml")
    promtool(root, "test", "rules", *write_tests(tmp_path))


@pytest.fixture(scope="module")
def prometheus(
    root: Path, service: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrometheusServer]:
    """With the rules as they are, but for the time that an alert has to last."""
    quick = tmp_path_factory.mktemp("rules") / "alerts.yml"
    quick.write_text(re.sub(r"for: \w+", "for: 0s", ALERTS.read_text()))
    target = f"127.0.0.1:{service.metrics_port}"
    with PrometheusServer(root, target, [RECORDING, quick]) as one:
        yield one


def test_an_alert_fires_when_the_resolver_stops_validating_and_resolves_when_it_is_mended(
    prometheus: PrometheusServer, internet: Internet
) -> None:
    not_validating = firing("RequiretlsMilterResolverNotValidating")
    prometheus.wait_for("requiretls_milter_resolver_validates == 1")
    assert not prometheus.query(not_validating)
    for name in INSECURE_NAMES:  # unsigned names that it calls signed
        internet.dns.set(name, "A", found(f"{name}. 300 IN A 192.0.2.1", ad=True))
    (alert,) = prometheus.wait_for(not_validating)
    assert alert["metric"]["severity"] == "critical"
    show_validation(internet.dns)
    eventually(lambda: not prometheus.query(not_validating), "the alert has resolved")


def test_alerts_of_a_domain_and_of_the_file_resolve_when_a_new_configuration_is_loaded(
    prometheus: PrometheusServer, service: Service
) -> None:
    def not_ready() -> set[str]:
        alerts = prometheus.query(firing("RequiretlsMilterDomainNotReady"))
        return {alert["metric"]["domain"] for alert in alerts}

    eventually(lambda: not_ready() == {"lacking.test"}, lambda: f"not ready: {not_ready()}")
    assert not prometheus.query(firing("RequiretlsMilterConfigNotLoaded"))
    service.configure("[dns]\nnameservers = ['127.0.0.1:9']\n")
    prometheus.wait_for(firing("RequiretlsMilterConfigNotLoaded"))
    service.send_signal(signal.SIGHUP)
    eventually(lambda: not prometheus.query(firing("RequiretlsMilterConfigNotLoaded")))
    eventually(lambda: not not_ready())


def test_each_rule_can_be_evaluated(prometheus: PrometheusServer) -> None:
    def health() -> set[str]:
        groups = prometheus.get("rules")["groups"]
        return {rule["health"] for group in groups for rule in group["rules"]}

    eventually(lambda: "unknown" not in health())
    assert health() == {"ok"}


def firing(name: str) -> str:
    return f'ALERTS{{alertname="{name}",alertstate="firing"}}'
