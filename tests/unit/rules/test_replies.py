"""What the client reads of a decision: one line that says for which domain, and what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from requiretls_milter.config import Rules
from requiretls_milter.model import (
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
from requiretls_milter.rules import RuleSet, Why, decide, decide_message

NOW = 1_800_000_000.0
REQUIRETLS, NO, NONE = Requirement.REQUIRETLS, Requirement.TLS_REQUIRED_NO, Requirement.NONE


def decision(
    forecast: Forecast, *, carried: Requirement = NONE, by_rule: bool = False, **keys: Any
) -> Decision:
    """For mail to example.org that asks REQUIRETLS of an MTA that does not know it."""
    rules = Rules.model_validate({"mode": "reject", "on_temporary": "defer", **keys})
    return decide(
        RuleSet(rules).find("", "", ""),
        forecast,
        asked=REQUIRETLS,
        carried=carried,
        standing=Standing.TRUSTED,
        null_sender=False,
        domain="example.org",
        now=NOW,
        by_rule=by_rule,
    )


def reply(forecast: Forecast, **more: Any) -> SmtpReply:
    found = decision(forecast, **more).reply
    assert found is not None
    return found


def fails(reason: Reason, status: str = "5.7.10", **more: Any) -> Forecast:
    outcome = {"2": Outcome.DELIVER, "4": Outcome.DEFER, "5": Outcome.BOUNCE}[status[0]]
    return Forecast(status, outcome, reason, **{"mx": "mx1.example.org", **more})


# ---------------------------------------------------------------- what is wrong

OF_A_SERVER = [
    Reason.MX_NOT_IN_MTA_STS_POLICY,
    Reason.STARTTLS_NOT_OFFERED,
    Reason.STARTTLS_REFUSED,
    Reason.TLS_HANDSHAKE_FAILED,
    Reason.CERTIFICATE_NOT_VERIFIED,
    Reason.REQUIRETLS_NOT_OFFERED,
    Reason.TLS_LEVEL_DOES_NOT_VERIFY,
    Reason.NO_TLSA_RECORDS,
]
OF_A_DOMAIN = [
    Reason.MX_LOOKUP_INSECURE,
    Reason.MTA_POLICY_INVALID,
    Reason.POLICY_LOOKUP_FAILED,
    Reason.MX_UNSIGNED,
]


@pytest.mark.parametrize("reason", [*OF_A_SERVER, *OF_A_DOMAIN])
def test_the_reply_names_the_domain_and_what_is_wrong_in_words_of_its_own(reason: Reason) -> None:
    text = reply(fails(reason)).text
    assert text.startswith("REQUIRETLS cannot be honoured for example.org: ")
    assert "would fail" not in text, "what is said where there is nothing better"
    assert ("mx1.example.org" in text) is (reason in OF_A_SERVER)
    assert "{" not in text


@pytest.mark.parametrize("reason", OF_A_SERVER)
def test_a_server_without_a_name_is_the_domains(reason: Reason) -> None:
    assert "its server" in reply(fails(reason, mx="")).text


def test_what_has_no_sentence_is_a_delivery_that_would_fail() -> None:
    text = reply(fails(Reason.NULL_MX)).text
    assert text.endswith(": delivery to mx1.example.org would fail")


def test_what_may_be_otherwise_later_does_not_hold_now() -> None:
    temporary = reply(fails(Reason.TLS_HANDSHAKE_FAILED, "4.7.5"))
    assert (temporary.code, temporary.enhanced) == (451, "4.7.5")
    assert "cannot be honoured now for example.org" in temporary.text
    unknown = reply(unknown_forecast(""), on_unknown="defer")
    assert (unknown.code, unknown.enhanced) == (451, "4.7.0")
    assert "cannot be honoured now for example.org" in unknown.text
    assert "found out in time" in unknown.text


@pytest.mark.parametrize(
    ("reason", "enhanced", "named"),
    [
        (Reason.NONCOMPLIANT_UNVERIFIED, "5.7.10", True),
        (Reason.NONCOMPLIANT_MX_INSECURE, "5.7.10", False),
        (Reason.NONCOMPLIANT_NOT_OFFERED, "5.7.30", True),
    ],
)
def test_a_delivery_that_would_not_satisfy_is_refused_for_what_it_lacks(
    reason: Reason, enhanced: str, named: bool
) -> None:
    found = reply(fails(reason, "2.0.0", compliant=False))
    assert (found.code, found.enhanced) == (550, enhanced)
    assert ("mx1.example.org" in found.text) is named
    assert "would fail" not in found.text


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (Reason.UNREACHABLE, "mx1.example.org cannot be reached"),
        (Reason.DNS_FAILURE, "its DNS does not answer"),
        (Reason.SERVER_REJECTS, "mx1.example.org turns mail away for now"),
        (Reason.MAIL_LOOP, "delivery to mx1.example.org would fail"),
    ],
)
def test_what_puts_mail_off_until_a_server_is_back_is_told(reason: Reason, said: str) -> None:
    text = reply(fails(reason, "4.4.1"), on_unreachable="defer").text
    assert text == f"REQUIRETLS cannot be honoured now for example.org: {said}"


def test_a_sender_that_did_not_ask_learns_that_a_rule_does() -> None:
    lately = fails(Reason.REQUIRETLS_NOT_OFFERED, "5.7.30", downgraded_at=NOW - 1)
    assert reply(lately, by_rule=True).text == (
        "REQUIRETLS cannot be honoured for example.org: mx1.example.org does not offer REQUIRETLS; "
        "a rule of this system requires REQUIRETLS; until recently more was offered there"
    )


def test_a_contradiction_is_told_with_the_domain() -> None:
    found = decision(fails(Reason.OK, "2.0.0", compliant=True), carried=NO)
    assert found.why == Why.CONTRADICTION
    assert found.reply is not None
    assert (found.reply.code, found.reply.enhanced) == (550, "5.7.10")
    assert "TLS-Required: No" in found.reply.text
    assert "example.org" in found.reply.text


# ---------------------------------------------------------------- for how long it was otherwise


@pytest.mark.parametrize(("age", "code"), [(0.0, 451), (3599.0, 451), (3600.0, 550), (3601.0, 550)])
def test_r58_the_grace_ends_when_its_time_is_over(age: float, code: int) -> None:
    lately = fails(Reason.REQUIRETLS_NOT_OFFERED, "5.7.30", downgraded_at=NOW - age)
    found = decision(lately, downgrade_grace=3600)
    assert found.reply is not None
    assert found.reply.code == code
    assert found.reply.enhanced == ("4.7.30" if code == 451 else "5.7.30")
    assert ("until recently" in found.reply.text) is (code == 451)
    assert found.why == (Why.DOWNGRADE if code == 451 else Why.WILL_FAIL)


def test_r58_mode_defer_says_of_a_downgrade_what_it_says_of_any_failure() -> None:
    lately = fails(Reason.REQUIRETLS_NOT_OFFERED, "5.7.30", downgraded_at=NOW - 1)
    found = decision(lately, mode="defer", downgrade_grace=3600)
    assert (found.action, found.why) == (Action.DEFER, Why.WILL_FAIL)
    assert found.reply is not None
    assert "until recently" not in found.reply.text


# ---------------------------------------------------------------- how long a reply is


@pytest.mark.parametrize("length", [399, 400, 401, 5000])
def test_r62_a_reply_has_400_characters_at_most_and_shows_where_it_was_cut(
    length: int,
) -> None:
    """RFC 5321 section 4.5.3.1.5 allows 512 octets a line."""
    prefix = "REQUIRETLS cannot be honoured for "
    rest = ": mx1.example.org does not offer STARTTLS"
    domain = "x" * (length - len(prefix) - len(rest))
    rule = RuleSet(Rules.model_validate({"mode": "reject"})).find("", "", "")
    found = decide(
        rule,
        fails(Reason.STARTTLS_NOT_OFFERED),
        asked=REQUIRETLS,
        carried=REQUIRETLS,
        standing=Standing.TRUSTED,
        null_sender=False,
        domain=domain,
        now=NOW,
    ).reply
    assert found is not None
    whole = prefix + domain + rest
    assert len(whole) == length
    assert found.text == (whole if length <= 400 else whole[:397] + "...")


def test_r62_of_what_a_stranger_typed_only_printable_ascii_is_repeated() -> None:
    """From the blank to the tilde."""
    rule = RuleSet(Rules.model_validate({"mode": "reject"})).find("", "", "")
    found = decide(
        rule,
        fails(Reason.STARTTLS_NOT_OFFERED),
        asked=REQUIRETLS,
        carried=REQUIRETLS,
        standing=Standing.TRUSTED,
        null_sender=False,
        domain="a b~\x1f\x7f\xe4.test",
        now=NOW,
    ).reply
    assert found is not None
    assert " a b~???.test: " in found.text


# ---------------------------------------------------------------- the message


def test_a_message_whose_recipients_would_be_refused_has_the_first_ones_reply() -> None:
    first, second = (
        decision(fails(Reason.STARTTLS_NOT_OFFERED, mx=name)) for name in ("mx1.test", "mx2.test")
    )
    assert decide_message([first, second]) == first
    assert decide_message([second, first]) == second


def test_a_message_without_recipients_passes_since_nobody_asked() -> None:
    assert decide_message([]) == Decision(Action.ACCEPT, Why.NOT_ASKED)
