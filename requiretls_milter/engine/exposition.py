"""The text that Prometheus reads: the sum of all processes' counters, and the engine's gauges."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata

from OpenSSL import SSL
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from requiretls_milter import __version__
from requiretls_milter.telemetry.catalogue import METRICS, PREFIX, Metric, MetricKind
from requiretls_milter.telemetry.counting import Gauges, Totals


class EngineCollector(Collector):
    """Shows every declared metric, from the first scrape on.

    Args:
        totals: gives the sum over all processes.
        gauges: the present values.
        domains: gives the configured domains.
    """

    def __init__(
        self,
        totals: Callable[[], Totals],
        gauges: Gauges,
        domains: Callable[[], Iterable[str]],
    ) -> None:
        self._totals = totals
        self._gauges = gauges
        self._domains = domains

    def collect(self) -> Iterator[Family]:
        """Yield every metric; prometheus-client calls this at each scrape."""
        totals = self._totals()
        values: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in METRICS}
        for name, labels, value in totals.counters:
            values[name][labels] = value
        for name, labels, value in self._gauges.items():
            values[name][labels] = value
        histograms = {name: (counts, total) for name, counts, total in totals.histograms}
        domains = tuple(self._domains())
        for metric in METRICS.values():
            if metric.kind is MetricKind.HISTOGRAM:
                empty = ((0,) * (len(metric.buckets) + 1), 0.0)
                yield _histogram(metric, *histograms.get(metric.name, empty))
            else:
                yield _simple(metric, values[metric.name], domains)

    def describe(self) -> Iterable[Family]:
        """Return nothing to check against: this is the only collector of its registry."""
        return ()


def _simple(
    metric: Metric, values: dict[tuple[str, ...], float], domains: tuple[str, ...]
) -> Family:
    kind = CounterMetricFamily if metric.kind is MetricKind.COUNTER else GaugeMetricFamily
    family = kind(PREFIX + metric.name, metric.help, labels=metric.label_names)
    start = dict.fromkeys(metric.combinations(domains), 0.0)
    for labels, value in (start | values).items():
        family.add_metric(labels, value)
    return family


def _histogram(metric: Metric, counts: tuple[int, ...], total: float) -> Family:
    family = HistogramMetricFamily(PREFIX + metric.name, metric.help)
    cumulative = 0
    buckets = []
    for bound, count in zip((*metric.buckets, math.inf), counts, strict=True):
        cumulative += count
        buckets.append(("+Inf" if bound == math.inf else str(bound), float(cumulative)))
    family.add_metric((), buckets, total)
    return family


def set_build_info(gauges: Gauges) -> None:
    """Set ``build_info`` to the versions that run."""
    openssl = SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode("ascii", "replace")
    try:
        pymilter = metadata.version("pymilter")
    except metadata.PackageNotFoundError:
        pymilter = "unknown"
    gauges.set("build_info", 1.0, (__version__, platform.python_version(), pymilter, openssl))


OPENMETRICS = "application/openmetrics-text"

PLAIN = ""
"""A request that names no format: Prometheus' own text format."""


def chosen(accept: str) -> str:
    """Which of our two formats a client gets that sends this header field ``Accept``.

    Not more of it is passed on: prometheus-client fails on some version numbers, and makes another
    format of each.
    """
    named = (part.partition(";")[0].strip().lower() for part in accept.split(","))
    return f"{OPENMETRICS}; version=1.0.0" if OPENMETRICS in named else PLAIN


class Exposition:
    """Renders the metrics in the format that a client asks for."""

    def __init__(self, collector: Collector) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the text and its media type; ``accept`` is the HTTP header field's value."""
        encode, media_type = choose_encoder(chosen(accept))
        return encode(self._registry), media_type
