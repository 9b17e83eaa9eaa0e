"""Counting within one process: counters and histograms from any thread, gauges.

Everything here is plain Python. libmilter's threads may run nothing else, and
a worker needs no metrics library: it hands its cumulative :class:`Totals` to the
engine, which adds them up (:mod:`requiretls_milter.telemetry.aggregate`).
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from requiretls_milter.bounded import in_pieces
from requiretls_milter.telemetry.catalogue import METRICS, MetricError, MetricKind, declared

CounterTotal = tuple[str, tuple[str, ...], float]
"""(metric, label values, value)."""

Count = tuple[str, tuple[str, ...]]
"""(metric, label values): what grows by one."""

HistogramTotal = tuple[str, tuple[int, ...], float]
"""(metric, observations in each bucket and above the last one, sum of the values)."""


@dataclass(frozen=True, slots=True)
class Totals:
    """All that a process has counted since it started, or a part of it."""

    counters: tuple[CounterTotal, ...] = ()
    histograms: tuple[HistogramTotal, ...] = ()

    def pieces(self, size: int) -> Iterator[Totals]:
        """Cut into parts of at most ``size`` counters; the first part has the histograms."""
        yield Totals(self.counters[:size], self.histograms)
        for start in range(size, len(self.counters), size):
            yield Totals(self.counters[start : start + size])


class Counters:
    """The counters and histograms of one process; safe to use from any thread.

    Args:
        domains: the values of a ``domain`` label that are counted apart.
    """

    def __init__(self, domains: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._domains = frozenset(domains)
        self._values: dict[Count, list[float]] = {}  # a value is a list, to be added to in place
        self._checked: dict[Count, list[float]] = {}  # by keys that need no folding
        self._buckets: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def configure(self, domains: Iterable[str]) -> None:
        """Use the domains of a new configuration; existing counts stay."""
        with self._lock:
            self._domains = frozenset(domains)
            self._checked.clear()

    def inc(self, metric: str, labels: tuple[str, ...] = (), by: float = 1.0) -> None:
        """Add to a counter.

        Args:
            metric: the counter's name, without the prefix.
            labels: the label values, in the order of the declaration.
            by: how much, at least 0.

        Raises:
            MetricError: no such counter or label value, or ``by`` is negative.
        """
        if not by >= 0:
            raise MetricError(f"{metric} cannot fall: {by!r}")
        with self._lock:
            self._value((metric, labels))[0] += by

    def count(self, counts: Iterable[Count], further: Count | None = None, by: float = 1.0) -> None:
        """Add one to each of several counters at once, and to ``further`` as much as ``by`` says.

        Raises:
            MetricError: no such counter or label value.
        """
        checked = self._checked
        with self._lock:
            for key in counts:
                (checked.get(key) or self._value(key))[0] += 1.0
            if further is not None:
                self._value(further)[0] += by

    def _value(self, key: Count) -> list[float]:
        """The value of a counter, to be added to while the lock is held."""
        value = self._checked.get(key)
        if value is None:
            metric, labels = key
            folded = (metric, declared(metric, MetricKind.COUNTER).checked(labels, self._domains))
            value = self._values.setdefault(folded, [0.0])
            if folded == key:
                self._checked[key] = value
        return value

    def observe(self, metric: str, value: float) -> None:
        """Put a duration into a histogram.

        Args:
            metric: the histogram's name, without the prefix.
            value: seconds; a negative value counts as 0.

        Raises:
            MetricError: no such histogram.
        """
        bounds = declared(metric, MetricKind.HISTOGRAM).buckets
        seconds = value if value >= 0 else 0.0
        with self._lock:
            counts = self._buckets.get(metric)
            if counts is None:
                counts = self._buckets[metric] = [0] * (len(bounds) + 1)
                self._sums[metric] = 0.0
            counts[bisect_left(bounds, seconds)] += 1
            self._sums[metric] += seconds

    def totals(self) -> Totals:
        """Everything counted so far."""
        with self._lock:
            return Totals(
                tuple(
                    (metric, labels, value) for (metric, labels), (value,) in self._values.items()
                ),
                tuple(
                    (metric, tuple(counts), self._sums[metric])
                    for metric, counts in self._buckets.items()
                ),
            )


class Gauges:
    """Current values. Only the engine has any; not for use from several threads."""

    def __init__(self) -> None:
        self._values: dict[str, dict[tuple[str, ...], float]] = {}

    def set(self, metric: str, value: float, labels: tuple[str, ...] = ()) -> None:
        """Give a gauge a value.

        Raises:
            MetricError: no such gauge, or it has other labels.
        """
        gauge = declared(metric, MetricKind.GAUGE)
        if len(labels) != len(gauge.labels):
            raise MetricError(f"{metric} has the labels {gauge.label_names}, not {labels!r}")
        self._values.setdefault(metric, {})[labels] = value

    def set_word(self, metric: str, labels: tuple[str, ...], word: str) -> None:
        """Have one word, the value of the last label, at 1; no other word is there.

        Args:
            metric: a gauge whose last label has a closed set of values.
            labels: the values of the other labels.
            word: the value of the last one.

        Raises:
            MetricError: no such gauge, label value, or number of labels.
        """
        gauge = declared(metric, MetricKind.GAUGE)
        words = gauge.labels[-1][1] if gauge.labels else None
        if words is None or word not in words:
            raise MetricError(f"{metric} never has the word {word!r}")
        for other in words:
            self.drop(metric, (*labels, other))
        self.set(metric, 1.0, (*labels, str(word)))

    def drop(self, metric: str, labels: tuple[str, ...]) -> None:
        """Forget the value of a gauge; without effect if it has none."""
        self._values.get(metric, {}).pop(labels, None)

    def retain_domains(self, domains: Container[str]) -> Iterator[None]:
        """Forget the values of other domains than these, since no rule names them any more.

        There may be hundreds of thousands: yields after each piece of the work, so that the caller
        can do something else before it goes on.
        """
        for metric, values in tuple(self._values.items()):
            place = METRICS[metric].domain_index
            if place is None:
                continue
            for piece in in_pieces(tuple(values)):
                for labels in piece:
                    if labels[place] not in domains:
                        values.pop(labels, None)
                yield

    def copy(self) -> Gauges:
        """The same at this moment, for another thread or made in one.

        The values of one metric are copied without a pause, so that none is set meanwhile.
        """
        other = Gauges()
        other._values = {metric: values.copy() for metric, values in tuple(self._values.items())}
        return other

    def by_metric(self) -> Mapping[str, Mapping[tuple[str, ...], float]]:
        """Every value that was set, by metric and label values."""
        return self._values

    def items(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        """Yield every value that was set, as (metric, label values, value)."""
        for metric, values in self._values.items():
            for labels, value in values.items():
                yield metric, labels, value
