"""Replaying recorded scenarios: does this lab's Postfix, without any milter, do the same again?

If it does, the lab is right: its DNSSEC, its certificates, its servers are those of the
recordings, and what the milter is then told by it is what it would be told by the world.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tests.lab import submission
from tests.lab.errors import LabError
from tests.lab.lab import Lab
from tests.lab.log import Delivery
from tests.support import addresses
from tests.support.scenario import Expected, Scenario
from tests.support.waiting import NotInTime

PARALLEL = 24
"""Sessions to the MTA at once."""

_ADDRESS = re.compile(r"\[(?:127|192\.0\.2)\.[0-9.]+\]|\b127\.[0-9.]+\d")


@dataclass(frozen=True)
class Outcome:
    """A scenario as it went."""

    scenario: Scenario
    deliveries: tuple[Delivery, ...]
    """In the order of ``scenario.expected``."""
    mail_requiretls_sent: tuple[bool, ...]
    differences: tuple[str, ...]
    """What is not as recorded; empty = equal."""


def replay(lab: Lab, scenarios: Sequence[Scenario], *, timeout: float = 90.0) -> list[Outcome]:
    """Send all *scenarios* through *lab* at once, wait, and compare."""
    began = time.time()
    with ThreadPoolExecutor(PARALLEL) as pool:
        sent = list(pool.map(lambda item: _send(lab, item), scenarios))
    deadline = time.monotonic() + timeout
    deliveries: list[list[Delivery]] = []
    for scenario, queue_id in zip(scenarios, sent, strict=True):
        recipients = len(lab.recipients(scenario))
        if not queue_id:
            deliveries.append([])
            continue
        try:
            left = max(0.1, deadline - time.monotonic())
            deliveries.append(lab.deliveries(queue_id, recipients, left))
        except NotInTime:
            deliveries.append(lab.front.log.deliveries(queue_id))
    return [
        _compare(lab, scenario, found, began)
        for scenario, found in zip(scenarios, deliveries, strict=True)
    ]


def _send(lab: Lab, scenario: Scenario) -> str:
    try:
        return lab.send(scenario).queue_id
    except submission.Refused:
        return ""


def _compare(lab: Lab, scenario: Scenario, found: Sequence[Delivery], since: float) -> Outcome:
    differences = []
    ordered = []
    # An address literal is what it was in the recording's world: pair by position there.
    recipients = lab.recipients(scenario)
    for recipient, expected in zip(recipients, _in_order(scenario, recipients), strict=True):
        mine = [item for item in found if item.to == recipient]
        if not mine:
            differences.append(f"{recipient}: no delivery line")
            continue
        ordered.append(mine[0])
        for name in ("status", "dsn", "tls"):
            was, now = getattr(expected, name), getattr(mine[0], name)
            if was != now:
                differences.append(f"{recipient}: {name} {now!r}, recorded {was!r}")
        if expected.reason is not None and _masked(mine[0].reason) != _masked(expected.reason):
            differences.append(
                f"{recipient}: reason {mine[0].reason!r}, recorded {expected.reason!r}"
            )
    sent = mail_requiretls_sent(lab, scenario, since)
    if sent != scenario.mail_requiretls_sent:
        differences.append(
            f"sessions with REQUIRETLS {sent}, recorded {scenario.mail_requiretls_sent}"
        )
    return Outcome(scenario, tuple(ordered), sent, tuple(differences))


def _in_order(scenario: Scenario, recipients: Sequence[str]) -> list[Expected]:
    by_name = {item.rcpt: item for item in scenario.expected}
    if set(by_name) == set(recipients):
        return [by_name[recipient] for recipient in recipients]
    return list(scenario.expected)


def mail_requiretls_sent(lab: Lab, scenario: Scenario, since: float) -> tuple[bool, ...]:
    """Whether each session's MAIL carried REQUIRETLS; False where it had no MAIL at all.

    Domain by domain: Postfix delivers to several at once.
    """
    names = [scenario.domain_name(domain) for domain in scenario.domains]
    mine = {
        host.address: names.index(host.domain)
        for host in lab.hosts(scenario)
        if host.address != addresses.FRONT
    }
    sessions = sorted(
        (item for item in lab.sessions() if item.address in mine and item.time >= since),
        key=lambda item: (mine[item.address], item.time),
    )
    return tuple(
        any(re.search(r" REQUIRETLS( |$)", command) for command in session.mail)
        for session in sessions
    )


def _masked(reason: str) -> str:
    """Without addresses, which are the lab's own."""
    return _ADDRESS.sub("[ADDRESS]", reason)


def recorded(data: Mapping[str, Any], outcomes: Sequence[Outcome], version: str) -> dict[str, Any]:
    """The recordings, with what Postfix *version* did otherwise in their place.

    What it did as before stays as it is, with the addresses of the first recording.

    Args:
        data: the file of scenarios, as it was read from JSON.
        outcomes: of some or all of its scenarios.
        version: of the Postfix that was replayed.

    Raises:
        LabError: a scenario came to no end, which is nothing to be recorded.
    """
    made = copy.deepcopy(dict(data))
    made["postfix"] = version
    by_id = {item["id"]: item for item in made["scenarios"]}
    for outcome in outcomes:
        if not outcome.differences:
            continue
        scenario = by_id[outcome.scenario.id]
        if len(outcome.deliveries) != len(scenario["expected"]):
            raise LabError(f"{outcome.scenario.id}: {'; '.join(outcome.differences)}")
        for expected, delivery in zip(scenario["expected"], outcome.deliveries, strict=True):
            expected |= {name: getattr(delivery, name) for name in ("status", "dsn", "tls")}
            if expected["reason"] is not None:
                expected["reason"] = delivery.reason
        scenario["mail_requiretls_sent"] = list(outcome.mail_requiretls_sent)
    return made
