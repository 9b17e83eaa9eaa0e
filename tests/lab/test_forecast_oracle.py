"""The forecast is what the real Postfix then does, through DNS, servers and the milter itself.

Every recorded scenario, every word of the vocabulary that none of them has, and words at random.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from requiretls_milter.config.text import render
from requiretls_milter.engine.assessor import Assessor
from requiretls_milter.engine.cache.source import CachedSource
from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.evidence.collector import Collector
from requiretls_milter.model import Forecast, Question, Requirement
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.syntax.nexthop import parse
from requiretls_milter.telemetry.counting import Counters, Gauges
from tests.lab import labconfig
from tests.lab.further import at_random, further
from tests.lab.lab import Lab
from tests.lab.labconfig import NO_BUDGETS, told_apart
from tests.lab.milter import Milter
from tests.lab.postfix import transport_name
from tests.lab.sweep import PROBE, differences, knowing_all, send, sweep
from tests.lab.versions import as_recorded
from tests.support.limiters import limiters
from tests.support.scenario import Scenario, load
from tests.support.scenarioevidence import requirement_of
from tests.unit.forecast.test_oracle import NOT_KNOWABLE, SETTINGS_NOT_MIRRORED

pytestmark = pytest.mark.lab

RECORDED = tuple(
    told_apart(item)
    for item in load().scenarios
    if item.id not in NOT_KNOWABLE and item.id not in SETTINGS_NOT_MIRRORED
)
GROUPS = "abcdefghi"

SEED = 8689
RANDOM = 150
"""Scenarios at random; ``python -m tests.lab.sweep`` takes as many as one has time for."""

OUTCOMES = {"sent": "deliver", "bounced": "bounce", "deferred": "defer"}


def expected(scenario: Scenario) -> list[tuple[str, str, str]]:
    """Status, outcome and tls token that were recorded, recipient by recipient."""
    return [(item.dsn, OUTCOMES[item.status], item.tls or "") for item in scenario.expected]


# ---------------------------------------------------------------- the engine's part


def questions(lab: Lab, scenario: Scenario) -> Iterator[Question]:
    """What a worker would ask of each recipient."""
    requirement = requirement_of(scenario)
    for recipient in lab.recipients(scenario):
        domain = recipient.rpartition("@")[2]
        table = lab.plan.transport
        profile, nexthop = table[recipient if recipient in table else domain]
        yield Question(
            str(parse(nexthop or domain)), transport_name(profile), requirement, requirement
        )


async def assess(lab: Lab, asked: Sequence[Question]) -> dict[Question, Forecast]:
    """All questions at once, put to an engine's inside in this process."""
    config = labconfig.settings(lab, labconfig.all_transports(), probe=PROBE, limits=NO_BUDGETS)
    counters = Counters()
    trust = load_trust_store(config.probe.ca_file)
    live = Collector(config, trust, limiters=limiters())
    source = CachedSource(live, MemoryStore(), config, counters, authorities=trust.digest)
    patient = config.limits.model_copy(update={"assessment_timeout": 60.0})
    config = config.model_copy(update={"limits": patient})
    assessor = Assessor(config, source, trust, counters, Gauges())
    try:
        found = await asyncio.gather(*map(assessor.assess, asked))
    finally:
        await assessor.close()
        await source.close()
        await live.close()
    return dict(zip(asked, found, strict=True))


async def test_every_recorded_scenario_is_forecast_from_live_evidence(lab: Lab) -> None:
    asked = {item.id: list(questions(lab, item)) for item in RECORDED}
    found = await assess(lab, list(dict.fromkeys(q for each in asked.values() for q in each)))
    made = []
    for scenario in RECORDED:
        forecasts = [found[question] for question in asked[scenario.id]]
        ours = [(item.status, item.outcome.value, item.tls or "") for item in forecasts]
        made.append((scenario, ours, expected(scenario)))
    assert len(made) == len(load().scenarios) - len(NOT_KNOWABLE) - len(SETTINGS_NOT_MIRRORED)
    assert differences(made) == []


# ---------------------------------------------------------------- the command


