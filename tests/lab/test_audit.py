"""``audit`` of the logs of a real Postfix and of the milter beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.labconfig import told_apart
from tests.lab.milter import Milter
from tests.lab.postfix import transport_name
from tests.lab.sweep import knowing_all, mirroring, send
from tests.support.scenario import Scenario, load
from tests.unit.forecast.test_oracle import NOT_KNOWABLE, SETTINGS_NOT_MIRRORED

pytestmark = pytest.mark.lab

_KNOWABLE = [
    told_apart(item)
    for item in load().scenarios
    if item.id not in NOT_KNOWABLE and item.id not in SETTINGS_NOT_MIRRORED and len(item.expected)
]
STATUSES = sorted({item.expected[0].dsn for item in _KNOWABLE})
ONE_OF_EACH = [next(i for i in _KNOWABLE if i.expected[0].dsn == status) for status in STATUSES]
"""A recorded delivery with each status that there is."""

GOOD = next(
    item
    for item in _KNOWABLE
    if item.profile == "dane/enforce"
    and item.message.requiretls
    and item.expected[0].dsn == "2.0.0"
)


def audit(lab: Lab, milter: Milter) -> tuple[int, dict[str, Any]]:
    """Exit status and findings, as one would run it."""
    logs = (milter.log_file, lab.front.log.path)
    command = [sys.executable, "-m", "requiretls_milter", "audit", "--format=json", *map(str, logs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def send_all(lab: Lab, milter: Milter, scenarios: Sequence[Scenario]) -> int:
    """Returns how many recipients had a forecast and a delivery."""
    return sum(len(send(lab, milter, scenario)[1]) for scenario in scenarios)


def test_forecasts_that_came_true_are_equal(lab: Lab) -> None:
    with knowing_all(lab) as milter:
        recipients = send_all(lab, milter, ONE_OF_EACH)
        status, found = audit(lab, milter)
    assert found["differences"] == []
    assert (status, found["different"], found["waiting"]) == (0, 0, 0)
    assert found["equal"] == recipients >= len(STATUSES)


def test_a_mirror_that_is_wrong_is_found_out(lab: Lab) -> None:
    wrong = {transport_name(GOOD.profile): {"tls_security_level": "may"}}
    with mirroring(lab, wrong) as milter:
        send_all(lab, milter, [GOOD])
        status, found = audit(lab, milter)
    assert (status, found["different"], found["equal"]) == (1, 1, 0)
    (difference,) = found["differences"]
    assert difference["forecast"]["status"] == "5.7.10"
    assert difference["forecast"]["reason"] == "tls_level_does_not_verify"
    assert difference["delivery"]["status"] == "2.0.0"
    assert difference["delivery"]["tls"] == "dane/requiretls"
