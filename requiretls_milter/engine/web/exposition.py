"""The text that Prometheus reads: the sum of all processes' counters, and the engine's gauges.

A scrape has two parts. On the engine's loop, :class:`Readings` takes a copy of all values, which
is quick. :func:`render` then adds them up and writes the text, in a thread: that takes
milliseconds, in which the loop goes on serving the workers.

Series of configured domains are there once something has happened for them. With thousands of
rules they are nearly all of the text, so they are bounded (:data:`MAX_DOMAIN_OCTETS`), and written
by :mod:`.domainlines`: the library takes ten times as long for a sample.
"""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata

from OpenSSL import SSL
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from requiretls_milter import __version__
from requiretls_milter.engine.web import domainlines, processes
from requiretls_milter.engine.web.families import simple
from requiretls_milter.engine.web.page import Page, beside_the_loop
from requiretls_milter.telemetry.catalogue import METRICS, PREFIX, Metric, MetricKind
from requiretls_milter.telemetry.counting import Gauges, Totals

MAX_DOMAIN_OCTETS = 800_000
"""Octets of the series of configured domains, so that a scrape stays below a megabyte. With names
of 25 characters that is some 9,000 series: all of 1,300 domains."""


@dataclass(frozen=True, slots=True)
class Readings:
    """All values; of the counters at one moment.

    Attributes:
        totals: adds the counters of all processes up.
        gauges: the values of each metric are taken when it is rendered.
        domains: the configured domains.
        processes: the process ids of the service, by name.
    """

    totals: Callable[[], Totals] = Totals
    gauges: Gauges = field(default_factory=Gauges)
    domains: Sequence[str] = ()
    processes: Mapping[str, int] = field(default_factory=dict)


def render(readings: Readings, accept: str) -> Page:
    """Write all metrics in the format that a client asks for.

    Args:
        readings: the values.
        accept: the value of the HTTP header field.
    """
    with beside_the_loop():
        return _rendered(readings, accept)


def _rendered(readings: Readings, accept: str) -> Page:
    totals = readings.totals()
    values: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in METRICS}
    for name, shown in readings.gauges.copy().by_metric().items():
        values[name].update(shown)
    for name, labels, value in (*totals.counters, *processes.values(readings.processes)):
        values[name][labels] = value
    configured = {
        metric: domainlines.take(metric, values[metric.name])
        for metric in METRICS.values()
        if metric.domain_index is not None
    }
    for metric in METRICS.values():
        if metric.same_as:
            values[metric.name] = values[metric.same_as]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Everything(values, totals))
    encode, media_type = choose_encoder(chosen(accept))
    body = encode(registry)
    lines, is_whole = domainlines.write(configured, readings.domains, MAX_DOMAIN_OCTETS)
    body = _inserted(body, {metric.name: octets for metric, octets in lines.items()})
    return Page(body, media_type, is_whole)


class _Everything(Collector):
    """Yields every declared metric, without the series of configured domains."""

    def __init__(self, values: dict[str, dict[tuple[str, ...], float]], totals: Totals) -> None:
        self._values = values
        self._histograms = {name: (counts, total) for name, counts, total in totals.histograms}

    def collect(self) -> Iterator[Family]:
        """Yield every metric; prometheus-client calls this."""
        for metric in METRICS.values():
            if metric.kind is MetricKind.HISTOGRAM:
                empty = ((0,) * (len(metric.buckets) + 1), 0.0)
                yield _histogram(metric, *self._histograms.get(metric.name, empty))
            else:
                yield simple(metric, self._values[metric.name])

    def describe(self) -> Iterable[Family]:
        """Return nothing to check against: this is the only collector of its registry."""
        return ()


def _histogram(metric: Metric, counts: tuple[int, ...], total: float) -> Family:
    family = HistogramMetricFamily(PREFIX + metric.name, metric.help)
    cumulative = 0
    buckets = []
    for bound, count in zip((*metric.buckets, math.inf), counts, strict=True):
        cumulative += count
        buckets.append(("+Inf" if bound == math.inf else str(bound), float(cumulative)))
    family.add_metric((), buckets, total)
    return family


def _inserted(body: bytes, lines: Mapping[str, bytes]) -> bytes:
    """Insert *lines* behind the line TYPE of their metric: all of its series stand together."""
    families = {PREFIX + name.removesuffix("_total"): octets for name, octets in lines.items()}
    pieces = []
    end = 0
    for head in _TYPE.finditer(body):
        pieces.append(body[end : head.end()])
        pieces.append(families.get(head[1].decode(), b""))
        end = head.end()
    return b"".join([*pieces, body[end:]])


_TYPE = re.compile(rb"^# TYPE (\w+?)(?:_total)? .*\n", re.MULTILINE)


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
