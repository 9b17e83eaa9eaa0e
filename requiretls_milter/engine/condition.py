"""How the engine is, in the words of ``status``: made from what its metrics are made of."""

from __future__ import annotations

from bisect import bisect_left

from requiretls_milter.engine.domainrecord import DomainRecord
from requiretls_milter.engine.parts import Parts
from requiretls_milter.ipc.wire import Condition
from requiretls_milter.telemetry.catalogue import METRICS
from requiretls_milter.telemetry.counting import Gauges, Totals
from requiretls_milter.telemetry.labels import OutboundService, configured_domains

LONG = 1.0
"""Seconds of a wait that a person at a mail program notices; a bound of the histogram."""

MAX_DOMAINS = 1_000
"""Domains in one answer, which has to fit into a frame."""


def condition(parts: Parts, record: DomainRecord, gauges: Gauges, totals: Totals) -> Condition:
    """Put the engine's condition together.

    Args:
        parts: of the configuration in force.
        record: what is known of the configured domains.
        gauges: the engine's.
        totals: the counters of all processes, added up.
    """
    values = {(name, labels): value for name, labels, value in gauges.items()}
    waits, waited, long = _waits(totals)
    return Condition(
        nameservers=tuple(str(one) for one in parts.collector.resolver.nameservers),
        resolver_tested_at=parts.resolver.last_passed,
        outbound={
            service.value: values.get(("outbound_reachable", (service,)), 1.0) > 0
            for service in OutboundService
        },
        store=parts.config.store.url.kind,
        store_up=values.get(("store_up", ()), 1.0) > 0,
        waits=waits,
        waited=waited,
        waited_long=long,
        limits={
            labels[0]: int(value)
            for name, labels, value in totals.counters
            if name == "saturated_total" and value
        },
        domains=record.shown(MAX_DOMAINS),
        domains_configured=sum(
            not name.startswith(".") for name in configured_domains(parts.config)
        ),
    )


def _waits(totals: Totals) -> tuple[int, float, int]:
    """How many times SMTP waited for a forecast, seconds in all, and how many waits were long."""
    name = "forecast_wait_seconds"
    buckets = METRICS[name].buckets
    for metric, counts, seconds in totals.histograms:
        if metric == name:
            return sum(counts), seconds, sum(counts[bisect_left(buckets, LONG) + 1 :])
    return 0, 0.0, 0
