"""``simulate``: one message through the milter's own code, with scripted forecasts.

That a real message gets the same is shown in tests/lab/test_simulate.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from requiretls_milter.config import Config
from requiretls_milter.config.places import KeyPath, Place
from requiretls_milter.milter.settings import Expander
from requiretls_milter.model import Action, Forecast, Outcome, Question, Reason, Standing
from requiretls_milter.reports.carrying import HostMta
from requiretls_milter.reports.simulate import (
    Message,
    RoutedBy,
    Simulated,
    Told,
    as_json,
    exit_status,
    simulate,
)
from requiretls_milter.reports.simulate_text import as_text
from requiretls_milter.syntax.expansion import Expansion
from tests.support.asking import NEW_MTA, OLD_MTA

NOW = 1_800_000_000.0
LACKING = Forecast(
    "5.7.30", Outcome.BOUNCE, Reason.REQUIRETLS_NOT_OFFERED, "no", mx="mx.bank.example"
)
FINE = Forecast("2.0.0", Outcome.DELIVER, Reason.OK, "yes", compliant=True)
REJECT: dict[str, Any] = {"recipient": {"bank.example": {"mode": "reject"}}}
ROUTED = Told(RoutedBy.POSTFIX, "smtp", "bank.example", "bob@bank.example", "a@x.test")


def found(
    *parameters: str,
    forecast: Forecast = LACKING,
    mta: HostMta = NEW_MTA,
    told: Told = ROUTED,
    rules: dict[str, Any] = REJECT,
    section: dict[str, Any] | None = None,
    milter: dict[str, Any] | None = None,
    asked: list[Question] | None = None,
    expander: Expander | None = None,
    **message: Any,
) -> Simulated:
    def ask(question: Question) -> Forecast:
        if asked is not None:
            asked.append(question)
        return forecast

    values = {"sender": "a@x.test", "recipient": "bob@bank.example", "own_name": "mta.x.test"}
    return simulate(
        Message(**{**values, "parameters": parameters, **message}),
        told,
        Config.model_validate({"rules": rules, "mta": section or {}, "milter": milter or {}}),
        mta,
        ask,
        NOW,
        expander,
    )


PLACES: dict[KeyPath, Place] = {
    ("rules", "recipient", "bank.example", "mode"): Place(Path("c.toml"), 7, 1)
}


def test_a_refusal_at_rcpt_is_told_with_the_reply_and_the_rule() -> None:
    one = found("REQUIRETLS")
    assert exit_status(one) == 1
    told = as_json(one, None, PLACES, ["note"])
    assert (told["action"], told["stage"], told["why"]) == ("reject", "rcpt", "will_fail")
    assert told["reply"].startswith("550 5.7.30 REQUIRETLS cannot be honoured for bank.example")
    assert told["rule"]["mode"] == {
        "value": "reject",
        "table": 'rules.recipient."bank.example"',
        "file": "c.toml",
        "line": 7,
        "listed": None,
    }
    assert (told["tag"], told["route"]) == (None, None)
    assert told["notes"] == ["note"]


def test_what_is_accepted_has_a_tag_and_a_route() -> None:
    one = found("REQUIRETLS", forecast=FINE)
    assert exit_status(one) == 0
    told = as_json(one, None, {}, [])
    assert told["tag"] == (
        "requirement=requiretls; source=esmtp; forecast=2.0.0; reason=ok; route=requiretls; "
        "by=mta.x.test"
    )
    assert (told["route"], told["action"]) == ("requiretls", "accept")


def test_a_tag_that_is_not_written_into_what_leaves_is_not_shown_but_the_mark_is() -> None:
    milter = {"tag_leaving": False, "envid_mark": "REQUIRETLS", "headers_only_bounces": True}
    one = found("REQUIRETLS", forecast=FINE, milter=milter)
    told = as_json(one, None, {}, [])
    assert (told["tag"], told["route"]) == (None, "requiretls")
    assert told["parameters"] == "ENVID=REQUIRETLS RET=HDRS"
    text = as_text(one, None, {}, [])
    assert "Tag      none (milter.tag_leaving is false)\n" in text
    assert "Sender   gets ENVID=REQUIRETLS RET=HDRS" in text
    assert as_json(found("REQUIRETLS", forecast=FINE), None, {}, [])["parameters"] is None


AWAY = Forecast("4.4.1", Outcome.DEFER, Reason.UNREACHABLE, "no", mx="mx.bank.example")
REQUIRES: dict[str, Any] = {"recipient": {"bank.example": {"mode": "reject", "require": True}}}


def test_what_the_mta_would_deliver_later_without_the_requirement_is_told() -> None:
    one = found(forecast=AWAY, rules=REQUIRES)
    assert one.decision.action is Action.ACCEPT
    (note,) = as_json(one, None, {}, [])["notes"]
    assert note.endswith('on_unreachable = "defer" prevents it')
    assert note in " ".join(as_text(one, None, {}, []).split())


@pytest.mark.parametrize(
    "case",
    [
        {"forecast": FINE},
        {"section": {"route_transport": "smtp-strict"}},  # it binds the mail
        {"rules": {**REQUIRES, "on_unreachable": "defer"}},
        {"rules": {**REQUIRES, "suspended": True}},
    ],
)
def test_what_keeps_the_requirement_is_not(case: dict[str, Any]) -> None:
    one = found(**{"forecast": AWAY, "rules": REQUIRES, **case})
    assert as_json(one, None, {}, [])["notes"] == []


def test_mail_of_sendmail_is_refused_at_its_end_where_a_client_would_be_put_off() -> None:
    rules = {**REQUIRES, "on_unreachable": "defer"}
    one = found(forecast=AWAY, rules=rules, by_smtp=False, standing=Standing.TRUSTED)
    told = as_json(one, None, {}, [])
    assert (told["action"], told["stage"], told["by_smtp"]) == ("reject", "end", False)
    assert told["reply"].startswith("550 5.4.1 ")
    assert "to bob@bank.example, by sendmail(1)" in as_text(one, None, {}, [])
    assert as_json(found(forecast=AWAY, rules=rules), None, {}, [])["action"] == "defer"


def test_an_mta_that_carries_the_requirement_keeps_it_while_the_server_is_away() -> None:
    assert as_json(found("REQUIRETLS", forecast=AWAY), None, {}, [])["notes"] == []
    older = found("REQUIRETLS", forecast=AWAY, mta=OLD_MTA)
    assert len(as_json(older, None, {}, [])["notes"]) == 1


def test_a_route_that_moves_the_mail_is_told() -> None:
    section = {"route_transport": "smtp-strict"}
    one = found("REQUIRETLS", forecast=FINE, section=section)
    assert as_json(one, None, {}, [])["nexthop"]["carrier"] == "smtp-strict"
    moved = "by transport smtp, as Postfix itself says; its route moves it to smtp-strict\n"
    assert moved in as_text(one, None, {}, [])
    usual = found(section=section)
    assert as_json(usual, None, {}, [])["nexthop"]["carrier"] == "smtp"
    assert "moves it" not in as_text(usual, None, {}, [])
    local = found("REQUIRETLS", told=Told(RoutedBy.POSTFIX, "local", ""), section=section)
    assert as_json(local, None, {}, [])["nexthop"]["carrier"] == "local"


@pytest.mark.parametrize(
    ("options", "status", "action"),
    [
        ({"rules": {}}, 1, "accept"),  # the MTA bounces it
        ({"rules": {"suspended": True, **REJECT}}, 1, "accept"),
        ({"standing": Standing.OTHER}, 1, "accept"),
        ({"sender": ""}, 1, "accept"),
        ({"rules": {"mode": "defer"}}, 1, "defer"),
        ({"forecast": Forecast("4.7.5", Outcome.DEFER, Reason.UNKNOWN)}, 75, "accept"),
        ({"forecast": FINE}, 0, "accept"),
    ],
    ids=["monitor", "suspended", "stranger", "bounce", "defer", "temporary", "fine"],
)
def test_the_exit_status_is_the_worse_of_milter_and_mta(
    options: dict[str, Any], status: int, action: str
) -> None:
    one = found("REQUIRETLS", **options)
    assert (exit_status(one), one.decision.action.value) == (status, action)


def test_a_header_field_asks_at_the_end_of_the_message() -> None:
    one = found(fields=(("Require-TLS-ESMTP", "yes"),))
    assert one.at_rcpt is None
    assert as_json(one, None, {}, [])["stage"] == "end"
    assert "(at the end of the message; will_fail)" in as_text(one, None, {}, [])


def test_ordinary_mail_is_forecast_for_the_reader_though_the_milter_does_not_ask() -> None:
    asked: list[Question] = []
    one = found(asked=asked, forecast=FINE)
    assert [question.asked.value for question in asked] == ["none"]
    assert (one.assessed, one.forecast, one.tag) == (False, FINE, None)
    text = as_text(one, None, {}, [])
    assert "does not assess such mail" in text
    assert "Asked    nothing\n" in text


def test_an_old_mta_acts_on_nothing_and_the_milter_alone_decides() -> None:
    asked: list[Question] = []
    one = found("REQUIRETLS", mta=OLD_MTA, asked=asked)
    assert asked[0].carried.value == "none"
    text = as_text(one, None, {}, [])
    assert "Asked    requiretls, by the MAIL parameter; the MTA does not act on it\n" in text
    assert "MTA      Postfix 3.7.11 carries nothing (postconf)\n" in text


def test_local_mail_needs_no_forecast() -> None:
    asked: list[Question] = []
    told = Told(RoutedBy.POSTFIX, "local", "x.test", "bob@x.test", "a@x.test")
    one = found("REQUIRETLS", told=told, recipient="bob@x.test", asked=asked)
    assert (asked, exit_status(one)) == ([], 0)
    assert "delivered on this host by transport local, as Postfix itself says" in as_text(
        one, None, {}, []
    )


def test_without_an_mta_the_routing_of_the_configuration_decides_and_it_is_said() -> None:
    one = found("REQUIRETLS", told=Told(RoutedBy.CONFIGURATION))
    told = as_json(one, None, {}, [])
    assert (told["nexthop"]["nexthop"], told["nexthop"]["by"]) == ("bank.example", "configuration")
    assert "no Postfix was asked" in as_text(one, None, {}, [])


def test_a_next_hop_that_cannot_be_used_is_told() -> None:
    told = Told(RoutedBy.POSTFIX, "smtp", "[", "bob@bank.example", "a@x.test")
    one = found("REQUIRETLS", told=told)
    assert one.nexthop is None
    assert exit_status(one) == 75
    assert "cannot be used: " in as_text(one, None, {}, [])


def test_why_ordinary_mail_has_no_next_hop_is_told_too() -> None:
    told = Told(RoutedBy.POSTFIX, "smtp", "a..b", "bob@bank.example", "a@x.test")
    one = found(told=told)
    assert "next hop that cannot be used: " in as_text(one, None, {}, [])
    assert "empty label" in as_json(one, None, {}, [])["nexthop"]["error"]


def test_the_rule_shows_what_is_not_a_default_and_where() -> None:
    text = as_text(found("REQUIRETLS"), None, PLACES, [])
    assert 'Rule     mode = "reject" ([rules.recipient."bank.example"] line 7)\n' in text


def test_more_tags_than_are_removed_are_refused_as_in_a_real_message() -> None:
    fields = tuple(("X-RequireTLS", "forged") for _ in range(101))
    one = found(fields=fields)
    assert as_json(one, None, {}, [])["reply"].startswith("550 5.7.1 more than 100 header fields")


def test_what_the_mta_makes_of_the_recipient_is_told_with_each_forecast() -> None:
    expansion = Expansion("bob@bank.example", ("bob@bank.example", "bob@away.example"))
    asked: list[Question] = []
    one = found("REQUIRETLS", asked=asked, expander=lambda _: expansion)
    assert [question.nexthop for question in asked] == ["bank.example", "away.example"]
    assert exit_status(one) == 1
    told = as_json(one, None, {}, [])
    assert [
        (it["address"], it["nexthop"], it["forecast"]["status"]) for it in told["expansions"]
    ] == [
        ("bob@bank.example", "bank.example", "5.7.30"),
        ("bob@away.example", "away.example", "5.7.30"),
    ]
    assert told["action"] == "reject"
    assert "Becomes  bob@away.example, next hop away.example by transport smtp: 5.7.30" in as_text(
        one, None, {}, []
    )


def test_the_rule_for_what_the_mta_makes_of_the_recipient_is_told() -> None:
    expansion = Expansion("bob@mine.example", ("bob@bank.example",))
    one = found(
        "REQUIRETLS",
        recipient="bob@mine.example",
        told=Told(RoutedBy.POSTFIX, "local", "mine.example", "bob@mine.example"),
        expander=lambda _: expansion,
    )
    assert as_json(one, None, {}, [])["rule"]["mode"]["table"] == 'rules.recipient."bank.example"'


def test_ordinary_mail_to_an_alias_is_forecast_where_it_leads() -> None:
    expansion = Expansion("bob@mine.example", ("root@local.example", "bob@away.example"))
    asked: list[Question] = []
    one = found(
        recipient="bob@mine.example",
        told=Told(RoutedBy.POSTFIX, "local", "mine.example", "bob@mine.example"),
        rules={"recipient": {"away.example": {"mode": "reject"}}},
        forecast=FINE,
        asked=asked,
        expander=lambda _: expansion,
    )
    assert [question.nexthop for question in asked] == ["local.example"]
    assert (one.assessed, exit_status(one)) == (False, 0)
    assert "Becomes  bob@away.example, next hop away.example" in as_text(one, None, {}, [])
