"""One message's state, without libmilter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.config import Config
from requiretls_milter.milter.recipient import Recipient
from requiretls_milter.milter.settings import REMEMBERED_CLIENTS, Settings
from requiretls_milter.milter.transaction import SmtpClient, Transaction
from requiretls_milter.model import (
    Action,
    Capability,
    Forecast,
    Outcome,
    Question,
    Reason,
    Requirement,
    Source,
    unknown_forecast,
)

REQUIRETLS, NO, NONE = Requirement.REQUIRETLS, Requirement.TLS_REQUIRED_NO, Requirement.NONE
OURS = SmtpClient(trusted=True, capability=Capability.REQUIRETLS)
OURS_ON_SENDMAIL = SmtpClient(trusted=True, capability=Capability.NOTHING)
STRANGER = SmtpClient(capability=Capability.REQUIRETLS)

NOT_OFFERED = Forecast("5.7.30", Outcome.BOUNCE, Reason.REQUIRETLS_NOT_OFFERED, mx="mx.example.org")
GOOD = Forecast("2.0.0", Outcome.DELIVER, Reason.OK, compliant=True)


def settings(**tables: Any) -> Settings:
    return Settings(Config.model_validate(tables))


def message(
    chosen: Settings,
    *,
    requiretls: bool = True,
    client: SmtpClient = OURS,
    sender: str = "<a@x.test>",
) -> Transaction:
    return Transaction(chosen, client, sender, (b"REQUIRETLS",) if requiretls else ())


def rcpt(transaction: Transaction, address: str = "bob@example.org") -> Recipient:
    return transaction.add_recipient(f"<{address}>", "smtp", address.partition("@")[2])


# ---------------------------------------------------------------- what the source is asked


def test_a_message_that_asks_has_a_question_for_each_remote_recipient() -> None:
    transaction = message(settings())
    recipient = rcpt(transaction)
    assert recipient.question == Question("example.org", "smtp", REQUIRETLS, REQUIRETLS)
    local = transaction.add_recipient("<alice@mine.test>", "local", "mta.mine.test")
    assert local.question is None
    assert local.local


def test_plain_mail_costs_no_rule_no_next_hop_and_no_question() -> None:
    transaction = message(settings(), requiretls=False)
    recipient = rcpt(transaction)
    assert recipient.rule is None
    assert recipient.question is None
    assert transaction.end_of_header() == []
    assert transaction.undecided() == []
    assert transaction.decide_message().action is Action.ACCEPT
    assert transaction.tag() is None
    assert transaction.counts


def test_plain_mail_is_ordinary_as_long_as_its_header_has_nothing_of_interest() -> None:
    fields = [
        ("received", b" from a by b; with (requiretls)"),
        ("tls-required", b" No"),
        ("tls-required", b" yes"),
        ("require-tls-esmtp", b"yes"),
        ("x-requiretls", b" forged"),
    ]
    for name, value in fields:
        transaction = message(settings(), requiretls=False)
        rcpt(transaction)
        transaction.add_field("received", b" from a by b")
        assert transaction.ordinary
        transaction.add_field(name, value)
        assert not transaction.ordinary, name


@pytest.mark.parametrize(
    "sections",
    [
        {"rules": {"require": True}},
        {"rules": {"honour_lost": True}},
        {"rules": {"recipient": {"example.net": {"mode": "off"}}}},
        {"probe": {"plain_mail": "dns"}},
        {"log": {"level": "debug"}},
    ],
)
def test_no_mail_is_ordinary_if_a_setting_wants_to_know_more(
    sections: dict[str, Any],
) -> None:
    transaction = message(settings(**sections), requiretls=False)
    rcpt(transaction)
    assert not transaction.ordinary


def test_mail_that_asks_is_never_ordinary() -> None:
    transaction = message(settings())
    rcpt(transaction)
    assert not transaction.ordinary


def test_first_characters_let_every_field_through_that_is_looked_at() -> None:
    found = settings(milter={"header_name": "Path-Of-Mail"})
    for name in ("Received", "tls-required", "REQUIRE-TLS-ESMTP", "path-of-mail", "Path-of-mail"):
        assert name[:1] in found.initials
    assert "Subject"[:1] not in found.initials
    assert ""[:1] not in found.initials


def test_a_survey_asks_for_plain_mail_too() -> None:
    transaction = message(settings(probe={"plain_mail": "dns"}), requiretls=False)
    recipient = rcpt(transaction)
    assert recipient.question == Question("example.org", "smtp", NONE, NONE)
    transaction.decide(recipient, GOOD, 0.0)
    tag = transaction.tag()
    assert tag is not None
    assert tag.value("m").startswith("requirement=none; source=none; forecast=2.0.0; reason=ok")


def test_a_rule_asks_on_behalf_of_the_sender_and_the_mta_carries_nothing_of_it() -> None:
    transaction = message(
        settings(rules={"sender": {"x.test": {"require": True}}}), requiretls=False
    )
    recipient = rcpt(transaction)
    assert recipient.question == Question("example.org", "smtp", REQUIRETLS, NONE)
    assert recipient.asked.source is Source.RULE


@pytest.mark.parametrize("length", [64, 1200, 60_000])
def test_no_rule_is_evaded_by_an_address_of_any_length(length: int) -> None:
    """``bob+anything`` may be as long as an SMTP line; Postfix takes 2,048 octets."""
    box = "bob+" + "a" * length
    chosen = settings(rules={"recipient": {"bank.example": {"require": True}}})
    recipient = rcpt(message(chosen, requiretls=False), f"{box}@bank.example")
    assert recipient.asked.source is Source.RULE
    assert len(recipient.address) <= 1000
    chosen = settings(rules={"sender": {"bank.example": {"require": True}}})
    recipient = rcpt(message(chosen, requiretls=False, sender=f"<{box}@bank.example>"))
    assert recipient.asked.source is Source.RULE


@pytest.mark.parametrize("address", ["bank.example!bob", "bob%bank.example@mx.test"])
def test_no_rule_is_evaded_by_a_route_in_the_address(address: str) -> None:
    """To Postfix both are ``bob@bank.example``, and it says so."""
    table = {"bank.example": {"require": True}}
    transaction = message(settings(rules={"recipient": table}), requiretls=False)
    understood = "bob@bank.example"
    recipient = transaction.add_recipient(f"<{address}>", "smtp", "bank.example", understood)
    assert recipient.asked.source is Source.RULE
    assert recipient.address == f"<{address}>"
    sends = Transaction(
        settings(rules={"sender": table}), OURS, f"<{address}>", (), resolved=understood
    )
    assert rcpt(sends).asked.source is Source.RULE


def test_mode_off_asks_nothing_tags_nothing_counts_nothing() -> None:
    transaction = message(settings(rules={"mode": "off"}))
    assert rcpt(transaction).question is None
    assert transaction.undecided() == []
    assert transaction.decide_message().action is Action.ACCEPT
    assert transaction.tag() is None
    assert not transaction.counts


def test_what_the_header_asks_is_known_at_its_end() -> None:
    transaction = message(settings(), requiretls=False)
    recipient = rcpt(transaction)
    transaction.add_field("tls-required", b"No")
    before = recipient.question
    assert transaction.end_of_header() == [recipient]
    assert before is None
    assert recipient.question == Question("example.org", "smtp", NO, NO)
    assert transaction.end_of_header() == []  # nothing new


def test_the_field_that_postfix_adds_to_what_asked_already_changes_nothing() -> None:
    transaction = message(settings())
    recipient = rcpt(transaction)
    transaction.decide(recipient, GOOD, 0.0)
    transaction.add_field("require-tls-esmtp", b"yes")
    assert transaction.end_of_header() == []
    assert recipient.decision is not None


def test_a_question_that_the_header_changes_is_asked_and_decided_anew() -> None:
    transaction = message(settings(rules={"mode": "reject", "require": True}), requiretls=False)
    recipient = rcpt(transaction)
    assert transaction.decide_at_rcpt(recipient, GOOD, 0.0).action is Action.ACCEPT
    transaction.add_field("require-tls-esmtp", b"yes")
    assert transaction.end_of_header() == [recipient]
    assert recipient.question == Question("example.org", "smtp", REQUIRETLS, REQUIRETLS)
    assert recipient.decision is None
    assert transaction.undecided() == [recipient]


@pytest.mark.parametrize("sender", ["<>", "", " <> "])
def test_r07_the_null_sender_is_forecast_by_postfixs_profile_and_delivers_by_the_rfcs(
    sender: str,
) -> None:
    postfix = rcpt(message(settings(), sender=sender))
    assert postfix.question == Question("example.org", "smtp", REQUIRETLS, REQUIRETLS)
    rfc = rcpt(message(settings(mta={"profile": "rfc8689"}), sender=sender))
    assert rfc.question == Question("example.org", "smtp", NONE, NONE)
    assert rfc.asked.requirement is REQUIRETLS


def test_r07_the_null_sender_is_tagged_and_never_refused() -> None:
    transaction = message(settings(rules={"mode": "reject"}), sender="<>")
    recipient = rcpt(transaction)
    assert not transaction.can_act(recipient)
    transaction.decide(recipient, NOT_OFFERED, 0.0)
    assert transaction.decide_message().action is Action.ACCEPT
    tag = transaction.tag()
    assert tag is not None
    assert tag.forecast == "5.7.30"


# ---------------------------------------------------------------- when it is decided


@pytest.mark.parametrize(
    ("mode", "client", "sender", "mailer", "acts"),
    [
        ("reject", OURS, "<a@x.test>", "smtp", True),
        ("defer", OURS, "<a@x.test>", "smtp", True),
        ("monitor", OURS, "<a@x.test>", "smtp", False),
        ("off", OURS, "<a@x.test>", "smtp", False),
        ("reject", STRANGER, "<a@x.test>", "smtp", False),
        ("reject", OURS, "<>", "smtp", False),
        ("reject", OURS, "<a@x.test>", "local", False),
    ],
)
def test_rcpt_waits_only_where_the_forecast_could_change_its_answer(
    mode: str, client: SmtpClient, sender: str, mailer: str, acts: bool
) -> None:
    transaction = message(settings(rules={"mode": mode}), client=client, sender=sender)
    recipient = transaction.add_recipient("<bob@example.org>", mailer, "example.org")
    assert transaction.can_act(recipient) is acts


def test_a_recipient_refused_at_rcpt_is_gone_and_the_others_go_on() -> None:
    transaction = message(settings(rules={"mode": "reject"}))
    first, second = rcpt(transaction, "a@a.example"), rcpt(transaction, "b@b.example")
    assert transaction.decide_at_rcpt(first, NOT_OFFERED, 0.0).action is Action.REJECT
    assert not transaction.all_refused
    assert transaction.decide_at_rcpt(second, GOOD, 0.0).action is Action.ACCEPT
    assert transaction.accepted == [second]
    assert transaction.decide_message().action is Action.ACCEPT
    tag = transaction.tag()
    assert tag is not None
    assert (tag.forecast, tag.route) == ("2.0.0", "requiretls")  # one next hop is left


def test_a_message_all_of_whose_recipients_are_gone_has_come_to_its_end() -> None:
    transaction = message(settings(rules={"mode": "reject"}))
    assert not transaction.all_refused
    transaction.decide_at_rcpt(rcpt(transaction), NOT_OFFERED, 0.0)
    assert transaction.all_refused


def test_patience_is_tag_wait_unless_something_is_still_to_be_decided() -> None:
    monitor = message(settings(rules={"tag_wait": 3.0, "decide_wait": 7.0}))
    rcpt(monitor)
    assert monitor.patience() == 3.0
    reject = message(
        settings(rules={"mode": "reject", "tag_wait": 3.0, "decide_wait": 7.0}), requiretls=False
    )
    rcpt(reject)
    assert reject.patience() == 3.0
    reject.add_field("require-tls-esmtp", b"yes")
    reject.end_of_header()
    assert reject.patience() == 7.0


def test_the_waits_of_a_message_are_bounded_in_all() -> None:
    transaction = message(
        settings(rules={"mode": "reject", "decide_wait": 7.0}, limits={"message_wait": 10.0})
    )
    first, second, third = (rcpt(transaction, f"{name}@{name}.example") for name in "abc")
    assert transaction.patience_at_rcpt(first) == 7.0
    transaction.waited = 7.0
    assert transaction.patience_at_rcpt(second) == 3.0
    assert transaction.patience() == 3.0
    transaction.waited = 10.2
    assert transaction.patience_at_rcpt(third) == 0.0
    assert transaction.patience() == 0.0


def test_the_end_refuses_what_the_header_asked_for_if_all_would_be_refused() -> None:
    for second, action in ((NOT_OFFERED, Action.REJECT), (GOOD, Action.ACCEPT)):
        transaction = message(settings(rules={"mode": "reject"}), requiretls=False)
        recipients = [rcpt(transaction, "a@a.example"), rcpt(transaction, "b@b.example")]
        transaction.add_field("require-tls-esmtp", b"yes")
        assert transaction.end_of_header() == recipients
        transaction.decide(recipients[0], NOT_OFFERED, 0.0)
        transaction.decide(recipients[1], second, 0.0)
        assert transaction.decide_message().action is action
        decisions = [recipient.decision for recipient in recipients]
        assert all(d is not None and d.action is action for d in decisions)


def test_a_recipient_whose_rule_is_off_lets_the_message_pass() -> None:
    transaction = message(
        settings(rules={"mode": "reject", "recipient": {"b.example": {"mode": "off"}}}),
        requiretls=False,
    )
    first, second = rcpt(transaction, "a@a.example"), rcpt(transaction, "b@b.example")
    transaction.add_field("require-tls-esmtp", b"yes")
    transaction.end_of_header()
    assert transaction.undecided() == [first]
    transaction.decide(first, NOT_OFFERED, 0.0)
    assert transaction.decide_message().action is Action.ACCEPT
    assert second.decision is None


def test_tls_required_no_against_a_rule_refuses_the_message_on_an_mta_that_honours_it() -> None:
    rules = {"mode": "reject", "recipient": {"a.example": {"require": True}}}
    for client, action in ((OURS, Action.REJECT), (OURS_ON_SENDMAIL, Action.ACCEPT)):
        transaction = message(settings(rules=rules), requiretls=False, client=client)
        first, second = rcpt(transaction, "a@a.example"), rcpt(transaction, "b@b.example")
        transaction.decide_at_rcpt(first, GOOD, 0.0)
        transaction.add_field("tls-required", b"No")
        transaction.end_of_header()
        for recipient in transaction.undecided():
            transaction.decide(recipient, GOOD, 0.0)
        decision = transaction.decide_message()
        assert decision.action is action
        if decision.reply is not None:
            assert (decision.reply.code, decision.reply.enhanced) == (550, "5.7.10")
        assert second.asked.requirement is NO


def test_a_message_has_the_source_of_what_is_asked_of_the_recipient_who_has_the_most() -> None:
    rules = {"recipient": {"bank.example": {"require": True}}}
    transaction = message(settings(rules=rules), requiretls=False)
    rcpt(transaction)
    assert (transaction.requirement, transaction.source) == (NONE, Source.NONE)
    transaction.add_field("tls-required", b"No")
    transaction.end_of_header()
    assert (transaction.requirement, transaction.source) == (NO, Source.TLS_REQUIRED)
    rcpt(transaction, "b@bank.example")
    assert (transaction.requirement, transaction.source) == (REQUIRETLS, Source.RULE)


@pytest.mark.parametrize("honoured", [False, True])
def test_r17_a_lost_requirement_is_asked_only_where_a_rule_honours_it(honoured: bool) -> None:
    transaction = message(settings(rules={"honour_lost": honoured}), requiretls=False)
    recipient = rcpt(transaction)
    transaction.add_field("received", b"from a by b with ESMTPS (requiretls) id c; d")
    transaction.end_of_header()
    assert transaction.lost
    expected = (REQUIRETLS, Source.RULE) if honoured else (NONE, Source.NONE)
    assert (recipient.asked.requirement, recipient.asked.source) == expected


# ---------------------------------------------------------------- doubt, hostile input


@pytest.mark.parametrize(
    ("on_unknown", "client", "defers"),
    [
        ("auto", OURS, False),
        ("auto", OURS_ON_SENDMAIL, True),
        ("defer", OURS, True),
        ("accept", OURS_ON_SENDMAIL, False),
    ],
)
def test_doubt_defers_only_where_a_rule_defers_the_unknown(
    on_unknown: str, client: SmtpClient, defers: bool
) -> None:
    transaction = message(
        settings(rules={"mode": "reject", "on_unknown": on_unknown}), client=client
    )
    rcpt(transaction)
    assert transaction.action_in_doubt() is (Action.DEFER if defers else Action.ACCEPT)


def test_a_next_hop_that_cannot_be_understood_is_unknown_and_told() -> None:
    transaction = message(settings(rules={"mode": "reject", "on_unknown": "defer"}))
    recipient = transaction.add_recipient("<bob@example.org>", "smtp", "[broken")
    assert recipient.question is None
    assert recipient.nexthop_text == "[broken"
    decision = transaction.decide_at_rcpt(recipient, None, 0.0)
    assert decision.action is Action.DEFER
    assert recipient.forecast is not None
    assert "bracket" in recipient.forecast.text


addresses = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["<bob@example.org>", "<>", "<a@[192.0.2.1]>", "<x@\udcff>", "<@>", "<a@b@c.d>"]
    ),
)


@given(
    sender=addresses,
    recipients=st.lists(
        st.tuples(addresses, st.sampled_from(["", "smtp", "local"]), st.text(max_size=20)),
        max_size=4,
    ),
    parameters=st.lists(st.sampled_from([b"REQUIRETLS", b"SIZE=1", b"\xff"]), max_size=3),
    fields=st.lists(
        st.tuples(
            st.sampled_from(["received", "tls-required", "require-tls-esmtp", "x-requiretls"]),
            st.sampled_from([b"no", b"yes", b"(requiretls)", b"\xff", b""]),
        ),
        max_size=4,
    ),
    mode=st.sampled_from(["off", "monitor", "defer", "reject"]),
    require=st.booleans(),
    client=st.sampled_from([OURS, OURS_ON_SENDMAIL, STRANGER]),
    result=st.sampled_from([GOOD, NOT_OFFERED, unknown_forecast("")]),
)
def test_any_envelope_and_header_end_in_a_decision(
    sender: str,
    recipients: list[tuple[str, str, str]],
    parameters: list[bytes],
    fields: list[tuple[str, bytes]],
    mode: str,
    require: bool,
    client: SmtpClient,
    result: Forecast,
) -> None:
    chosen = settings(rules={"mode": mode, "require": require})
    transaction = Transaction(chosen, client, sender, parameters)
    for address, mailer, host in recipients:
        recipient = transaction.add_recipient(address, mailer, host)
        if transaction.can_act(recipient):
            transaction.decide_at_rcpt(recipient, result if recipient.question else None, 0.0)
    for name, value in fields:
        transaction.add_field(name, value)
    transaction.end_of_header()
    for recipient in transaction.undecided():
        transaction.decide(recipient, result if recipient.question else None, 0.0)
    decision = transaction.decide_message()
    assert (decision.reply is None) is (decision.action is Action.ACCEPT)
    if mode in ("off", "monitor") or client is STRANGER or transaction.null_sender:
        assert decision.action is Action.ACCEPT
        assert transaction.accepted == transaction.recipients
    assert transaction.undecided() == []
    tag = transaction.tag()
    if mode == "off" or not transaction.accepted:
        assert tag is None
    elif tag is not None:
        assert len(tag.value("m")) < 998


# ---------------------------------------------------------------- clients


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
        ("", False),
        ("unknown", False),
        ("127.0.0.1.evil", False),
    ],
)
def test_clients_in_trusted_networks_are_trusted(address: str, trusted: bool) -> None:
    assert settings().trusts(address) is trusted


def test_trusted_networks_are_the_operators() -> None:
    chosen = settings(milter={"trusted_networks": ["192.0.2.0/24", "2001:db8::/32"]})
    assert chosen.trusts("192.0.2.7")
    assert chosen.trusts("2001:db8::7")
    assert not chosen.trusts("127.0.0.1")


def test_more_clients_than_are_remembered_are_judged_as_the_first() -> None:
    chosen = settings(milter={"trusted_networks": ["10.0.0.0/16"]})
    addresses = [f"10.{n >> 10}.{n >> 8 & 3}.{n & 255}" for n in range(3 * REMEMBERED_CLIENTS)]
    for _ in range(2):
        for address in addresses:
            assert chosen.trusts(address) is address.startswith("10.0.")
    assert chosen.trusts.cache_info().currsize == REMEMBERED_CLIENTS


# ---------------------------------------------------------------- next hops that Postfix cannot use


def decided(client: SmtpClient, host: str) -> Forecast:
    transaction = message(settings(), client=client)
    recipient = transaction.add_recipient("<bob@example.org>", "smtp", host)
    assert recipient.question is None
    transaction.decide(recipient, None, now=0.0)
    assert recipient.forecast is not None
    return recipient.forecast


def test_mail_for_a_next_hop_of_which_smtp_dies_stays_in_the_queue() -> None:
    postfix = SmtpClient(trusted=True, capability=Capability.REQUIRETLS, postfix=True)
    forecast = decided(postfix, "inet:[192.0.2.1]")
    assert (forecast.status, forecast.outcome) == ("4.3.0", Outcome.DEFER)
    assert forecast.reason is Reason.NEXTHOP_INVALID
    assert "cannot use" in forecast.text


def test_of_another_mta_nothing_is_known_then() -> None:
    assert decided(OURS_ON_SENDMAIL, "[broken").reason is Reason.UNKNOWN


def test_mail_of_sendmail_is_asked_about_over_its_own_transport() -> None:
    chosen = settings(mta={"default_transport": "strict:[relay.example]"})
    transaction = Transaction(chosen, OURS, "<a@x.test>", (b"REQUIRETLS",), by_smtp=False)
    recipient = transaction.add_recipient("bob@example.org", "", "")
    assert recipient.question == Question("[relay.example]", "strict", REQUIRETLS, REQUIRETLS)


def test_a_table_by_sender_goes_by_the_reverse_path() -> None:
    chosen = settings(mta={"sender_transports": {"@x.test": "strict", "<>": "bounces"}})
    for sender, transport in (("<a@X.test>", "strict"), ("<>", "bounces"), ("<a@y.test>", "smtp")):
        recipient = message(chosen, sender=sender).add_recipient("<bob@example.org>", "", "")
        assert recipient.question is not None
        assert recipient.question.transport == transport
