"""One message: what is kept of its addresses, when it may wait, what it tells, what it changes."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest

from requiretls_milter.config import Config
from requiretls_milter.milter.recipient import Recipient
from requiretls_milter.milter.requirement import HeaderFindings
from requiretls_milter.milter.settings import Settings
from requiretls_milter.milter.tag import Route, Tag, Tagged, aggregate, winning
from requiretls_milter.milter.transaction import FORECAST_GRACE, SmtpClient, Transaction
from requiretls_milter.model import (
    Action,
    Capability,
    Forecast,
    Needs,
    Outcome,
    Question,
    Reason,
    Requirement,
    Source,
    unknown_forecast,
)

REQUIRETLS, NO, NONE = Requirement.REQUIRETLS, Requirement.TLS_REQUIRED_NO, Requirement.NONE
OURS = SmtpClient(trusted=True, capability=Capability.REQUIRETLS)
STRANGER = SmtpClient(capability=Capability.REQUIRETLS)
NOT_OFFERED = Forecast("5.7.30", Outcome.BOUNCE, Reason.REQUIRETLS_NOT_OFFERED, mx="mx.example.org")
GOOD = Forecast("2.0.0", Outcome.DELIVER, Reason.OK, compliant=True)
NOW = 1_800_000_000.0


def settings(**tables: Any) -> Settings:
    return Settings(Config.model_validate(tables))


def message(
    chosen: Settings,
    *parameters: bytes,
    client: SmtpClient = OURS,
    sender: str = "<a@x.test>",
) -> Transaction:
    return Transaction(chosen, client, sender, parameters)


def state(recipient: Recipient) -> tuple[Forecast | Future[Forecast] | None, bool]:
    """What is being fetched for it, and whether it is decided."""
    return recipient.pending, recipient.decision is not None


def needs(recipient: Recipient) -> Needs:
    assert recipient.question is not None
    return recipient.question.needs


def rcpt(transaction: Transaction, address: str = "bob@example.org") -> Recipient:
    return transaction.add_recipient(f"<{address}>", "smtp", address.partition("@")[2])


# ---------------------------------------------------------------- what the message needs


def test_a_message_that_asks_for_smtputf8_needs_it_only_if_it_uses_it() -> None:
    plain = rcpt(message(settings(), b"REQUIRETLS", b"SMTPUTF8"))
    assert needs(plain) == Needs()
    sender = rcpt(message(settings(), b"REQUIRETLS", b"SMTPUTF8", sender="<gr\u00fcn@x.test>"))
    assert needs(sender) == Needs(smtputf8=True)
    recipient = rcpt(message(settings(), b"REQUIRETLS", b"smtputf8"), "gr\u00fcn@example.org")
    assert needs(recipient) == Needs(smtputf8=True)
    unasked = rcpt(message(settings(), b"REQUIRETLS"), "gr\u00fcn@example.org")
    assert needs(unasked) == Needs()


# ---------------------------------------------------------------- by which transport it goes

MOVED = {"mta": {"route_transport": "smtp-strict"}}


def transports(*recipients: Recipient) -> list[str]:
    return [one.question.transport for one in recipients if one.question is not None]


def test_what_asks_requiretls_is_forecast_for_the_transport_to_which_a_recipe_moves_it() -> None:
    transaction = message(settings(**MOVED), b"REQUIRETLS")
    both = [rcpt(transaction), rcpt(transaction, "eve@example.net")]
    assert transports(*both) == ["smtp-strict"] * 2
    assert transaction.end_of_header() == []
    assert transports(*both) == ["smtp-strict"] * 2


@pytest.mark.parametrize("other", ["ann@plain.example", "ann@here.example"])
def test_a_message_that_a_recipe_leaves_is_forecast_for_the_way_that_it_takes(other: str) -> None:
    rules = {"recipient": {"bank.example": {"require": True, "mode": "reject"}}}
    chosen = settings(rules=rules, **MOVED)
    transaction = message(chosen)
    first = rcpt(transaction, "bob@bank.example")
    assert transports(first) == ["smtp-strict"], "the other one is not known yet"
    transaction.decide_at_rcpt(first, GOOD, NOW)
    mailer = "local" if other.endswith("@here.example") else "smtp"
    transaction.add_recipient(f"<{other}>", mailer, other.partition("@")[2])
    assert transaction.end_of_header() == [first]
    assert transports(first) == ["smtp"]
    assert first.decision is None, "it is decided anew, by what becomes of it"
    lacking = replace(NOT_OFFERED, status="5.7.10", reason=Reason.CERTIFICATE_NOT_VERIFIED)
    transaction.decide(first, lacking, NOW)
    assert transaction.decide_message().action is Action.ACCEPT, "the other recipient is accepted"
    tag = transaction.tag()
    assert tag is not None
    assert tag.route is Route.MIXED


def test_a_recipient_that_was_refused_keeps_no_message_from_being_moved() -> None:
    rules = {"recipient": {"bank.example": {"require": True}}}
    transaction = message(settings(rules=rules, **MOVED))
    first, other = rcpt(transaction, "bob@bank.example"), rcpt(transaction, "ann@plain.example")
    other.gone = True
    assert transaction.end_of_header() == []
    assert transports(first) == ["smtp-strict"]


def test_the_header_may_need_smtputf8_for_every_recipient() -> None:
    transaction = message(settings(), b"REQUIRETLS", b"SMTPUTF8")
    recipients = [rcpt(transaction), rcpt(transaction, "eve@example.net")]
    assert transaction.end_of_header() == []
    transaction.findings.non_ascii = True
    assert transaction.end_of_header() == recipients
    assert [needs(one) for one in recipients] == [Needs(smtputf8=True)] * 2
    assert transaction.end_of_header() == []


def test_one_recipient_needs_smtputf8_for_all_unless_it_was_refused() -> None:
    transaction = message(settings(), b"REQUIRETLS", b"SMTPUTF8")
    first, other = rcpt(transaction), rcpt(transaction, "gr\u00fcn@example.net")
    assert needs(first) == Needs()
    assert transaction.end_of_header() == [first]
    assert needs(first) == needs(other) == Needs(smtputf8=True)
    other.gone = True
    assert transaction.end_of_header() == [first]
    assert needs(first) == Needs()


def test_mail_of_sendmail_asks_for_smtputf8_by_itself() -> None:
    transaction = Transaction(settings(), OURS, "a@x.test", (), by_smtp=False)
    transaction.add_field("require-tls-esmtp", b"yes")
    recipient = rcpt(transaction)
    transaction.findings.non_ascii = True
    assert transaction.end_of_header() == [recipient]
    assert needs(recipient) == Needs(smtputf8=True)


def test_ordinary_mail_has_no_question_whatever_it_needs() -> None:
    transaction = message(settings(), b"SMTPUTF8", b"SIZE=5000")
    recipient = rcpt(transaction, "gr\u00fcn@example.org")
    transaction.findings.non_ascii = True
    assert transaction.end_of_header() == []
    assert (recipient.question, recipient.rule) == (None, None)


def test_the_declared_size_is_part_of_the_question() -> None:
    assert needs(rcpt(message(settings(), b"REQUIRETLS", b"SIZE=5000"))) == Needs(size=5000)


def test_what_a_client_says_of_its_message_does_not_decide_where_the_milter_alone_enforces() -> (
    None
):
    """Else "too large for that server" would be accepted, and a small message go out in clear."""
    alone = settings(rules={"mode": "reject", "require": True})
    transaction = message(alone, b"SMTPUTF8", b"SIZE=9999999999", sender="<gr\u00fcn@x.test>")
    recipient = rcpt(transaction, "gr\u00fcn@example.org")
    assert recipient.question == Question("example.org", "smtp", REQUIRETLS, NONE)


def test_tls_required_no_needs_the_same_of_an_mta_that_does_not_know_it() -> None:
    transaction = message(
        settings(), b"SMTPUTF8", b"SIZE=5000", client=SmtpClient(capability=Capability.NOTHING)
    )
    transaction.add_field("tls-required", b"No")
    recipient = rcpt(transaction)
    transaction.findings.non_ascii = True
    assert transaction.end_of_header() == [recipient]
    assert recipient.question == Question(
        "example.org", "smtp", NO, NONE, Needs(smtputf8=True, size=5000)
    )


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize("length", [998, 1000, 1001, 5000])
def test_of_an_address_1000_characters_are_kept_both_ends_of_it(length: int) -> None:
    """RFC 5321 section 4.5.3.1 allows 320; rules go by the domain."""
    domain = "@example.org>"
    address = "<" + "b" * (length - 1 - len(domain)) + domain
    kept = message(settings()).add_recipient(address, "smtp", "example.org").address
    if length <= 1000:
        assert kept == address
    else:
        assert kept == address[:500] + domain


@pytest.mark.parametrize("length", [499, 500, 5000])
def test_of_a_domain_beyond_all_reason_499_characters_are_kept(length: int) -> None:
    long = "<" + "b" * 600 + "@" + "x" * length
    kept = message(settings()).add_recipient(long, "smtp", "example.org").address
    assert kept == long[:500] + "@" + "x" * 499
    assert len(kept) == 1000


@pytest.mark.parametrize(
    ("address", "domain"),
    [
        ("<bob@Example.ORG>", "example.org"),
        ("<bob@B\N{LATIN CAPITAL LETTER U WITH DIAERESIS}cher.example>", "xn--bcher-kva.example"),
        ("<bob@[192.0.2.1]>", "[192.0.2.1]"),
        ("<bob@-Wrong-.Example>", "-wrong-.example"),
        ("<bob>", ""),
    ],
)
def test_a_domain_is_an_a_label_or_what_was_typed_in_lower_case(address: str, domain: str) -> None:
    transaction = message(settings(), b"REQUIRETLS")
    assert transaction.add_recipient(address, "smtp", "mx.test").domain == domain


def test_what_the_mta_understands_goes_before_what_was_typed() -> None:
    transaction = message(settings(), b"REQUIRETLS")
    recipient = transaction.add_recipient("<a.example!bob>", "smtp", "mx.test", "bob@a.example")
    assert (recipient.domain, recipient.address) == ("a.example", "<a.example!bob>")


@pytest.mark.parametrize(
    ("host", "told"),
    [("[broken", "[broken"), ("[" + "x" * 2000, "[" + "x" * 999), ("", "-wrong-.example")],
)
def test_of_a_next_hop_that_cannot_be_understood_1000_characters_are_told(
    host: str, told: str
) -> None:
    transaction = message(settings(), b"REQUIRETLS")
    recipient = transaction.add_recipient("<bob@-Wrong-.Example>", "smtp", host)
    assert recipient.nexthop is None
    assert recipient.nexthop_text == told
    assert recipient.nexthop_error
    assert not recipient.local


# ---------------------------------------------------------------- rules and questions


def test_a_rule_for_the_next_hop_holds_for_its_recipients() -> None:
    chosen = settings(rules={"nexthop": {"mx.test": {"require": True}}})
    transaction = message(chosen)
    by_hop = transaction.add_recipient("<bob@example.org>", "smtp", "[mx.test]:587")
    other = transaction.add_recipient("<bob@example.org>", "smtp", "mx.example")
    assert by_hop.asked.source is Source.RULE
    assert by_hop.question == Question("[mx.test]:587", "smtp", REQUIRETLS, NONE)
    assert by_hop.nexthop_text == "[mx.test]:587"
    assert other.asked.requirement is NONE
    assert other.question is None


def test_a_lost_requirement_is_one_that_the_envelope_does_not_have() -> None:
    for parameters, lost in (((), True), ((b"REQUIRETLS",), False)):
        transaction = message(settings(rules={"honour_lost": True}), *parameters)
        recipient = rcpt(transaction)
        transaction.add_field("received", b"from a (requiretls)")
        transaction.end_of_header()
        assert transaction.lost is lost
        assert recipient.asked.source is (Source.RULE if lost else Source.ESMTP)


def test_postfixs_field_asks_only_where_the_mta_is_said_to_obey_it() -> None:
    for obeyed in (True, False):
        chosen = settings(mta={"requiretls_esmtp_header": obeyed})
        transaction = message(chosen)
        recipient = rcpt(transaction)
        transaction.add_field("require-tls-esmtp", b"yes")
        transaction.end_of_header()
        assert transaction.lost is not obeyed
        assert (recipient.asked.requirement is REQUIRETLS) is obeyed


def test_several_fields_are_read_as_the_profile_reads_them() -> None:
    for profile, asked in (("postfix", NO), ("rfc8689", NONE)):
        transaction = message(settings(mta={"profile": profile}))
        recipient = rcpt(transaction)
        transaction.add_field("tls-required", b"No")
        transaction.add_field("tls-required", b"maybe")
        transaction.end_of_header()
        assert recipient.asked.requirement is asked


def test_what_was_fetched_for_another_question_is_dropped() -> None:
    transaction = message(settings(rules={"require": True}))
    recipient = rcpt(transaction)
    transaction.decide(recipient, GOOD, NOW)
    recipient.pending = Future()
    transaction.add_field("tls-required", b"No")
    assert transaction.end_of_header() == [recipient]
    assert state(recipient) == (None, False)


def test_a_field_that_changes_nothing_of_the_question_leaves_what_was_decided() -> None:
    transaction = message(settings(), b"REQUIRETLS")
    recipient = rcpt(transaction)
    pending: Future[Forecast] = Future()
    recipient.pending = pending
    transaction.decide(recipient, GOOD, NOW)
    transaction.add_field("tls-required", b"No")
    assert transaction.end_of_header() == []
    assert state(recipient) == (pending, True)


def answered(forecast: Forecast) -> Future[Forecast]:
    answer: Future[Forecast] = Future()
    answer.set_result(forecast)
    return answer


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("at_rcpt", [False, True])
def test_an_answer_that_ended_while_the_message_came_in_is_asked_for_anew(
    at_rcpt: bool, known: bool
) -> None:
    """Whether or not the recipient was accepted because of it, or it was known at once."""
    transaction = message(settings(rules={"mode": "reject"}), b"REQUIRETLS")
    recipient = rcpt(transaction)
    forecast = replace(GOOD, valid_until=NOW + 10)
    recipient.pending = answer = forecast if known else answered(forecast)
    if at_rcpt:
        transaction.decide_at_rcpt(recipient, forecast, NOW)
    assert transaction.outdated(NOW + 10 + FORECAST_GRACE - 1) == []
    assert (recipient.pending, recipient.decision is not None) == (answer, at_rcpt)
    assert transaction.outdated(NOW + 10 + FORECAST_GRACE) == [recipient]
    assert state(recipient) == (None, False)
    assert transaction.undecided() == [recipient]
    transaction.decide(recipient, NOT_OFFERED, NOW)
    assert transaction.decide_message().action is Action.REJECT


def test_what_has_no_answer_or_one_without_an_end_is_not_asked_again() -> None:
    transaction = message(settings(rules={"mode": "reject"}), b"REQUIRETLS")
    failed: Future[Forecast] = Future()
    failed.set_exception(RuntimeError("the assessment fails"))
    cancelled: Future[Forecast] = Future()
    cancelled.cancel()
    for answer in (None, Future[Forecast](), failed, cancelled, answered(unknown_forecast(""))):
        rcpt(transaction).pending = answer
    refused = rcpt(transaction)
    refused.pending = replace(NOT_OFFERED, valid_until=NOW)
    transaction.decide_at_rcpt(refused, refused.pending, NOW)
    assert transaction.outdated(NOW + 86_400) == []


# ---------------------------------------------------------------- waiting


def test_only_a_recipient_that_may_still_be_refused_is_worth_a_longer_wait() -> None:
    """A stranger's message is never refused, and what is decided waits no more."""
    chosen = settings(rules={"mode": "reject", "tag_wait": 3.0, "decide_wait": 7.0})
    ours, theirs = message(chosen, b"REQUIRETLS"), message(chosen, b"REQUIRETLS", client=STRANGER)
    for transaction in (ours, theirs):
        rcpt(transaction)
    assert (ours.patience(), theirs.patience()) == (7.0, 3.0)
    ours.decide(ours.recipients[0], GOOD, NOW)
    assert ours.patience() == 3.0
    short = message(settings(rules={"mode": "reject", "tag_wait": 9.0, "decide_wait": 7.0}))
    assert short.patience() == 9.0


