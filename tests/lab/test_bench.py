"""The row of the benchmark that needs the lab."""

from __future__ import annotations

import pytest

from tests.bench.cold import LATENCY, measured, planned
from tests.bench.rows import QUICK
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab


def test_assessments_are_cold_and_wait_for_late_answers(lab: Lab) -> None:
    scenarios = planned(QUICK)
    lab.add(scenarios)
    (data,) = measured(lab, scenarios, QUICK).data
    assert data["domains"] == QUICK.domains
    # MX, addresses, TLSA; greeting, EHLO, STARTTLS, EHLO: one after the other, none kept
    assert data["alone_seconds"]["low"] > 7 * LATENCY
    assert data["rate"]["median"] > 0
    assert 0 < data["engine_cpu_ms"] < 1000
