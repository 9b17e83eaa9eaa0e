"""How the engine is, in the words of ``status``: made from what its metrics are made of."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from requiretls_milter.engine.domainrecord import DomainRecord
from requiretls_milter.engine.parts import Parts
from requiretls_milter.ipc.wire import Condition
from requiretls_milter.telemetry.aggregate import Aggregate
from requiretls_milter.telemetry.catalogue import METRICS
from requiretls_milter.telemetry.counting import Gauges, Totals
from requiretls_milter.telemetry.labels import OutboundService, configured_domains

LONG = 1.0
"""Seconds of a wait that a person at a mail program notices; a bound of the histogram."""

MAX_DOMAINS = 1_000
"""Domains in one answer, which has to fit into a frame."""


def reading(
    parts: Parts,
    record: DomainRecord,
    gauges: Gauges,
    aggregate: Aggregate,
    most: int | None = MAX_DOMAINS,
) -> Callable[[], Condition]:
    """Copy what the engine's condition is made of; return what puts it together, in any thread.

    Args:
        parts: of the configuration in force.
        record: what is known of the configured domains.
        gauges: the engine's.
        aggregate: adds the counters of all processes up.
        most: domains at most; None for all.
    """
    shown = gauges.by_metric()
    reachable, store = dict(shown.get("outbound_reachable", {})), shown.get("store_up", {})
    store_up = store.get((), 1.0) > 0
    nameservers = tuple(str(one) for one in parts.collector.resolver.nameservers)
    tested_at = parts.resolver.last_passed
    totals = aggregate.copy().totals
    domains = record.copy()

    def put_together() -> Condition:
        counted = totals()
        waits, waited, long = _waits(counted)
        return Condition(
            nameservers=nameservers,
            resolver_tested_at=tested_at,
            outbound={
                service.value: reachable.get((service,), 1.0) > 0 for service in OutboundService
            },
            store=parts.config.store.url.kind,
            store_up=store_up,
            waits=waits,
            waited=waited,
            waited_long=long,
            limits={
                labels[0]: int(value)
                for name, labels, value in counted.counters
                if name == "saturated_total" and value
            },
            domains=domains.shown(most),
            domains_configured=sum(
                not name.startswith(".") for name in configured_domains(parts.config)
            ),
        )

    return put_together


def _waits(totals: Totals) -> tuple[int, float, int]:
    """How many times SMTP waited for a forecast, seconds in all, and how many waits were long."""
    name = "forecast_wait_seconds"
    buckets = METRICS[name].buckets
    for metric, counts, seconds in totals.histograms:
        if metric == name:
            return sum(counts), seconds, sum(counts[bisect_left(buckets, LONG) + 1 :])
    return 0, 0.0, 0