def test_a_survey_waits_for_a_forecast_though_nothing_is_asked() -> None:
    transaction = message(settings(probe={"plain_mail": "dns"}))
    recipient = rcpt(transaction)
    assert recipient.assessed
    assert transaction.undecided() == [recipient]
    local = transaction.add_recipient("<me@mine.test>", "local", "mine.test")
    assert not local.assessed, "nothing to survey"


# ---------------------------------------------------------------- deciding


@pytest.mark.parametrize(
    ("lost_at", "seconds"), [(0.0, 0.0), (NOW - 60, 60.0), (NOW, 1.0), (NOW - 0.5, 1.0)]
)
def test_for_how_long_something_has_not_been_offered_is_told_in_seconds_one_at_least(
    lost_at: float, seconds: float
) -> None:
    transaction = message(settings(), b"REQUIRETLS")
    recipient = rcpt(transaction)
    found = Forecast("2.0.0", Outcome.DELIVER, Reason.OK, downgraded_at=lost_at)
    transaction.decide(recipient, found, NOW)
    assert recipient.downgraded == seconds


def test_a_local_recipient_is_delivered_without_a_question() -> None:
    transaction = message(settings(rules={"mode": "reject"}), b"REQUIRETLS")
    recipient = transaction.add_recipient("<me@mine.test>", "local", "mine.test")
    decision = transaction.decide(recipient, None, NOW)
    assert (decision.action, decision.why) == (Action.ACCEPT, "local")
    assert recipient.forecast is not None
    assert recipient.forecast.reason is Reason.LOCAL


