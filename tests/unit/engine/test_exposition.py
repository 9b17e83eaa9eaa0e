"""What Prometheus reads: every metric from the first scrape on."""

from __future__ import annotations

import itertools

import pytest
from prometheus_client.parser import text_string_to_metric_families

from requiretls_milter.engine.exposition import EngineCollector, Exposition, set_build_info
from requiretls_milter.model import OTHER_DOMAIN, Action, Requirement
from requiretls_milter.telemetry.catalogue import METRICS, MetricError
from requiretls_milter.telemetry.counting import Counters, Gauges, Totals
from requiretls_milter.telemetry.labels import STATUSES


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
    for domain, status in itertools.product(
        ("example.org", ".example.net", OTHER_DOMAIN), STATUSES
    ):
        labels = f'{{domain="{domain}",status="{status}"}}'
        assert found[f"requiretls_milter_domain_forecasts_total{labels}"] == 0
    assert found['requiretls_milter_process_restarts_total{process="engine"}'] == 0
    assert found['requiretls_milter_cache_requests_total{layer="host",result="held"}'] == 0
    assert found["requiretls_milter_requirement_lost_total"] == 0
    assert found['requiretls_milter_assessment_seconds_bucket{le="+Inf"}'] == 0


def test_openmetrics_is_rendered_if_the_request_accepts_it() -> None:
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
