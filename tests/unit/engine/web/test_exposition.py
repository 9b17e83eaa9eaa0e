"""What Prometheus reads: every metric from the first scrape on."""

from __future__ import annotations

import gc
import itertools
import sys
from collections.abc import Sequence

import pytest
from prometheus_client import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from requiretls_milter.engine.web import exposition
from requiretls_milter.engine.web.exposition import Readings, set_build_info
from requiretls_milter.engine.web.page import SWITCH_INTERVAL
from requiretls_milter.model import OTHER_DOMAIN, Action, Requirement
from requiretls_milter.telemetry.aggregate import Aggregate
from requiretls_milter.telemetry.catalogue import METRICS, MetricError
from requiretls_milter.telemetry.counting import Counters, Gauges, Totals
from requiretls_milter.telemetry.labels import STATUSES


def render(
    totals: Totals = Totals(),  # noqa: B008 - frozen
    gauges: Gauges | None = None,
    domains: tuple[str, ...] = (),
    accept: str = "",
) -> tuple[str, str]:
    readings = Readings(lambda: totals, gauges or Gauges(), domains)
    page = exposition.render(readings, accept)
    return page.body.decode(), page.media_type


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
        assert family.samples or metric.start == () or "process" in metric.label_names
        assert str(family.type) == metric.kind.value


def test_every_known_combination_starts_at_zero() -> None:
    found = samples(render(domains=("example.org", ".example.net"))[0])
    for requirement, action in itertools.product(Requirement, Action):
        labels = f'{{action="{action}",requirement="{requirement}"}}'
        assert found[f"requiretls_milter_messages_total{labels}"] == 0
        assert found[f"requiretls_milter_recipients_total{labels}"] == 0
    for source in ("esmtp", "require-tls-esmtp", "rule", "tls-required", "none"):
        assert found[f'requiretls_milter_requirement_sources_total{{source="{source}"}}'] == 0
    for status in STATUSES:
        labels = f'{{domain="{OTHER_DOMAIN}",status="{status}"}}'
        assert found[f"requiretls_milter_domain_forecasts_total{labels}"] == 0
    assert found['requiretls_milter_process_restarts_total{process="engine"}'] == 0
    assert (
        found['requiretls_milter_cache_requests_total{layer="host",result="recently_failed"}'] == 0
    )
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
    domains = ("example.org", "example.net")
    for domain in domains:
        gauges.set("domain_ready", 1, (domain,))
    gauges.set("resolver_validates", 1)
    text, _ = render(gauges=gauges, domains=domains)
    assert 'domain_ready{domain="example.org"} 1.0' in text
    for _ in gauges.retain_domains({"example.net"}):
        pass
    text, _ = render(gauges=gauges, domains=domains)
    assert "example.org" not in text
    assert 'domain_ready{domain="example.net"} 1.0' in text
    assert "resolver_validates 1.0" in text
    for name, labels in (("messages_total", ("a", "b")), ("cache_entries", ()), ("x", ())):
        with pytest.raises(MetricError):
            gauges.set(name, 1, labels)


# ---------------------------------------------------------------- configured domains

RULES = 5_000
FORMATS = pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])


def families(text: str) -> dict[str, Family]:
    parse = openmetrics if text.endswith("# EOF\n") else text_string_to_metric_families
    return {family.name.removesuffix("_total"): family for family in parse(text)}


@FORMATS
def test_a_configured_domain_has_a_series_once_something_has_happened_for_it(accept: str) -> None:
    domains = ("example.org", ".example.net", "quiet.example")
    text, _ = render(domains=domains, accept=accept)
    assert "example" not in text
    counters, gauges = Counters(domains), Gauges()
    counters.inc("domain_forecasts_total", ("example.org", "2.0.0"), by=7)
    counters.inc("domain_forecasts_total", (".example.net", "5.7.30"))
    counters.inc("domain_forecasts_total", ("elsewhere.example", "5.7.30"))
    gauges.set("domain_ready", 0, ("example.org",))
    text, _ = render(counters.totals(), gauges, domains, accept)
    found = families(text)
    forecasts = found["requiretls_milter_domain_forecasts"].samples
    assert {
        (sample.labels["domain"], sample.labels["status"]): sample.value
        for sample in forecasts
        if sample.value
    } == {("example.org", "2.0.0"): 7, (".example.net", "5.7.30"): 1, ("other", "5.7.30"): 1}
    assert {sample.labels["domain"] for sample in forecasts} == {*domains[:2], "other"}
    ready = found["requiretls_milter_domain_ready"].samples
    assert [(sample.labels["domain"], sample.value) for sample in ready] == [("example.org", 0)]