def test_the_reply_names_the_domain_or_the_address_that_has_none() -> None:
    for address, named in (("<bob@example.org>", "example.org"), ("<bob>", "<bob>")):
        transaction = message(settings(rules={"mode": "reject"}), b"REQUIRETLS")
        recipient = transaction.add_recipient(address, "smtp", "example.org")
        reply = transaction.decide_at_rcpt(recipient, NOT_OFFERED, NOW).reply
        assert reply is not None
        assert f"for {named}:" in reply.text


def test_a_recipient_that_would_have_been_refused_keeps_the_reason_where_the_message_passes() -> (
    None
):
    transaction = message(settings(rules={"mode": "reject"}), b"REQUIRETLS")
    bad, good = rcpt(transaction, "a@a.example"), rcpt(transaction, "b@b.example")
    transaction.decide(bad, NOT_OFFERED, NOW)
    transaction.decide(good, GOOD, NOW)
    assert transaction.decide_message().action is Action.ACCEPT
    assert bad.decision is not None
    assert (bad.decision.action, bad.decision.why) == (Action.ACCEPT, "will_fail")
    assert bad.decision.reply is None
    assert good.decision is not None
    assert (good.decision.action, good.decision.why) == (Action.ACCEPT, "will_deliver")


def test_a_message_of_which_one_recipient_is_undecided_passes() -> None:
    transaction = message(settings(rules={"mode": "reject"}), b"REQUIRETLS")
    bad = rcpt(transaction, "a@a.example")
    rcpt(transaction, "b@b.example")
    transaction.decide(bad, NOT_OFFERED, NOW)
    decision = transaction.decide_message()
    assert (decision.action, decision.why) == (Action.ACCEPT, "mode")


