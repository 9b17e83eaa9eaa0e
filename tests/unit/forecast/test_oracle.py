"""The forecast equals what a real Postfix 3.11.7 did (tests/data/oracle).

Pure: evidence is made of the scenarios' description. The lab replays the same
scenarios through live DNS and servers.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.forecast.judge import judge
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.model import Forecast, Outcome
from tests.support.build import NOW
from tests.support.pki import Pki
from tests.support.scenario import Scenario, load
from tests.support.scenarioevidence import evidence_of, profile_of, requirement_of
from tests.support.scenarioplan import ScenarioPlan

RECORDED = load()

NOT_KNOWABLE = {
    "a-mail-550-5730": "the reply to MAIL",
    "a-rcpt-450": "the reply to RCPT",
    "a-data-554": "the reply to the end of DATA",
    "a-multircpt-mixed": "the replies to RCPT",
    "c-m451-noreq": "the reply to MAIL",
    "c-noreq-m451": "the reply to MAIL",
    "g-rcpt550": "the reply to RCPT",
    "g-both-rcpt550": "the reply to RCPT",
    "h-op-m555": "the reply to MAIL",
    "f-uns-hsfail-backoff1": "a message older than minimal_backoff_time",
    "h-op-may-hsfail-b1": "a message older than minimal_backoff_time",
}
"""Decided after the EHLO inside TLS, or by the message's age: forecast is the first attempt's
delivery to a server that takes what it is offered."""

SETTINGS_NOT_MIRRORED = {"a-banner-554-hard": "smtp_skip_5xx_greeting = no"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ScenarioPlan:
    """All recorded scenarios, with certificates, but no server."""
    planned = ScenarioPlan(Pki(tmp_path_factory.mktemp("oracle") / "pki", NOW))
    planned.add(RECORDED.scenarios)
    return planned


@pytest.fixture(scope="module")
def trust(world: ScenarioPlan) -> TrustStore:
    """The lab's CA."""
    return load_trust_store(str(Path(world.pki.ca_file)))


def forecasts(scenario: Scenario, world: ScenarioPlan, trust: TrustStore) -> list[Forecast]:
    """One forecast for each recipient, in the order of the records."""
    profile = profile_of(scenario, RECORDED.profiles)
    requirement = requirement_of(scenario)
    return [
        judge(
            evidence_of(scenario, domain, world),
            asked=requirement,
            carried=requirement,
            profile=profile,
            trust=trust,
            now=NOW,
        )
        for domain in scenario.domains
        for _ in scenario.message.rcpts
    ]


@pytest.mark.parametrize(
    "scenario",
    [
        item
        for item in RECORDED.scenarios
        if item.id not in NOT_KNOWABLE and item.id not in SETTINGS_NOT_MIRRORED
    ],
    ids=lambda item: item.id,
)
def test_the_forecast_is_what_postfix_recorded(
    scenario: Scenario, world: ScenarioPlan, trust: TrustStore
) -> None:
    """Status code and log token are equal for every recipient."""
    made = [(item.status, item.tls or "") for item in forecasts(scenario, world, trust)]
    assert made == [(item.dsn, item.tls or "") for item in scenario.expected]


@pytest.mark.parametrize(
    "scenario",
    [item for item in RECORDED.scenarios if item.id in NOT_KNOWABLE],
    ids=lambda item: item.id,
)
def test_what_is_decided_after_the_second_ehlo_is_forecast_as_if_the_server_took_it(
    scenario: Scenario, world: ScenarioPlan, trust: TrustStore
) -> None:
    """No probe sends MAIL, so a server's refusal there cannot be known."""
    made = forecasts(scenario, world, trust)
    assert {item.outcome for item in made} <= {Outcome.DELIVER, Outcome.DEFER}
