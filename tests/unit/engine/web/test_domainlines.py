"""Which series of configured domains are written if not all of them have room."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from requiretls_milter.engine.web import exposition
from requiretls_milter.engine.web.exposition import Readings
from requiretls_milter.model import Outcome
from requiretls_milter.telemetry.counting import Counters, Gauges

RULES = 5_000
TROUBLED = 50

EVERYTHING = {
    "domain_ready",
    "domain_forecasts_total",
    "domain_state",
    "domain_reason",
    "domain_last_assessed_timestamp_seconds",
    "domain_certificate_expiry_timestamp_seconds",
    "domain_policy_expiry_timestamp_seconds",
}


def known(domains: tuple[str, ...], troubled: frozenset[str] = frozenset()) -> Readings:
    """All has happened to each of the domains."""
    counters, gauges = Counters(domains), Gauges()
    for name in domains:
        bad = name in troubled
        counters.inc("domain_forecasts_total", (name, "5.7.30" if bad else "2.0.0"))
        gauges.set("domain_ready", float(not bad), (name,))
        gauges.set_word("domain_state", (name,), "bounce" if bad else "deliver")
        gauges.set_word("domain_reason", (name,), "requiretls_not_offered" if bad else "ok")
        for what in ("last_assessed", "certificate_expiry", "policy_expiry"):
            gauges.set(f"domain_{what}_timestamp_seconds", 1_800_000_000, (name,))
    totals = counters.totals()
    return Readings(lambda: totals, gauges, domains)


def partners(number: int) -> tuple[str, ...]:
    return tuple(f"partner-{n}.example-{n % 97}.org" for n in range(number))


def shown(body: bytes) -> Mapping[str, list[tuple[tuple[str, ...], float]]]:
    """The series of domains, by metric."""
    found: dict[str, list[tuple[tuple[str, ...], float]]] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            name = sample.name.removeprefix("requiretls_milter_")
            if sample.labels.get("domain", "other") != "other":
                found.setdefault(name, []).append((tuple(sample.labels.values()), sample.value))
    return found


def test_a_thousand_domains_have_all_of_their_series_in_a_scrape() -> None:
    page = exposition.render(known(partners(1_000)), "")
    assert page.is_whole
    found = shown(page.body)
    assert set(found) == EVERYTHING
    for name in EVERYTHING - {"domain_state"}:
        assert len(found[name]) == 1_000


def test_of_a_few_domains_the_outcomes_that_are_not_their_state_are_there_as_zero() -> None:
    page = exposition.render(known(("a.example", "b.example"), frozenset({"b.example"})), "")
    assert dict(shown(page.body)["domain_state"]) == {
        (name, outcome.value): float(outcome is state)
        for name, state in (("a.example", Outcome.DELIVER), ("b.example", Outcome.BOUNCE))
        for outcome in Outcome
    }


def test_a_domain_of_which_nothing_is_known_has_no_state() -> None:
    assert not shown(exposition.render(Readings(domains=("a.example",)), "").body)


def test_with_5000_rules_readiness_is_whole_and_so_is_all_about_domains_in_trouble() -> None:
    domains = partners(RULES)
    troubled = frozenset(itertools.islice(reversed(domains), TROUBLED))
    page = exposition.render(known(domains, troubled), "")
    assert not page.is_whole
    assert len(page.body) < 1_000_000
    found = shown(page.body)
    assert len(found["domain_ready"]) == RULES
    for name in EVERYTHING:
        assert troubled <= {labels[0] for labels, value in found[name] if value or "ready" in name}


def test_if_all_of_them_are_in_trouble_and_have_the_longest_names_it_stays_below_a_megabyte() -> (
    None
):
    domains = tuple(".".join([f"{n:05}" + "x" * 55] + ["y" * 60] * 3) for n in range(RULES))
    page = exposition.render(known(domains, frozenset(domains)), "")
    assert not page.is_whole
    assert len(page.body) < 1_000_000


def test_a_domain_of_which_nothing_is_known_now_is_in_trouble() -> None:
    domains = partners(RULES)
    readings = known(domains)
    gauges = Gauges()
    for metric, labels, value in readings.gauges.items():
        gauges.set(metric, value, labels)
    gauges.set_word("domain_state", domains[-1:], "unknown")
    page = exposition.render(Readings(readings.totals, gauges, domains), "")
    assert ((domains[-1], "unknown"), 1.0) in shown(page.body)["domain_state"]


def test_the_lines_of_a_metric_stand_together() -> None:
    body = exposition.render(known(("a.example", "b.example"), frozenset({"b.example"})), "").body
    names = [line.split(b"{")[0] for line in body.splitlines() if not line.startswith(b"#")]
    runs = [name for name, _ in itertools.groupby(names)]
    assert len(runs) == len(set(runs))


def test_whichever_name_is_asked_for_limits_that_were_met_are_there() -> None:
    counters = Counters()
    counters.inc("saturated_total", ("hosts",), 3)
    body = exposition.render(Readings(counters.totals), "").body
    assert b'requiretls_milter_saturated_total{bound="hosts"} 3.0\n' in body
    assert b'requiretls_milter_limit_reached_total{limit="hosts"} 3.0\n' in body


def test_what_is_known_of_watched_domains_is_there_however_many_domains_there_are() -> None:
    readings = known(partners(RULES))
    readings.gauges.set("watched_server_ready", 0.0, ("own.test", 'mx."own.test'))
    readings.gauges.set("watched_problem", 1.0, ("own.test", "starttls_not_offered"))
    page = exposition.render(replace(readings, domains=(*readings.domains, "own.test")), "")
    assert not page.is_whole
    found = shown(page.body)
    assert found["watched_server_ready"] == [(("own.test", 'mx."own.test'), 0.0)]
    assert found["watched_problem"] == [(("own.test", "starttls_not_offered"), 1.0)]