def test_doubt_defers_nobody_who_is_not_bound_or_gone() -> None:
    chosen = settings(rules={"mode": "reject", "on_unknown": "defer"})
    stranger = message(chosen, b"REQUIRETLS", client=STRANGER)
    rcpt(stranger)
    assert stranger.action_in_doubt() is Action.ACCEPT
    ours = message(chosen, b"REQUIRETLS")
    ours.decide_at_rcpt(rcpt(ours), NOT_OFFERED, NOW)
    assert ours.action_in_doubt() is Action.ACCEPT
    plain = message(chosen)
    rcpt(plain)
    assert plain.action_in_doubt() is Action.ACCEPT


# ---------------------------------------------------------------- mail that does not come by SMTP

TEMPORARY = Forecast("4.7.5", Outcome.DEFER, Reason.CERTIFICATE_NOT_VERIFIED)
ALONE = SmtpClient(trusted=True, capability=Capability.NOTHING, postfix=True)


def local_message(client: SmtpClient, sender: str = "a@x.test", **rules: Any) -> Transaction:
    """A message of sendmail(1) for whose recipients everything is asked."""
    chosen = settings(rules={"mode": "reject", "on_temporary": "defer", **rules})
    return Transaction(chosen, client, sender, (), by_smtp=False)


def decided(transaction: Transaction, *forecasts: Forecast) -> list[tuple[Action, str]]:
    """What is done with recipients of these forecasts, who ask by the header; then the message."""
    recipients = [rcpt(transaction, f"u@d{n}.example") for n in range(len(forecasts))]
    transaction.add_field("require-tls-esmtp", b"yes")
    transaction.end_of_header()
    for recipient, forecast in zip(recipients, forecasts, strict=True):
        assert not transaction.decides_at_rcpt(recipient)
        transaction.decide(recipient, forecast, NOW)
    decision = transaction.decide_message()
    enhanced = decision.reply.enhanced if decision.reply is not None else ""
    if decision.reply is not None:
        assert decision.reply.code // 100 == int(enhanced[0])
    return [
        *((one.decision.action, "") for one in recipients if one.decision is not None),
        (decision.action, enhanced),
    ]


