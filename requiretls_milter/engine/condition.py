"""How the engine is, in the words of ``status``: made from what its metrics are made of."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from requiretls_milter.engine.domains.record import DomainRecord
from requiretls_milter.engine.parts import Parts
from requiretls_milter.ipc.wire import Condition, Failing, WatchedStatus
from requiretls_milter.model import Forecast, Mode, NextHop
from requiretls_milter.telemetry.catalogue import METRICS
from requiretls_milter.telemetry.counting import Gauges, Totals
from requiretls_milter.telemetry.labels import OutboundService, named_domains

LONG = 1.0
"""Seconds of a wait that a person at a mail program notices; a bound of the histogram."""

MAX_DOMAINS = 1_000
"""Domains in one answer, which has to fit into a frame."""


MAX_WATCHED = 100
"""Watched domains in one answer, the worst first."""


@dataclass(frozen=True, slots=True)
class Watching:
    """How the watch of domains is.

    Attributes:
        statuses: of the domains that were looked at, the worst first.
        number: how many domains are watched.
        mail_failing: why mail about them cannot be handed over; None if it can.
        notify_failing: why the command that is told of them fails; None if it does not.
    """

    statuses: Sequence[WatchedStatus] = ()
    number: int = 0
    mail_failing: Failing | None = None
    notify_failing: Failing | None = None


def reading(
    parts: Parts,
    record: DomainRecord,
    gauges: Gauges,
    totals: Callable[[], Totals],
    watching: Watching,
    now: float,
    *,
    most: int | None = MAX_DOMAINS,
) -> Callable[[], Condition]:
    """Copy what the engine's condition is made of; return what puts it together, in any thread.

    Args:
        parts: of the configuration in force.
        record: what is known of the configured domains.
        gauges: the engine's.
        totals: adds up the counters of all processes, from a copy.
        watching: how the watch of domains is.
        now: seconds since the epoch.
        most: domains at most; None for all.
    """
    shown = gauges.by_metric()
    reachable, store = dict(shown.get("outbound_reachable", {})), shown.get("store_up", {})
    store_up = store.get((), 1.0) > 0
    nameservers = tuple(str(one) for one in parts.collector.resolver.nameservers)
    tested_at = parts.resolver.last_passed
    domains, configured = record.copy(), parts.assessor.configured

    rules = parts.config.rules
    named = {*rules.recipient, *rules.nexthop}  # by a table of their own

    def answer(domain: str, nexthop: NextHop, forecast: Forecast) -> tuple[Mode, str]:
        return configured.answer(domain, nexthop, forecast, now)

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
            domains=domains.shown(most, answer, named),
            domains_configured=len(named_domains(parts.config)),
            watched=tuple(watching.statuses[:MAX_WATCHED]),
            domains_watched=watching.number,
            mail_failing=watching.mail_failing if parts.config.watch.mail_to else None,
            notify_failing=watching.notify_failing if parts.config.watch.notify else None,
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