def test_a_domain_that_is_not_configured_any_more_has_no_series() -> None:
    counters, gauges = Counters(["example.org"]), Gauges()
    counters.inc("domain_forecasts_total", ("example.org", "2.0.0"))
    gauges.set("domain_ready", 1, ("example.org",))
    text, _ = render(counters.totals(), gauges, ("example.net",))
    assert "example.org" not in text


def busy(name: str, statuses: Sequence[str]) -> Readings:
    """All of thousands of domains have had mail, and were assessed."""
    domains = tuple(name.format(number) for number in range(RULES))
    counters, gauges = Counters(domains), Gauges()
    set_build_info(gauges)
    for domain, status in itertools.product(domains, statuses):
        counters.inc("domain_forecasts_total", (domain, status))
    for domain in domains:
        gauges.set("domain_ready", 1, (domain,))
    totals = counters.totals()
    return Readings(lambda: totals, gauges, domains)


@FORMATS
def test_with_5000_rules_to_which_nothing_happened_a_scrape_is_as_short_as_with_none(
    accept: str,
) -> None:
    domains = tuple(f"partner-{number}.example" for number in range(RULES))
    assert render(domains=domains, accept=accept) == render(accept=accept)
    assert len(samples(render()[0])) < 1_000


@FORMATS
def test_with_mail_for_each_of_5000_rules_a_scrape_stays_below_a_megabyte(accept: str) -> None:
    page = exposition.render(busy("partner-{}.example", ["2.0.0"]), accept)
    assert page.is_whole
    assert len(page.body) < 1_000_000
    found = families(page.body.decode())
    assert len(found["requiretls_milter_domain_ready"].samples) == RULES
    assert len(found["requiretls_milter_domain_forecasts"].samples) == RULES + len(STATUSES)


@FORMATS
def test_whatever_happens_to_them_and_however_long_their_names_it_stays_below_a_megabyte(
    accept: str,
) -> None:
    longest = ".".join(["{:05}" + "x" * 55] + ["y" * 60] * 3)
    page = exposition.render(busy(longest, STATUSES), accept)
    assert not page.is_whole
    assert len(page.body) < 1_000_000
    found = families(page.body.decode())
    shown = [sample.labels["domain"] for sample in found["requiretls_milter_domain_ready"].samples]
    assert shown == sorted(shown)  # as they stand in the configuration
    assert len(shown) > 2_000


@FORMATS
def test_what_could_break_a_line_is_escaped(accept: str) -> None:
    strange = 'a"b\\c\nd'
    counters = Counters([strange])
    counters.inc("domain_forecasts_total", (strange, "2.0.0"))
    found = families(render(counters.totals(), domains=(strange,), accept=accept)[0])
    domains = {s.labels["domain"] for s in found["requiretls_milter_domain_forecasts"].samples}
    assert domains == {strange, OTHER_DOMAIN}


def test_readings_are_those_of_their_moment() -> None:
    aggregate = Aggregate()
    counters = Counters()
    counters.inc("requirement_lost_total")
    aggregate.update("worker-1", 1, counters.totals())
    readings = Readings(aggregate.copy().totals)
    counters.inc("requirement_lost_total")
    aggregate.update("worker-1", 1, counters.totals())
    aggregate.update("worker-2", 1, counters.totals())
    assert b"requirement_lost_total 1.0" in exposition.render(readings, "").body


def test_what_a_rendering_changes_in_the_interpreter_is_as_before_afterwards() -> None:
    before = gc.isenabled(), sys.getswitchinterval()
    during: list[tuple[bool, float]] = []

    def fail() -> Totals:
        during.append((gc.isenabled(), sys.getswitchinterval()))
        raise RuntimeError("no totals")

    with pytest.raises(RuntimeError, match="no totals"):
        exposition.render(Readings(fail), "")
    assert during == [(False, SWITCH_INTERVAL)]
    assert (gc.isenabled(), sys.getswitchinterval()) == before
