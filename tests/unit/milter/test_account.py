"""What is counted and logged of a message."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.typing import EventDict

from requiretls_milter.config import Config
from requiretls_milter.milter import account
from requiretls_milter.milter.transaction import Recipient, Settings, SmtpClient, Transaction
from requiretls_milter.model import Action, Capability, Forecast, Outcome, Reason, Requirement
from requiretls_milter.telemetry.counting import Counters

TRUSTED = SmtpClient(trusted=True, capability=Capability.REQUIRETLS)
NOT_OFFERED = Forecast(
    "5.7.30", Outcome.BOUNCE, Reason.REQUIRETLS_NOT_OFFERED, compliant=None, mx="mx.example.org"
)
UNVERIFIED = Forecast(
    "2.0.0", Outcome.DELIVER, Reason.NONCOMPLIANT_UNVERIFIED, compliant=False, mx="mx.example.org"
)
IDENTITY = {"queue_id": "4XyZ1"}
NOW = 1_000_000.0


def message(*parameters: bytes, **config: Any) -> Transaction:
    settings = Settings(Config.model_validate(config))
    return Transaction(settings, TRUSTED, "<a@x.test>", parameters)


def recipient(
    one: Transaction, address: str = "<bob@example.org>", forecast: Forecast | None = NOT_OFFERED
) -> Recipient:
    """A recipient that the end of the message decides."""
    added = one.add_recipient(address, "smtp", "example.org")
    if added.rule is not None:
        one.decide(added, forecast, NOW)
    return added


def counted(counters: Counters) -> dict[str, float]:
    return {
        f"{name}{{{','.join(labels)}}}": value for name, labels, value in counters.totals().counters
    }


def test_ordinary_mail_counts_once_with_all_its_recipients() -> None:
    counters, one = Counters(), message()
    for number in range(3):
        recipient(one, f"<{number}@example.org>")
    assert one.ordinary
    account.count_ordinary(counters, one)
    assert counted(counters) == {
        "messages_total{none,accept}": 1,
        "requirement_sources_total{none}": 1,
        "recipients_total{none,accept}": 3,
    }


@pytest.mark.parametrize("recipients", [0, 2])
def test_ordinary_mail_counts_nothing_without_recipients_or_with_mode_off(recipients: int) -> None:
    counters = Counters()
    one = message(rules={"mode": "off"}) if recipients else message()
    for number in range(recipients):
        recipient(one, f"<{number}@example.org>")
    account.count_ordinary(counters, one)
    assert counted(counters) == {}


def test_a_recipient_counts_with_its_forecast_and_its_domain() -> None:
    counters = Counters(("example.org",))
    one = message(b"REQUIRETLS", rules={"recipient": {"example.org": {"mode": "reject"}}})
    account.count_recipient(counters, one, recipient(one))
    account.count_message(counters, one, Action.REJECT)
    assert counted(counters) == {
        "recipients_total{requiretls,reject}": 1,
        "forecasts_total{requiretls,5.7.30,requiretls_not_offered}": 1,
        "domain_forecasts_total{example.org,5.7.30}": 1,
        "messages_total{requiretls,reject}": 1,
        "requirement_sources_total{esmtp}": 1,
    }


@pytest.mark.parametrize(("mode", "accepted"), [("monitor", True), ("reject", False)])
def test_a_noncompliant_delivery_counts_only_if_it_is_accepted(mode: str, accepted: bool) -> None:
    counters = Counters()
    one = message(b"REQUIRETLS", rules={"mode": mode, "on_noncompliant": "refuse"})
    account.count_recipient(counters, one, recipient(one, forecast=UNVERIFIED))
    name = "noncompliant_deliveries_total{noncompliant_unverified}"
    assert (name in counted(counters)) is accepted


def test_a_recipient_whose_rule_is_off_counts_nowhere() -> None:
    counters = Counters()
    one = message(b"REQUIRETLS", rules={"mode": "off"})
    account.count_recipient(counters, one, recipient(one))
    account.count_message(counters, one, Action.ACCEPT)
    assert counted(counters) == {}


def test_r17_a_lost_requirement_counts() -> None:
    counters, one = Counters(), message()
    recipient(one)
    one.add_field("received", b"from a by b with ESMTPS (requiretls)")
    account.count_message(counters, one, Action.ACCEPT)
    assert counted(counters)["requirement_lost_total{}"] == 1


def test_a_recipient_s_line_has_every_key_of_the_contract(logged: list[EventDict]) -> None:
    one = message(b"REQUIRETLS", rules={"mode": "reject"})
    account.log_recipient(IDENTITY, "TLSv1.3", one, recipient(one))
    (line,) = logged
    assert line["event"] == "recipient"
    assert line["log_level"] == "info"
    expected = {
        "queue_id": "4XyZ1",
        "sender": "<a@x.test>",
        "to": "<bob@example.org>",
        "client": "trusted",
        "requirement": "requiretls",
        "source": "esmtp",
        "carried": "requiretls",
        "nexthop": "example.org",
        "transport": "smtp",
        "tls_version": "TLSv1.3",
        "forecast": "5.7.30",
        "reason": "requiretls_not_offered",
        "compliant": "",
        "mx": "mx.example.org",
        "action": "reject",
        "why": "will_fail",
        "waited": 0.0,
    }
    assert {key: line[key] for key in expected} == expected
    assert line["reply"].startswith("550 5.7.30 REQUIRETLS cannot be honoured for example.org")
    assert {"tls", "text"} <= line.keys()
    assert "downgraded" not in line


def test_a_downgrade_is_told_in_seconds(logged: list[EventDict]) -> None:
    one = message(b"REQUIRETLS")
    since = Forecast(
        "5.7.30", Outcome.BOUNCE, Reason.REQUIRETLS_NOT_OFFERED, downgraded_at=NOW - 3600
    )
    account.log_recipient(IDENTITY, "", one, recipient(one, forecast=since))
    assert logged[0]["downgraded"] == 3600


def test_a_recipient_without_a_forecast_has_no_line(logged: list[EventDict]) -> None:
    one = message()
    account.log_recipient(IDENTITY, "", one, recipient(one))
    assert logged == []


def test_what_only_a_survey_asked_is_logged_for_debugging_alone(logged: list[EventDict]) -> None:
    one = message(probe={"plain_mail": "full"})
    added = one.add_recipient("<bob@example.org>", "smtp", "example.org")
    one.decide(added, NOT_OFFERED, NOW)
    assert added.asked.requirement is Requirement.NONE
    account.log_recipient(IDENTITY, "", one, added)
    assert [line["log_level"] for line in logged] == ["debug"]


@pytest.mark.parametrize(
    ("fields", "remarkable"),
    [
        ((), False),
        ((("tls-required", b"No"),), False),
        ((("tls-required", b"maybe"),), True),
        ((("tls-required", b"No"), ("tls-required", b"No")), True),
        ((("x-requiretls", b"forged"),), True),
        ((("received", b"(requiretls)"),), True),
    ],
)
def test_a_message_has_a_line_if_something_in_it_is_remarkable(
    fields: tuple[tuple[str, bytes], ...], remarkable: bool, logged: list[EventDict]
) -> None:
    one = message()
    recipient(one)
    for name, value in fields:
        one.add_field(name, value)
    account.log_message(IDENTITY, one, Action.ACCEPT)
    assert [line["event"] for line in logged] == (["message"] if remarkable else [])
