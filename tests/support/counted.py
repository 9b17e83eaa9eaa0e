"""What was counted, for assertions."""

from __future__ import annotations

from requiretls_milter.telemetry.counting import Counters


def saturated(counters: Counters) -> dict[str, int]:
    """How often each bound was met."""
    return {
        labels[0]: int(value)
        for metric, labels, value in counters.totals().counters
        if metric == "saturated_total"
    }
