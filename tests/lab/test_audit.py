"""``audit`` of the logs of a real Postfix and of the milter beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.lab import recipes
from tests.lab.lab import Lab
from tests.lab.labconfig import told_apart
from tests.lab.milter import Milter
from tests.lab.postfix import Postfix, transport_name
from tests.lab.recipes import POSTFIX, Site, scenario, server
from tests.lab.sweep import knowing_all, mirroring, send
from tests.support.auditfollower import Follower
from tests.support.scenario import Scenario, load
from tests.support.waiting import eventually
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


DOMAINS = (
    PASSES := scenario("audit-passes"),
    WAITS := scenario("audit-waits", server(tlsa=["3 1 1 bad"])),
    REFUSED := scenario("audit-refused", server(rcpt_reply={"u": "550 5.1.1 no such user"})),
)


def audit(lab: Lab, milter: Milter) -> tuple[int, dict[str, Any]]:
    """Exit status and findings, as one would run it."""
    return audit_logs(milter.log_file, lab.front.log.path)


def audit_logs(*logs: Path) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "requiretls_milter", "audit", "--format=json", *map(str, logs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def send_all(lab: Lab, milter: Milter, scenarios: Sequence[Scenario]) -> int:
    """Returns how many recipients had a forecast and a delivery."""
    return sum(len(send(lab, milter, scenario)[1]) for scenario in scenarios)


def test_forecasts_that_came_true_are_equal(lab: Lab, tmp_path: Path) -> None:
    with knowing_all(lab) as milter:
        follower = Follower(tmp_path, milter.log_file, lab.front.log.path)
        recipients = send_all(lab, milter, ONE_OF_EACH)
        status, found = audit(lab, milter)
        assert follower.end() == 0
    assert follower.results() == {"equal": recipients}, "as it was followed live"
    assert found["differences"] == []
    assert (status, found["different"], found["waiting"]) == (0, 0, 0)
    assert found["equal"] == recipients >= len(STATUSES)


def test_a_mirror_that_is_wrong_is_found_out(lab: Lab, tmp_path: Path) -> None:
    wrong = {transport_name(GOOD.profile): {"tls_security_level": "may"}}
    with mirroring(lab, wrong) as milter:
        follower = Follower(tmp_path, milter.log_file, lab.front.log.path)
        send_all(lab, milter, [GOOD])
        status, found = audit(lab, milter)
        assert follower.end() == 0
    assert follower.results() == {"different": 1}
    (told,) = follower.events("forecast_differs")
    assert " forecast=5.7.10 reason=tls_level_does_not_verify " in told
    assert (status, found["different"], found["equal"]) == (1, 1, 0)
    (difference,) = found["differences"]
    assert difference["forecast"]["status"] == "5.7.10"
    assert difference["forecast"]["reason"] == "tls_level_does_not_verify"
    assert difference["delivery"]["status"] == "2.0.0"
    assert difference["delivery"]["tls"] == "dane/requiretls"


FILTER = """\
{address}:10025 inet n - n - - smtpd
    -o syslog_name=postfix/after
    -o content_filter=
    -o smtpd_milters=
"""
"""Where the filter brings messages back; in the lab it is the filter itself."""


@pytest.fixture(params=list(POSTFIX))
def filtering(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Site[Postfix]]:
    """A Postfix whose mail passes a content filter behind the milter."""
    if PASSES.id not in lab.plan.scenarios:
        lab.add(DOMAINS)
    main = {
        "smtp_tls_security_level": "dane",
        "milter_header_checks": "",
        "enable_long_queue_ids": "no",
    }
    mta = {"tls_security_level": "dane"}  # no recipe routes the mail here
    watched = {"require": True, "mode": "monitor"}
    rules = {"recipient": {item.domain_name(item.domains[0]): watched for item in DOMAINS}}
    with recipes.postfix(
        lab, POSTFIX[request.param], "postfix-3.7", main=main, rules=rules, mta=mta
    ) as site:
        site.mta.configure({}, FILTER.format(address=site.mta.address))
        site.mta.reload(parameters={"content_filter": f"smtp:[{site.mta.address}]:10025"})
        yield site


def test_behind_a_content_filter_the_next_hops_attempt_is_compared(
    filtering: Site[Postfix],
) -> None:
    accepted = [filtering.send(filtering.rcpt(item)) for item in DOMAINS]
    for message in accepted:
        (to_filter,) = filtering.mta.log.wait(message.queue_id)
        assert "10025" in to_filter.relay
        behind = to_filter.reason.rpartition("queued as ")[2]
        filtering.mta.log.wait(behind)
    logs = (filtering.milter.log_file, filtering.mta.log.path)
    for order in (logs, logs[::-1]):
        status, found = eventually_complete(*order)
        assert found["differences"] == []
        assert (status, found["equal"], found["later"], found["waiting"]) == (0, 2, 1, 0)


def eventually_complete(*logs: Path) -> tuple[int, dict[str, Any]]:
    """The findings when the milter has written all its lines."""
    eventually(lambda: audit_logs(*logs)[1]["equal"] == 2, "three forecasts in the log")
    return audit_logs(*logs)
