"""What a forecast leads to: the section "Rules and actions" of the design, row by row."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from requiretls_milter.config import Rules
from requiretls_milter.model import (
    LOCAL_FORECAST,
    Action,
    Decision,
    Forecast,
    Outcome,
    Reason,
    Requirement,
    SmtpReply,
    Standing,
    unknown_forecast,
)
from requiretls_milter.rules import (
    MAX_REPLY_TEXT,
    Rule,
    RuleSet,
    Why,
    decide,
    decide_message,
    exemption,
)

REQUIRETLS, NO, NONE = Requirement.REQUIRETLS, Requirement.TLS_REQUIRED_NO, Requirement.NONE
ACCEPT, DEFER, REJECT = Action.ACCEPT, Action.DEFER, Action.REJECT
NOW = 1_800_000_000.0


def rule(mode: str, **keys: object) -> Rule:
    return RuleSet(Rules.model_validate({"mode": mode, **keys})).find("", "", "")


def forecast(status: str, reason: Reason, **more: Any) -> Forecast:
    outcome = {"2": Outcome.DELIVER, "4": Outcome.DEFER, "5": Outcome.BOUNCE}[status[0]]
    return Forecast(status, outcome, reason, mx="mx1.example.org", **more)


def decided(chosen: Rule, result: Forecast, **more: Any) -> Decision:
    arguments: dict[str, Any] = {
        "asked": REQUIRETLS,
        "carried": REQUIRETLS,
        "standing": Standing.TRUSTED,
        "null_sender": False,
        "domain": "example.org",
        "now": NOW,
        **more,
    }
    return decide(chosen, result, **arguments)


NOT_OFFERED = forecast("5.7.30", Reason.REQUIRETLS_NOT_OFFERED)
NOT_VERIFIED = forecast("5.7.10", Reason.CERTIFICATE_NOT_VERIFIED)
HANDSHAKE = forecast("4.7.5", Reason.TLS_HANDSHAKE_FAILED)
GOOD = forecast("2.0.0", Reason.OK, compliant=True)
UNVERIFIED = forecast("2.0.0", Reason.NONCOMPLIANT_UNVERIFIED, compliant=False)
NOT_OFFERED_SENT = forecast("2.0.0", Reason.NONCOMPLIANT_NOT_OFFERED, compliant=False)
UNKNOWN = unknown_forecast("")
ALL = (
    NOT_OFFERED,
    NOT_VERIFIED,
    HANDSHAKE,
    GOOD,
    UNVERIFIED,
    NOT_OFFERED_SENT,
    UNKNOWN,
    LOCAL_FORECAST,
    forecast("4.4.1", Reason.UNREACHABLE),
    forecast("5.4.4", Reason.NO_SUCH_DOMAIN),
)


# ---------------------------------------------------------------- permanent and temporary


@pytest.mark.parametrize(
    ("mode", "result", "action", "reply"),
    [
        ("reject", NOT_OFFERED, REJECT, "550 5.7.30"),
        ("reject", NOT_VERIFIED, REJECT, "550 5.7.10"),
        ("reject", HANDSHAKE, ACCEPT, ""),
        ("reject", GOOD, ACCEPT, ""),
        ("defer", NOT_OFFERED, DEFER, "451 4.7.30"),
        ("defer", NOT_VERIFIED, DEFER, "451 4.7.10"),
        ("defer", HANDSHAKE, DEFER, "451 4.7.5"),
        ("defer", forecast("4.7.10", Reason.MTA_POLICY_INVALID), DEFER, "451 4.7.10"),
        ("defer", GOOD, ACCEPT, ""),
    ],
)
def test_modes_reject_and_defer_answer_as_the_table_says(
    mode: str, result: Forecast, action: Action, reply: str
) -> None:
    decision = decided(rule(mode), result)
    assert decision.action is action
    assert _code(decision.reply) == reply


def test_reject_defers_a_temporary_failure_where_on_temporary_says_so() -> None:
    decision = decided(rule("reject", on_temporary="defer"), HANDSHAKE)
    assert (decision.action, _code(decision.reply)) == (DEFER, "451 4.7.5")


@pytest.mark.parametrize("mode", ["off", "monitor"])
@pytest.mark.parametrize("result", ALL)
def test_off_and_monitor_accept_everything(mode: str, result: Forecast) -> None:
    chosen = rule(mode, on_temporary="defer", on_unknown="defer", on_noncompliant="refuse")
    assert decided(chosen, result, carried=NONE).action is ACCEPT


@pytest.mark.parametrize("mode", ["defer", "reject"])
@pytest.mark.parametrize(
    "result",
    [
        forecast("4.4.1", Reason.UNREACHABLE),
        forecast("4.4.2", Reason.UNREACHABLE),
        forecast("4.4.3", Reason.DNS_FAILURE),
        forecast("5.1.0", Reason.NULL_MX),
        forecast("5.4.4", Reason.NO_SUCH_DOMAIN),
        forecast("5.4.6", Reason.MAIL_LOOP),
        forecast("4.3.2", Reason.SERVER_REJECTS),
        forecast("5.7.1", Reason.SERVER_REJECTS),
        forecast("5.7.30", Reason.SERVER_REJECTS),
        forecast("4.7.0", Reason.SERVER_REJECTS),
        forecast("5.7.8", Reason.CERTIFICATE_NOT_VERIFIED),
    ],
)
def test_what_is_not_about_tls_and_servers_own_codes_are_left_to_the_mta(
    mode: str, result: Forecast
) -> None:
    chosen = rule(mode, on_temporary="defer", on_unknown="defer", on_noncompliant="refuse")
    decision = decided(chosen, result)
    assert (decision.action, decision.why) == (ACCEPT, Why.LEFT_TO_MTA)


@pytest.mark.parametrize("mode", ["defer", "reject"])
@pytest.mark.parametrize("carried", [REQUIRETLS, NONE])
@pytest.mark.parametrize(
    ("result", "reply"),
    [
        (forecast("4.4.1", Reason.UNREACHABLE), "451 4.4.1"),
        (forecast("4.4.3", Reason.DNS_FAILURE), "451 4.4.3"),
        (forecast("4.3.2", Reason.SERVER_REJECTS), "451 4.4.1"),
        (forecast("4.7.0", Reason.SERVER_REJECTS), "451 4.4.1"),
        (forecast("5.1.0", Reason.NULL_MX), ""),
        (forecast("5.4.4", Reason.NO_SUCH_DOMAIN), ""),
        (forecast("5.7.1", Reason.SERVER_REJECTS), ""),
    ],
)
def test_while_no_server_can_be_reached_the_client_tries_again_if_on_unreachable_says_so(
    mode: str, carried: Requirement, result: Forecast, reply: str
) -> None:
    """The MTA would deliver later by its own settings; what fails for good it never delivers."""
    decision = decided(rule(mode, on_unreachable="defer"), result, carried=carried)
    assert _code(decision.reply) == reply
    assert decision.why == (Why.UNREACHABLE if reply else Why.LEFT_TO_MTA)


def test_on_unreachable_says_nothing_of_failures_of_tls() -> None:
    chosen = rule("reject", on_unreachable="defer")
    assert (decided(chosen, HANDSHAKE).action, decided(chosen, HANDSHAKE).why) == (
        ACCEPT,
        Why.TEMPORARY,
    )


@pytest.mark.parametrize("mode", ["defer", "reject"])
@pytest.mark.parametrize("asked", [NO, NONE])
@pytest.mark.parametrize("result", ALL)
def test_mail_that_does_not_ask_requiretls_is_never_acted_on(
    mode: str, asked: Requirement, result: Forecast
) -> None:
    chosen = rule(mode, on_temporary="defer", on_unknown="defer", on_noncompliant="refuse")
    assert decided(chosen, result, asked=asked, carried=asked).action is ACCEPT


@pytest.mark.parametrize("mode", ["defer", "reject"])
@pytest.mark.parametrize("carried", [REQUIRETLS, NO, NONE])
@pytest.mark.parametrize("result", ALL)
def test_r07_the_null_sender_is_never_refused_or_deferred(
    mode: str, carried: Requirement, result: Forecast
) -> None:
    chosen = rule(mode, on_temporary="defer", on_unknown="defer", on_noncompliant="refuse")
    decision = decided(chosen, result, null_sender=True, carried=carried)
    assert (decision.action, decision.why) == (ACCEPT, Why.NULL_SENDER)


@pytest.mark.parametrize("mode", ["defer", "reject"])
@pytest.mark.parametrize("result", ALL)
def test_a_stranger_is_never_refused_or_deferred(mode: str, result: Forecast) -> None:
    chosen = rule(mode, on_temporary="defer", on_unknown="defer", on_noncompliant="refuse")
    decision = decided(chosen, result, standing=Standing.OTHER, carried=NONE)
    assert (decision.action, decision.why) == (ACCEPT, Why.NOT_ENFORCED)


@pytest.mark.parametrize("mode", ["defer", "reject"])
@pytest.mark.parametrize("carried", [REQUIRETLS, NO, NONE])
def test_r19_local_recipients_are_accepted(mode: str, carried: Requirement) -> None:
    assert decided(rule(mode), LOCAL_FORECAST, carried=carried).action is ACCEPT


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, None),
        ({"rule": rule("monitor")}, Why.MODE),
        ({"rule": rule("off"), "null_sender": True}, Why.MODE),
        ({"asked": NONE, "null_sender": True}, Why.NOT_ASKED),
        ({"asked": NO}, Why.NOT_ASKED),
        ({"null_sender": True, "standing": Standing.OTHER}, Why.NULL_SENDER),
        ({"standing": Standing.OTHER, "local": True}, Why.NOT_ENFORCED),
        ({"local": True}, Why.LOCAL),
    ],
)
def test_whether_we_may_act_is_known_before_there_is_a_forecast(
    changed: dict[str, Any], why: Why | None
) -> None:
    case = {
        "rule": rule("reject"),
        "asked": REQUIRETLS,
        "standing": Standing.TRUSTED,
        "null_sender": False,
        "local": False,
        **changed,
    }
    assert exemption(**case) is why


@pytest.mark.parametrize("mode", ["off", "monitor", "defer", "reject"])
@pytest.mark.parametrize("standing", Standing)
@pytest.mark.parametrize("null_sender", [False, True])
@pytest.mark.parametrize("asked", [REQUIRETLS, NO, NONE])
@pytest.mark.parametrize("result", ALL)
def test_a_decision_agrees_with_what_was_known_before(
    mode: str, standing: Standing, null_sender: bool, asked: Requirement, result: Forecast
) -> None:
    chosen = rule(mode, on_temporary="defer", on_unknown="defer", on_noncompliant="refuse")
    local = result is LOCAL_FORECAST
    why = exemption(chosen, asked=asked, standing=standing, null_sender=null_sender, local=local)
    decision = decided(chosen, result, asked=asked, standing=standing, null_sender=null_sender)
    if why is not None:
        assert (decision.action, decision.why) == (ACCEPT, why)
    else:
        assert decision.why not in (Why.MODE, Why.NOT_ASKED, Why.NULL_SENDER, Why.NOT_ENFORCED)


# ---------------------------------------------------------------- unknown, noncompliant


@pytest.mark.parametrize(
    ("on_unknown", "carried", "action"),
    [
        ("auto", REQUIRETLS, ACCEPT),
        ("auto", NONE, DEFER),
        ("accept", REQUIRETLS, ACCEPT),
        ("accept", NONE, ACCEPT),
        ("defer", REQUIRETLS, DEFER),
        ("defer", NONE, DEFER),
    ],
)
@pytest.mark.parametrize("mode", ["defer", "reject"])
def test_an_unknown_forecast_is_deferred_if_the_mta_does_not_keep_the_promise(
    mode: str, on_unknown: str, carried: Requirement, action: Action
) -> None:
    decision = decided(rule(mode, on_unknown=on_unknown), UNKNOWN, carried=carried)
    assert decision.action is action
    assert _code(decision.reply) == ("451 4.7.0" if action is DEFER else "")


@pytest.mark.parametrize(
    ("on_noncompliant", "carried", "refused"),
    [
        ("auto", REQUIRETLS, False),
        ("auto", NONE, True),
        ("accept", NONE, False),
        ("refuse", REQUIRETLS, True),
        ("refuse", NONE, True),
    ],
)
@pytest.mark.parametrize(
    ("mode", "result", "reply"),
    [
        ("reject", UNVERIFIED, "550 5.7.10"),
        ("reject", NOT_OFFERED_SENT, "550 5.7.30"),
        ("defer", UNVERIFIED, "451 4.7.10"),
        ("defer", NOT_OFFERED_SENT, "451 4.7.30"),
        (
            "reject",
            forecast("2.0.0", Reason.NONCOMPLIANT_MX_INSECURE, compliant=False),
            "550 5.7.10",
        ),
    ],
)
def test_a_noncompliant_delivery_is_refused_where_the_milter_is_the_enforcement(
    on_noncompliant: str,
    carried: Requirement,
    refused: bool,
    mode: str,
    result: Forecast,
    reply: str,
) -> None:
    decision = decided(rule(mode, on_noncompliant=on_noncompliant), result, carried=carried)
    assert _code(decision.reply) == (reply if refused else "")
    assert (decision.action is ACCEPT) is not refused


def test_a_delivery_of_unknown_compliance_is_no_noncompliant_one() -> None:
    result = forecast("2.0.0", Reason.OK, compliant=None)
    assert decided(rule("reject", on_noncompliant="refuse"), result, carried=NONE).action is ACCEPT


# ---------------------------------------------------------------- contradiction, downgrade


@pytest.mark.parametrize("result", [r for r in ALL if r is not LOCAL_FORECAST])
def test_tls_required_no_against_a_rule_is_refused_since_nothing_else_keeps_the_promise(
    result: Forecast,
) -> None:
    for mode in ("reject", "defer"):
        decision = decided(rule(mode), result, carried=NO)
        assert (_code(decision.reply), decision.why) == ("550 5.7.10", Why.CONTRADICTION)
    assert decided(rule("monitor"), result, carried=NO).action is ACCEPT


@pytest.mark.parametrize(
    ("ago", "code"),
    [
        (0.0, "451 4.7.30"),
        (431_999.0, "451 4.7.30"),
        (432_000.0, "550 5.7.30"),
        (-5.0, "451 4.7.30"),
    ],
)
def test_r58_what_was_offered_until_lately_defers_for_the_grace_and_says_so(
    ago: float, code: str
) -> None:
    result = forecast("5.7.30", Reason.REQUIRETLS_NOT_OFFERED, downgraded_at=NOW - ago)
    decision = decided(rule("reject"), result)
    assert _code(decision.reply) == code
    assert decision.reply is not None
    assert ("until recently" in decision.reply.text) is code.startswith("451")


def test_a_grace_of_zero_seconds_is_none() -> None:
    result = forecast("5.7.30", Reason.REQUIRETLS_NOT_OFFERED, downgraded_at=NOW)
    assert decided(rule("reject", downgrade_grace=0.0), result).action is REJECT


def test_a_noncompliant_delivery_after_a_downgrade_is_deferred_too() -> None:
    result = forecast(
        "2.0.0", Reason.NONCOMPLIANT_UNVERIFIED, compliant=False, downgraded_at=NOW - 60
    )
    decision = decided(rule("reject"), result, carried=NONE)
    assert (_code(decision.reply), decision.why) == ("451 4.7.10", Why.DOWNGRADE)


# ---------------------------------------------------------------- the reply


def test_the_reply_tells_what_is_wrong_and_with_which_server() -> None:
    decision = decided(rule("reject"), NOT_OFFERED)
    assert decision.reply == SmtpReply(
        550,
        "5.7.30",
        "REQUIRETLS cannot be honoured for example.org: mx1.example.org does not offer REQUIRETLS",
    )


EVERY = list(
    itertools.product(
        ["defer", "reject"], Reason, ["2.0.0", "4.7.5", "4.7.10", "5.7.10", "5.7.30"], [True, False]
    )
)


@pytest.mark.parametrize("carried", [REQUIRETLS, NO, NONE])
def test_r62_every_reply_has_one_class_and_is_one_bounded_line_of_printable_ascii(
    carried: Requirement,
) -> None:
    hostile = "exämple\r\n250 ok\0%s" + "x" * 5000
    seen = 0
    for mode, reason, status, downgraded in EVERY:
        chosen = rule(mode, on_temporary="defer", on_unknown="defer", on_noncompliant="refuse")
        result = Forecast(
            status,
            Outcome.DELIVER if status == "2.0.0" else Outcome.BOUNCE,
            reason,
            mx="mx.\xff\n" + "y" * 5000,
            compliant=False if status == "2.0.0" else None,
            downgraded_at=NOW if downgraded else 0.0,
        )
        reply = decided(chosen, result, carried=carried, domain=hostile).reply
        if reply is None:
            continue
        seen += 1
        assert str(reply.code)[0] == reply.enhanced[0]
        assert reply.code in (451, 550)
        assert reply.text.isascii()
        assert reply.text.isprintable()
        assert len(reply.text) <= MAX_REPLY_TEXT
    assert seen > 100


# ---------------------------------------------------------------- the message


def refused(action: Action, text: str, why: Why = Why.WILL_FAIL) -> Decision:
    code, enhanced = (550, "5.7.30") if action is REJECT else (451, "4.7.5")
    return Decision(action, why, SmtpReply(code, enhanced, text))


PASSED = Decision(ACCEPT, Why.WILL_DELIVER)


@pytest.mark.parametrize(
    ("decisions", "action", "text"),
    [
        ([], ACCEPT, None),
        ([PASSED], ACCEPT, None),
        ([refused(REJECT, "a")], REJECT, "a"),
        ([refused(REJECT, "a"), refused(REJECT, "b")], REJECT, "a"),
        ([refused(REJECT, "a"), PASSED], ACCEPT, None),
        ([PASSED, refused(DEFER, "a")], ACCEPT, None),
        ([refused(DEFER, "a"), refused(DEFER, "b")], DEFER, "a"),
        ([refused(REJECT, "a"), refused(DEFER, "b")], DEFER, "b"),
        ([PASSED, refused(REJECT, "a", Why.CONTRADICTION)], REJECT, "a"),
    ],
)
def test_a_message_is_refused_at_its_end_only_if_all_recipients_would_be(
    decisions: list[Decision], action: Action, text: str | None
) -> None:
    decision = decide_message(decisions)
    assert decision.action is action
    assert (decision.reply.text if decision.reply else None) == text


def _code(reply: SmtpReply | None) -> str:
    return f"{reply.code} {reply.enhanced}" if reply is not None else ""
