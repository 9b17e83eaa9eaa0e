"""The lab's Postfix does what the recorded Postfix did: that is what makes it a lab."""

from __future__ import annotations

import dataclasses

import pytest

from tests.lab.lab import Lab
from tests.lab.oracle import replay
from tests.lab.versions import as_recorded
from tests.support.scenario import load

pytestmark = pytest.mark.lab


@pytest.mark.timeout(300)
def test_all_recorded_scenarios_are_equal(lab: Lab) -> None:
    scenarios = load().scenarios
    assert len(scenarios) == 233
    outcomes = replay(lab, scenarios)
    as_recorded([f"{item.scenario.id}: {line}" for item in outcomes for line in item.differences])


def test_a_wrong_recording_is_noticed(lab: Lab) -> None:
    """The comparison itself can fail."""
    good = next(item for item in load().scenarios if item.id == "a-ok")
    wrong = dataclasses.replace(
        good,
        expected=(dataclasses.replace(good.expected[0], dsn="5.7.30", tls="may"),),
        mail_requiretls_sent=(False,),
    )
    (outcome,) = replay(lab, [wrong])
    assert len(outcome.differences) == 3