def checked(
    lab: Lab, asked: Sequence[Question], directory: Path
) -> dict[Question, Mapping[str, Any]]:
    """What ``check`` says of all of them: a command for each transport and requirement."""
    groups: dict[tuple[str, Requirement], list[Question]] = {}
    for question in asked:
        groups.setdefault((question.transport, question.asked), []).append(question)
    found: dict[Question, Mapping[str, Any]] = {}
    for (transport, requirement), questions in groups.items():
        mta = labconfig.all_transports()[transport]
        path = directory / f"{transport}.toml"
        path.write_text(render(labconfig.settings(lab, probe=PROBE, mta=mta, limits=NO_BUDGETS)))
        options = ["--config", str(path), "--requirement", requirement.value, "--format", "json"]
        done = subprocess.run(
            [sys.executable, "-m", "requiretls_milter", "check", *options]
            + [question.nexthop for question in questions],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode in (0, 1, 75), done.stderr
        for question, report in zip(questions, json.loads(done.stdout), strict=True):
            found[question] = report["forecast"]
    return found


@pytest.mark.timeout(300)
def test_every_recorded_scenario_is_forecast_by_check(lab: Lab, tmp_path: Path) -> None:
    asked = {item.id: list(questions(lab, item)) for item in RECORDED}
    found = checked(lab, list(dict.fromkeys(q for each in asked.values() for q in each)), tmp_path)
    made = []
    for scenario in RECORDED:
        forecasts = [found[question] for question in asked[scenario.id]]
        ours = [(item["status"], item["outcome"], item["tls"] or "") for item in forecasts]
        made.append((scenario, ours, expected(scenario)))
    assert differences(made) == []


# ---------------------------------------------------------------- the whole way


@pytest.fixture(scope="module")
def milter(lab: Lab) -> Iterator[Milter]:
    """A milter that mirrors all transports, for all tests here."""
    with knowing_all(lab) as running:
        yield running


def test_every_recorded_scenario_is_forecast_through_milter_and_postfix(
    lab: Lab, milter: Milter
) -> None:
    assert {item.group for item in RECORDED} == set(GROUPS)
    as_recorded(sweep(lab, milter, RECORDED))


def test_the_rest_of_the_vocabulary_is_forecast_too(lab: Lab, milter: Milter) -> None:
    scenarios = further()
    lab.add(scenarios)
    as_recorded(sweep(lab, milter, scenarios))


def test_scenarios_at_random_are_forecast_too(lab: Lab, milter: Milter) -> None:
    scenarios = at_random(SEED, RANDOM)
    lab.add(scenarios)
    as_recorded(sweep(lab, milter, scenarios))


def test_what_was_forecast_is_counted(lab: Lab, milter: Milter) -> None:
    """Each recipient's forecast once; the metrics add up with the log."""
    lines = milter.events("recipient")
    milter.await_metric("forecasts_total", len(lines))
    assert milter.metric("forecasts_total") == len(lines)
    assert milter.metric("recipients_total", action="accept") == len(lines)
    for status in ("2.0.0", "5.7.10", "5.7.30", "4.7.0", "4.7.4", "4.7.5"):
        said = sum(line["forecast"] == status for line in lines)
        assert said > 0
        assert milter.metric("forecasts_total", status=status) == said
    noncompliant = sum(line["compliant"] == "false" for line in lines)
    assert milter.metric("noncompliant_deliveries_total") == noncompliant > 0
    assert milter.metric("callback_errors_total") == 0


@pytest.mark.parametrize("name", NOT_KNOWABLE)
def test_what_only_mail_itself_would_show_is_forecast_as_a_server_that_takes_it(
    lab: Lab, milter: Milter, name: str
) -> None:
    """Decided after the EHLO inside TLS, or by the age of the message: no probe sends MAIL."""
    _, forecasts, deliveries = send(lab, milter, lab.plan.scenarios[name])
    assert {status for status, _ in forecasts.values()} <= {"2.0.0", "4.7.5"}
    assert forecasts != deliveries, f"{NOT_KNOWABLE[name]} decides no longer?"