@pytest.mark.parametrize("mode", ["defer", "reject"])
@pytest.mark.parametrize(
    ("forecast", "refused"),
    [(NOT_OFFERED, "5.7.30"), (TEMPORARY, "5.7.5"), (unknown_forecast("no"), "5.7.0")],
)
def test_what_the_milter_alone_keeps_is_refused_and_never_deferred_without_smtp(
    mode: str, forecast: Forecast, refused: str
) -> None:
    found = decided(local_message(ALONE, mode=mode), forecast)
    assert found == [(Action.REJECT, ""), (Action.REJECT, refused)]


@pytest.mark.parametrize("mode", ["defer", "reject"])
@pytest.mark.parametrize("forecast", [TEMPORARY, unknown_forecast("no")])
def test_what_the_mta_keeps_is_accepted_and_never_deferred_without_smtp(
    mode: str, forecast: Forecast
) -> None:
    transaction = local_message(OURS, mode=mode, on_unknown="defer")
    assert decided(transaction, forecast) == [(Action.ACCEPT, ""), (Action.ACCEPT, "")]


def test_one_recipient_whom_the_milter_alone_protects_keeps_a_message_without_smtp_back() -> None:
    found = decided(local_message(ALONE), GOOD, NOT_OFFERED)
    assert found == [(Action.REJECT, ""), (Action.REJECT, ""), (Action.REJECT, "5.7.30")]
    # here the MTA will bounce it
    found = decided(local_message(OURS), GOOD, NOT_OFFERED)
    assert found == [(Action.ACCEPT, ""), (Action.ACCEPT, ""), (Action.ACCEPT, "")]


