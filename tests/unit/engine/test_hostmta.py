"""What is asked about configured domains, for the MTA of this host."""

from __future__ import annotations

import pytest

from requiretls_milter.config import Config
from requiretls_milter.engine.hostmta import ConfiguredDomains, HostMta
from requiretls_milter.model import Forecast, HopKind, NextHop, Outcome, Reason, Requirement

REQUIRETLS, NONE = Requirement.REQUIRETLS, Requirement.NONE
HOP = NextHop(HopKind.MX, "bank.example")
NONCOMPLIANT = Forecast("2.0.0", Outcome.DELIVER, Reason.NONCOMPLIANT_NOT_OFFERED, compliant=False)
FINE = Forecast("2.0.0", Outcome.DELIVER, Reason.OK, compliant=True)
BOUNCED = Forecast("5.7.30", Outcome.BOUNCE, Reason.REQUIRETLS_NOT_OFFERED)


def configured(version: str, **rule: object) -> ConfiguredDomains:
    mta = HostMta()
    mta.version = version
    return ConfiguredDomains(
        Config.model_validate({"rules": {"recipient": {"bank.example": rule}}}), mta
    )


@pytest.mark.parametrize(
    ("version", "rule", "carried"),
    [
        ("Postfix 3.11.7", {}, REQUIRETLS),
        ("", {}, REQUIRETLS),
        ("Postfix 3.7.11", {}, NONE),
        ("8.18.2", {}, NONE),
        ("Postfix 3.11.7", {"require": True, "mode": "reject"}, NONE),
    ],
)
def test_the_question_is_what_the_mta_makes_of_such_mail(
    version: str, rule: dict[str, object], carried: Requirement
) -> None:
    question = configured(version, **rule).question("bank.example")
    assert (question.asked, question.carried) == (REQUIRETLS, carried)


@pytest.mark.parametrize(
    ("version", "rule", "forecast", "ready"),
    [
        ("Postfix 3.11.7", {}, FINE, True),
        ("Postfix 3.11.7", {}, BOUNCED, False),
        ("Postfix 3.11.7", {}, NONCOMPLIANT, False),
        ("Postfix 3.11.7", {"on_noncompliant": "refuse"}, NONCOMPLIANT, False),
        ("Postfix 3.7.11", {}, NONCOMPLIANT, False),
        ("Postfix 3.7.11", {"on_noncompliant": "accept"}, NONCOMPLIANT, True),
    ],
)
def test_a_domain_is_ready_if_its_rule_would_let_such_mail_go(
    version: str, rule: dict[str, object], forecast: Forecast, ready: bool
) -> None:
    domains = configured(version, **rule)
    assert domains.is_ready(HOP, forecast) is ready


def test_mail_with_which_the_mta_does_something_else_says_nothing_of_the_domain() -> None:
    domains = configured("Postfix 3.7.11")
    usual = domains.question("bank.example")
    assert domains.is_about_one(HOP, usual)
    assert not domains.is_about_one(HOP, configured("Postfix 3.11.7").question("bank.example"))
    assert not domains.is_about_one(NextHop(HopKind.MX, "other.example"), usual)
