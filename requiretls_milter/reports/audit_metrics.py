"""What ``audit --follow`` shows Prometheus: in a file for node_exporter, or at a port.

The values are replaced as a whole (:meth:`Figures.show`), so that a scrape, which has a thread of
its own, never sees half of a change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from requiretls_milter.engine.web.families import simple
from requiretls_milter.replacing import replace
from requiretls_milter.reports.audit import Auditor
from requiretls_milter.syntax.endpoint import Endpoint
from requiretls_milter.telemetry.catalogue import AUDIT_METRICS
from requiretls_milter.telemetry.labels import GivenUp

READABLE = 0o644
"""Mode of the file: node_exporter is another user."""

Values = Mapping[str, Mapping[tuple[str, ...], float]]
"""Metric, without the prefix, to label values to value."""


def values_of(auditor: Auditor, *, lines: int, unreadable: int) -> Values:
    """The values of all metrics.

    Args:
        auditor: what it has compared.
        lines: how many were read.
        unreadable: how many logs cannot be read.
    """
    found, following = auditor.found, auditor.following
    return {
        "audit_deliveries_total": {(one.value,): count for one, count in found.results.items()},
        "audit_differences_total": {(reason,): count for reason, count in found.reasons.items()},
        "audit_recipients_in_flight": {(): len(following)},
        "audit_given_up_total": {
            (GivenUp.AGE.value,): following.too_old,
            (GivenUp.NUMBER.value,): following.too_many,
        },
        "audit_lines_total": {(): lines},
        "audit_logs_unreadable": {(): unreadable},
    }


class AuditFigures(Collector):
    """The metrics as they were shown last."""

    def __init__(self) -> None:
        self._values: Values = {}
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def show(self, values: Values) -> None:
        """Show other values from now on."""
        self._values = values

    def collect(self) -> Iterator[Family]:
        """Yield every metric; prometheus-client calls this."""
        values = self._values
        for name, metric in AUDIT_METRICS.items():
            yield simple(metric, values.get(name, {}))

    def describe(self) -> Iterable[Family]:
        """Return nothing to check against: this is the only collector of its registry."""
        return ()

    def serve(self, address: Endpoint) -> int:
        """Serve them over HTTP, in threads; returns the port.

        Raises:
            OSError: the address cannot be had.
        """
        server, _ = start_http_server(address.port, address.address, self.registry)
        return server.server_port

    def write(self, path: Path) -> None:
        """Write them into a file, which is at each moment the old or the new one as a whole.

        Raises:
            OSError: it cannot be written; the old one is still there.
        """
        # node_exporter reads *.prom alone, never what is still being written.
        replace(path, generate_latest(self.registry), mode=READABLE)