def test_r07_a_bounce_is_not_refused_without_smtp_either() -> None:
    found = decided(local_message(ALONE, sender=""), NOT_OFFERED)
    assert found == [(Action.ACCEPT, ""), (Action.ACCEPT, "")]


@pytest.mark.parametrize(
    ("client", "on_unknown", "action"),
    [
        (ALONE, "auto", Action.REJECT),
        (ALONE, "accept", Action.ACCEPT),
        (OURS, "auto", Action.ACCEPT),
        (OURS, "defer", Action.ACCEPT),
    ],
)
def test_a_message_without_smtp_that_cannot_be_judged_is_not_deferred(
    client: SmtpClient, on_unknown: str, action: Action
) -> None:
    transaction = local_message(client, on_unknown=on_unknown)
    rcpt(transaction)
    transaction.add_field("require-tls-esmtp", b"yes")
    transaction.end_of_header()
    assert transaction.action_in_doubt() is action


# ---------------------------------------------------------------- what is told


def test_whether_a_message_counts_and_leaves_is_for_its_recipients_to_say() -> None:
    table = {"recipient": {"off.example": {"mode": "off"}}}
    transaction = message(settings(rules=table))
    told = [(transaction.counts, transaction.leaves)]
    for address in ("a@off.example", "bob@example.org"):
        rcpt(transaction, address)
        told.append((transaction.counts, transaction.leaves))
    assert told == [(False, False), (False, True), (True, True)]
    local = message(settings(), b"REQUIRETLS")
    local.add_recipient("<me@mine.test>", "local", "mine.test")
    assert local.counts
    assert not local.leaves


