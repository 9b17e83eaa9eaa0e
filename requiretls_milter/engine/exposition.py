"""The text that Prometheus reads: the sum of all processes' counters, and the engine's gauges.

A scrape has two parts. On the engine's loop, :class:`Readings` takes a copy of all values, which
is quick. :func:`render` then adds them up and writes the text, in a thread: that takes
milliseconds, in which the loop goes on serving the workers.

Series of configured domains are there once something has happened for them. With thousands of
rules they are nearly all of the text, so they are bounded (:data:`MAX_DOMAIN_OCTETS`), and written
here: the library takes ten times as long for a sample.
"""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
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
from requiretls_milter.model import OTHER_DOMAIN
from requiretls_milter.telemetry.catalogue import METRICS, PREFIX, Metric, MetricKind
from requiretls_milter.telemetry.counting import CounterTotal, Gauges, Totals

MAX_DOMAIN_OCTETS = 800_000
"""Octets of the series of configured domains, so that a scrape stays below a megabyte. With names
of 25 characters that is some 9,000 series."""


@dataclass(frozen=True, slots=True)
class Readings:
    """All values at one moment; no later change of the engine's shows in them.

    Attributes:
        totals: adds the counters of all processes up.
        gauges: (metric, label values, value).
        domains: the configured domains.
    """

    totals: Callable[[], Totals] = Totals
    gauges: Sequence[CounterTotal] = ()
    domains: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered scrape.

    Attributes:
        body: the text.
        media_type: its media type.
        is_whole: whether it has all series of configured domains.
    """

    body: bytes
    media_type: str
    is_whole: bool = True


def render(readings: Readings, accept: str) -> Page:
    """Write all metrics in the format that a client asks for.

    Args:
        readings: the values.
        accept: the value of the HTTP header field.
    """
    totals = readings.totals()
    values: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in METRICS}
    for name, labels, value in (*totals.counters, *readings.gauges):
        values[name][labels] = value
    by_domain = {
        metric.name: _take_configured(metric, values[metric.name], readings.domains)
        for metric in METRICS.values()
        if metric.domain_index is not None
    }
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Everything(values, totals))
    encode, media_type = choose_encoder(chosen(accept))
    body = encode(registry)
    left = MAX_DOMAIN_OCTETS
    is_whole = True
    # Gauges first: their series are fewer, and alerts rest on them.
    for name in sorted(by_domain, key=lambda name: METRICS[name].kind is not MetricKind.GAUGE):
        lines, fits = _within(left, _lines(METRICS[name], by_domain[name]))
        left -= len(lines)
        is_whole = is_whole and fits
        body = _inserted(body, name, lines)
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
                yield _simple(metric, self._values[metric.name])

    def describe(self) -> Iterable[Family]:
        """Return nothing to check against: this is the only collector of its registry."""
        return ()


def _simple(metric: Metric, values: dict[tuple[str, ...], float]) -> Family:
    kind = CounterMetricFamily if metric.kind is MetricKind.COUNTER else GaugeMetricFamily
    family = kind(PREFIX + metric.name, metric.help, labels=metric.label_names)
    start = dict.fromkeys(metric.combinations(), 0.0)
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


# ---------------------------------------------------------------- configured domains


def _take_configured(
    metric: Metric, values: dict[tuple[str, ...], float], domains: Sequence[str]
) -> list[tuple[tuple[str, ...], float]]:
    """Take the series of domains out of *values*; return those of *domains*, in their order.

    What is left is that of ``other``. A domain that is not configured any more has no series.
    """
    index = metric.domain_index or 0
    order = {domain: number for number, domain in enumerate(domains)}
    taken = [labels for labels in values if labels[index] != OTHER_DOMAIN]
    found = [(labels, values.pop(labels)) for labels in taken]
    known = [one for one in found if one[0][index] in order]
    return sorted(known, key=lambda one: (order[one[0][index]], one[0]))


def _lines(metric: Metric, series: Iterable[tuple[tuple[str, ...], float]]) -> Iterator[bytes]:
    """Write series as the text formats of Prometheus and OpenMetrics have them alike."""
    form = ",".join(f'{name}="%s"' for name in metric.label_names)
    form = f"{PREFIX}{metric.name}{{{form}}} %s\n"
    for labels, value in series:
        yield (form % (*map(_escaped, labels), float(value))).encode()


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _within(octets: int, lines: Iterable[bytes]) -> tuple[bytes, bool]:
    """Join *lines* as far as they fit; say whether all did."""
    joined = bytearray()
    for line in lines:
        if len(joined) + len(line) > octets:
            return bytes(joined), False
        joined += line
    return bytes(joined), True


def _inserted(body: bytes, name: str, lines: bytes) -> bytes:
    """Insert *lines* behind the line TYPE of their metric: all of its series stand together."""
    family = re.escape(PREFIX + name.removesuffix("_total"))
    head = re.search(rf"^# TYPE {family}(?:_total)? .*\n".encode(), body, re.M)
    end = head.end() if head is not None else len(body)
    return body[:end] + lines + body[end:]


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
