"""What is asked about configured domains, for the MTA of this host."""

from __future__ import annotations

from dataclasses import replace

import pytest

from requiretls_milter.config import Config
from requiretls_milter.engine.domains.configured import ConfiguredDomains
from requiretls_milter.engine.domains.servedmta import ServedMta
from requiretls_milter.model import Forecast, HopKind, NextHop, Outcome, Reason, Requirement
from requiretls_milter.syntax.nexthop import parse

REQUIRETLS, NONE = Requirement.REQUIRETLS, Requirement.NONE
HOP = NextHop(HopKind.MX, "bank.example")
NONCOMPLIANT = Forecast("2.0.0", Outcome.DELIVER, Reason.NONCOMPLIANT_NOT_OFFERED, compliant=False)
FINE = Forecast("2.0.0", Outcome.DELIVER, Reason.OK, compliant=True)
BOUNCED = Forecast("5.7.30", Outcome.BOUNCE, Reason.REQUIRETLS_NOT_OFFERED)


def configured(version: str, **rule: object) -> ConfiguredDomains:
    return served({"rules": {"recipient": {"bank.example": rule}}}, version)


def served(config: dict[str, object], version: str = "Postfix 3.11.7") -> ConfiguredDomains:
    mta = ServedMta()
    mta.version = version
    return ConfiguredDomains(Config.model_validate(config), mta)


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
    assert domains.is_ready("bank.example", HOP, forecast) is ready


def test_mail_with_which_the_mta_does_something_else_says_nothing_of_the_domain() -> None:
    domains = configured("Postfix 3.7.11")
    usual = domains.question("bank.example")
    assert domains.about(HOP, usual) == ["bank.example"]
    assert not domains.about(HOP, configured("Postfix 3.11.7").question("bank.example"))
    assert not domains.about(NextHop(HopKind.MX, "other.example"), usual)


# ---------------------------------------------------------------- routing

GATEWAY = "[gateway.example]:26"
RULES = {
    "recipient": {
        "bank.example": {},
        "shop.example": {},
        "strict.example": {"require": True, "mode": "reject"},
        "here.example": {},
        ".sub.example": {},
    },
    "nexthop": {"direct.example": {}},
}
ROUTED: dict[str, object] = {
    "rules": RULES,
    "mta": {
        "relayhost": "[relay.example]",
        "local_domains": ["here.example"],
        "routes": {"bank.example": f"relay:{GATEWAY}"},
    },
}


def test_the_question_is_about_the_next_hop_to_which_mail_is_routed() -> None:
    domains = served(ROUTED)
    question = domains.question("bank.example")
    assert (question.nexthop, question.transport) == (GATEWAY, "relay")
    assert domains.question("shop.example").nexthop == "[relay.example]"
    assert domains.question("direct.example").nexthop == "direct.example", "a rule by next hop"


def test_domains_of_one_next_hop_are_asked_about_once_for_each_question() -> None:
    domains = served(ROUTED)
    assert set(domains.asked()) == {
        "bank.example",
        "shop.example",
        "strict.example",
        "direct.example",
    }
    many: dict[str, object] = {"recipient": {f"d{number}.example": {} for number in range(50)}}
    assert list(served({"rules": many, "mta": {"relayhost": "[relay.example]"}}).asked()) == [
        "d0.example"
    ]
    assert len(served({"rules": many}).asked()) == 50


def test_an_answer_is_about_all_domains_whose_mail_would_ask_the_same() -> None:
    hop = parse("[relay.example]")
    domains = served(ROUTED)
    assert domains.about(hop, domains.question("shop.example")) == ["shop.example"]
    assert domains.about(hop, domains.question("strict.example")) == ["strict.example"]
    older = served(ROUTED, "Postfix 3.7.11")  # carries nothing: the rule makes no difference
    both = ["shop.example", "strict.example"]
    assert older.about(hop, older.question("shop.example")) == both
    assert not domains.about(NextHop(HopKind.MX, "shop.example"), domains.question("shop.example"))


def test_a_message_that_no_recipe_moves_says_nothing_of_the_domain() -> None:
    """Other recipients keep it on its way: most mail to the domain goes by the strict transport."""
    rules: dict[str, object] = {"recipient": {"bank.example": {}}}
    domains = served({"rules": rules, "mta": {"route_transport": "smtp-strict"}})
    usual = domains.question("bank.example")
    assert usual.transport == "smtp-strict"
    assert domains.about(HOP, usual) == ["bank.example"]
    assert not domains.about(HOP, replace(usual, transport="smtp"))


def test_a_domain_that_is_configured_no_more_may_still_be_asked_about_once() -> None:
    """The watch began its round before the reload."""
    domains = served(ROUTED)
    question = domains.question("gone.example")
    assert question.nexthop == "gone.example"
    assert not domains.about(NextHop(HopKind.MX, "gone.example"), question)


def test_what_is_delivered_here_is_not_asked_about() -> None:
    rules: dict[str, object] = {"recipient": {"here.example": {}}}
    assert served({"rules": rules, "mta": {"local_domains": ["here.example"]}}).asked() == ()