def test_plain_mail_counts_unless_all_mail_is_off() -> None:
    for mode, counts in (("monitor", True), ("off", False)):
        transaction = message(settings(rules={"mode": mode}))
        recipient = rcpt(transaction)
        assert recipient.rule is None
        assert transaction.counts is counts


def test_a_tag_is_for_mail_that_asks_and_counts() -> None:
    table = {"mode": "monitor", "recipient": {"off.example": {"mode": "off"}}}
    asking = message(settings(rules=table), b"REQUIRETLS")
    rcpt(asking, "a@off.example")
    assert asking.tag() is None
    rcpt(asking)
    tag = asking.tag()
    assert tag is not None
    assert (tag.requirement, tag.source, tag.route) == (REQUIRETLS, Source.ESMTP, Route.REQUIRETLS)
    plain = message(settings(rules=table))
    rcpt(plain)
    assert plain.tag() is None


@pytest.mark.parametrize(
    ("client", "standing"),
    [
        (SmtpClient(authenticated=True), "authenticated"),
        (SmtpClient(authenticated=True, trusted=True), "authenticated"),
        (SmtpClient(trusted=True), "trusted"),
        (SmtpClient(), "other"),
    ],
)
def test_a_client_is_known_by_its_login_before_its_address(
    client: SmtpClient, standing: str
) -> None:
    assert client.standing == standing


# ---------------------------------------------------------------- the envelope


MARKING = {"milter": {"envid_mark": "rtls", "headers_only_bounces": True}}


def parameters(transaction: Transaction) -> str:
    rcpt(transaction)
    return transaction.new_parameters()


def test_the_envelope_of_mail_that_asks_is_marked_and_its_bounces_have_no_body() -> None:
    found = parameters(message(settings(**MARKING), b"REQUIRETLS"))
    assert "ENVID=rtls" in found
    assert "RET=HDRS" in found


@pytest.mark.parametrize(
    ("options", "mark", "headers"),
    [
        ({}, False, False),
        ({"envid_mark": "rtls"}, True, False),
        ({"headers_only_bounces": True}, False, True),
    ],
)
def test_each_of_the_two_is_for_the_operator_to_choose(
    options: dict[str, object], mark: bool, headers: bool
) -> None:
    found = parameters(message(settings(milter=options), b"REQUIRETLS"))
    assert ("ENVID=rtls" in found) is mark
    assert bool(found) is (mark or headers)
    if headers:
        assert "RET=HDRS" in found


