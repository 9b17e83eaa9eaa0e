"""What is counted and logged of a message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given
from hypothesis import settings as trials
from hypothesis import strategies as st
from structlog.typing import EventDict

from requiretls_milter.config import Config
from requiretls_milter.milter import account
from requiretls_milter.milter.recipient import Recipient
from requiretls_milter.milter.settings import Settings
from requiretls_milter.milter.transaction import SmtpClient, Transaction
from requiretls_milter.model import Action, Capability, Forecast, Outcome, Reason, Requirement
from requiretls_milter.syntax.expansion import Expansion
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.catalogue import MetricError
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Expanded

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
    account.log_recipients(IDENTITY, "TLSv1.3", one, [recipient(one)])
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
    assert not {"downgraded", "stale"} & line.keys()


def test_a_downgrade_is_told_in_seconds(logged: list[EventDict]) -> None:
    one = message(b"REQUIRETLS")
    since = Forecast(
        "5.7.30", Outcome.BOUNCE, Reason.REQUIRETLS_NOT_OFFERED, downgraded_at=NOW - 3600
    )
    account.log_recipients(IDENTITY, "", one, [recipient(one, forecast=since)])
    assert logged[0]["downgraded"] == 3600


def test_for_how_long_the_life_of_a_forecast_was_over_is_told(logged: list[EventDict]) -> None:
    one = message(b"REQUIRETLS")
    stale = Forecast("2.0.0", Outcome.DELIVER, Reason.OK, compliant=True, stale=7_200.4)
    account.log_recipients(IDENTITY, "", one, [recipient(one, forecast=stale)])
    assert logged[0]["stale"] == 7_200


def test_a_recipient_without_a_forecast_has_no_line(logged: list[EventDict]) -> None:
    one = message()
    account.log_recipients(IDENTITY, "", one, [recipient(one)])
    assert logged == []


def test_what_only_a_survey_asked_is_logged_for_debugging_alone(logged: list[EventDict]) -> None:
    one = message(probe={"plain_mail": "full"})
    added = one.add_recipient("<bob@example.org>", "smtp", "example.org")
    one.decide(added, NOT_OFFERED, NOW)
    assert added.asked.requirement is Requirement.NONE
    account.log_recipients(IDENTITY, "", one, [added])
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


# ---------------------------------------------------------------- the line without structlog


@pytest.fixture
def configured() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    log.set_process("")


TEXT = (
    st.text(max_size=30)
    | st.text(st.sampled_from('ab<>@. ="\\\n\x00'), max_size=30)
    | st.text(st.just("x"), min_size=log.MAX_VALUE - 1, max_size=log.MAX_VALUE + 1)
)
FORECASTS = st.builds(
    Forecast,
    status=st.sampled_from(["2.0.0", "4.7.5", "5.7.30", "unknown"]),
    outcome=st.sampled_from(Outcome),
    reason=st.sampled_from(Reason),
    text=TEXT,
    compliant=st.sampled_from([True, False, None]),
    mx=TEXT,
    tls=st.none() | TEXT,
    downgraded_at=st.sampled_from([0.0, NOW - 60.4]),
    stale=st.sampled_from([0.0, 59.5]),
)


@trials(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
@pytest.mark.usefixtures("configured")
def test_r62_a_recipient_s_line_is_byte_for_byte_that_of_structlog(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    """But for the time, which each takes by itself; also if the journal wants no time."""
    journal, level = data.draw(st.booleans()), data.draw(st.sampled_from(["debug", "info"]))
    monkeypatch.setattr(log, "stderr_is_journal", lambda: journal)
    log.configure("logfmt", level)
    log.set_process(data.draw(st.sampled_from(["", "worker-1"])))
    settings = Settings(Config.model_validate({"rules": {"mode": "reject"}}))
    client = SmtpClient(authenticated=data.draw(st.booleans()), capability=Capability.REQUIRETLS)
    parameters = data.draw(st.sampled_from([(b"REQUIRETLS",), ()]))
    one = Transaction(settings, client, data.draw(TEXT), parameters)
    added = one.add_recipient(data.draw(TEXT), data.draw(TEXT), data.draw(TEXT))
    one.decide(added, data.draw(FORECASTS), NOW)
    added.waited = data.draw(st.sampled_from([0.0, 0.1234567, 12]))
    identity = {"queue_id": data.draw(TEXT)}
    tls_version = data.draw(TEXT)

    def written() -> str:
        account.log_recipients(identity, tls_version, one, [added])
        line = capsys.readouterr().err
        time, blank, rest = line.partition(" ")
        assert journal or not line or time.startswith("timestamp=20")
        return line if journal else blank + rest

    directly = written()
    with monkeypatch.context() as through_structlog:
        through_structlog.setattr(log.LineLogger, "takes", lambda *_: None)
        assert written() == directly


@pytest.mark.usefixtures("configured")
def test_in_json_a_recipient_s_line_goes_through_structlog(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure("json", "info")
    one = message(b"REQUIRETLS")
    account.log_recipients(IDENTITY, "", one, [recipient(one)])
    assert '"event": "recipient"' in capsys.readouterr().err


def test_several_counters_grow_at_once_and_are_checked_like_one() -> None:
    one, each = Counters(["example.org"]), Counters(["example.org"])
    counts = (
        ("messages_total", ("requiretls", "accept")),
        ("domain_forecasts_total", ("example.org", "2.0.0")),
        ("domain_forecasts_total", ("example.net", "2.0.0")),  # counted as "other"
        ("messages_total", ("requiretls", "accept")),
    )
    for _ in range(2):
        one.count(counts, ("requirement_lost_total", ()), 3)
        for metric, labels in counts:
            each.inc(metric, labels)
        each.inc("requirement_lost_total", by=3)
    assert one.totals() == each.totals()
    one.configure([])
    one.count(counts)
    assert counted(one)["domain_forecasts_total{other,2.0.0}"] == 4
    with pytest.raises(MetricError):
        one.count([("no_such_total", ())])


# ---------------------------------------------------------------- recipients that are expanded


def expanded(*addresses: str, mode: str = "monitor") -> tuple[Transaction, Recipient]:
    """A message to a recipient of this host that becomes others."""
    config = {"rules": {"mode": mode}, "mta": {"local_domains": ["mine.test"]}}
    settings = Settings(
        Config.model_validate(config), lambda _: Expansion("us@mine.test", addresses)
    )
    client = SmtpClient(trusted=True, capability=Capability.REQUIRETLS, postfix=True)
    one = Transaction(settings, client, "<a@x.test>", (b"REQUIRETLS",))
    added = one.add_recipient("<us@mine.test>", "local", "mine.test")
    for target in added.expansions:
        target.forecast = NOT_OFFERED if target.question is not None else None
    one.decide(added, None, NOW)
    return one, added


def test_an_expanded_recipient_counts_once_with_its_worst_forecast() -> None:
    counters = Counters()
    one, _ = expanded("bob@example.org", "us@mine.test", "eve@example.net")
    account.count_ended(counters, one, Action.ACCEPT)
    found = counted(counters)
    assert found["recipients_total{requiretls,accept}"] == 1
    assert found["forecasts_total{requiretls,5.7.30,requiretls_not_offered}"] == 1
    assert found["alias_lookups_total{alias}"] == 1


def test_a_recipient_beyond_the_limit_counts_as_a_limit_that_was_met() -> None:
    counters, one = Counters(), message(b"REQUIRETLS")
    added = recipient(one)
    added.expanded = Expanded.TOO_MANY
    account.count_recipient(counters, one, added)
    assert counted(counters)["alias_lookups_total{too_many}"] == 1
    assert counted(counters)["saturated_total{expansions}"] == 1


@pytest.mark.usefixtures("configured")
def test_each_expansion_has_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "info")
    one, added = expanded("bob@example.org", "us@mine.test")
    account.log_recipients(IDENTITY, "", one, [added])
    account.log_expansions(IDENTITY, "", one, [added])
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    shown = ("event", "to", "expansion", "nexthop", "transport", "forecast", "expansions")
    assert [tuple(line.get(key) for key in shown) for line in lines] == [
        ("recipient", "<us@mine.test>", None, "example.org", "smtp", "5.7.30", 2),
        ("expansion", "<us@mine.test>", "bob@example.org", "example.org", "smtp", "5.7.30", None),
        ("expansion", "<us@mine.test>", "us@mine.test", "local", "local", "2.0.0", None),
    ]


@pytest.mark.usefixtures("configured")
def test_a_message_has_no_more_lines_of_expansions_than_postfix_has_for_a_recipient(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure("logfmt", "info")
    addresses = [f"u{number}@example.org" for number in range(600)]
    one, added = expanded(*addresses)
    account.log_expansions(IDENTITY, "", one, [added, added])
    assert capsys.readouterr().err.count("event=expansion") == account.MAX_LOGGED_EXPANSIONS


@pytest.mark.usefixtures("configured")
def test_the_line_says_why_a_recipient_was_not_expanded(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("logfmt", "info")
    one = message(b"REQUIRETLS")
    added = recipient(one)
    added.not_expanded = "hash:/etc/aliases: Permission denied"
    account.log_recipients(IDENTITY, "", one, [added])
    assert 'not_expanded="hash:/etc/aliases: Permission denied"' in capsys.readouterr().err
