"""A metric of the catalogue as prometheus-client's own kind of object."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family

from requiretls_milter.telemetry.catalogue import PREFIX, Metric, MetricKind


def simple(metric: Metric, values: Mapping[tuple[str, ...], float]) -> Family:
    """A counter or a gauge with its values, and 0 for each combination that starts with 0."""
    kind = CounterMetricFamily if metric.kind is MetricKind.COUNTER else GaugeMetricFamily
    family = kind(PREFIX + metric.name, metric.help, labels=metric.label_names)
    start = dict.fromkeys(metric.combinations(), 0.0)
    for labels, value in {**start, **values}.items():
        family.add_metric(labels, value)
    return family