def test_the_envelope_of_other_mail_stays_as_it_is() -> None:
    chosen = settings(**MARKING)
    assert parameters(message(chosen)) == ""
    no = message(chosen)
    no.add_field("tls-required", b"No")
    rcpt(no)
    no.end_of_header()
    assert no.new_parameters() == ""
    for null in ("<>", "", " <> "):
        assert parameters(message(chosen, b"REQUIRETLS", sender=null)) == ""


def test_a_mark_binds_all_recipients_so_that_a_mixed_message_has_none() -> None:
    only_mark = settings(milter={"envid_mark": "rtls"})
    mixed = message(only_mark, b"REQUIRETLS")
    mixed.add_recipient("<me@mine.test>", "local", "mine.test")
    assert parameters(mixed) == ""
    both = message(settings(**MARKING), b"REQUIRETLS")
    both.add_recipient("<me@mine.test>", "local", "mine.test")
    found = parameters(both)
    assert "RET=HDRS" in found
    assert "rtls" not in found


def test_what_has_headers_only_bounces_already_is_not_changed_for_them() -> None:
    chosen = settings(milter={"headers_only_bounces": True})
    assert parameters(message(chosen, b"REQUIRETLS", b"RET=HDRS")) == ""
    assert parameters(message(chosen, b"REQUIRETLS", b"RET=FULL")) != ""


def test_sendmail_is_given_again_what_it_would_forget_and_postfix_is_not() -> None:
    chosen = settings(**MARKING)
    for postfix in (True, False):
        client = SmtpClient(trusted=True, capability=Capability.NOTHING, postfix=postfix)
        found = parameters(message(chosen, b"REQUIRETLS", b"BODY=8BITMIME", client=client))
        assert ("BODY=8BITMIME" in found) is not postfix


# ---------------------------------------------------------------- the tag


@pytest.mark.parametrize("length", [254, 255, 256, 1000])
def test_r62_the_name_in_the_tag_has_255_characters_at_most(length: int) -> None:
    tag = Tag(REQUIRETLS, Source.ESMTP, "2.0.0", Reason.OK, Route.REQUIRETLS)
    assert tag.value("x" * length).endswith("; by=" + "x" * min(length, 255))


def test_r62_what_is_no_token_is_an_underscore_and_nothing_is_unknown() -> None:
    tag = Tag(REQUIRETLS, Source.ESMTP, "", Reason.OK, Route.REQUIRETLS)
    assert tag.value("mail_1.a-b:[::1]; x\n\xe4").endswith("; by=mail_1.a-b:[::1]__x__")
    assert "forecast=unknown;" in tag.value("")
    assert tag.value("").endswith("by=unknown")


SOURCES = [Source.ESMTP, Source.REQUIRE_TLS_ESMTP, Source.RULE, Source.TLS_REQUIRED, Source.NONE]


def test_of_several_sources_the_one_that_goes_over_the_others_is_told() -> None:
    for position, source in enumerate(SOURCES):
        found = [(REQUIRETLS, other) for other in reversed(SOURCES[position:])]
        assert winning(found, REQUIRETLS) is source
        assert winning(found, NO) is Source.NONE


def test_of_what_is_asked_the_most_is_told() -> None:
    order = [(REQUIRETLS, Source.ESMTP), (NO, Source.TLS_REQUIRED), (NONE, Source.NONE)]
    for position, (requirement, source) in enumerate(order):
        tagged = [Tagged(r, s, "a.example", False, GOOD) for r, s in reversed(order[position:])]
        tag = aggregate(tagged)
        assert (tag.requirement, tag.source) == (requirement, source)


@pytest.mark.parametrize(("length", "seen"), [(999, True), (1000, True), (1001, False)])
def test_r17_of_an_earlier_tag_1000_octets_are_looked_at(length: int, seen: bool) -> None:
    findings = HeaderFindings("x-requiretls")
    findings.add("x-requiretls", b"requirement=requiretls".rjust(length))
    assert (findings.tags, findings.tag_requiretls) == (1, seen)
