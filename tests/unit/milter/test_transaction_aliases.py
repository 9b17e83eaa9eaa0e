"""A message to recipients that Postfix expands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import pytest

from requiretls_milter.config import Config
from requiretls_milter.milter.recipient import Recipient
from requiretls_milter.milter.settings import Settings
from requiretls_milter.milter.tag import WITHHELD, Route
from requiretls_milter.milter.transaction import SmtpClient, Transaction
from requiretls_milter.model import (
    LOCAL_FORECAST,
    Action,
    Capability,
    Forecast,
    Outcome,
    Question,
    Reason,
    Requirement,
    Source,
)
from requiretls_milter.rules import Why
from requiretls_milter.syntax.expansion import Expansion, ExpansionError, Rewriting, Tables, expand
from requiretls_milter.syntax.mailbox import Origin
from requiretls_milter.telemetry.labels import Expanded

REQUIRETLS, NO, NONE = Requirement.REQUIRETLS, Requirement.TLS_REQUIRED_NO, Requirement.NONE
POSTFIX = SmtpClient(trusted=True, capability=Capability.REQUIRETLS, postfix=True)
OLD_POSTFIX = SmtpClient(trusted=True, capability=Capability.TLS_REQUIRED, postfix=True)
SENDMAIL = SmtpClient(trusted=True, capability=Capability.NOTHING)

LACKING = Forecast("5.7.30", Outcome.BOUNCE, Reason.REQUIRETLS_NOT_OFFERED, mx="mx.lacking.test")
LATER = Forecast("4.7.5", Outcome.DEFER, Reason.CERTIFICATE_NOT_VERIFIED, mx="mx.later.test")
NOWHERE = Forecast("5.4.4", Outcome.BOUNCE, Reason.NO_SUCH_DOMAIN)
GOOD = Forecast("2.0.0", Outcome.DELIVER, Reason.OK, compliant=True, mx="mx.good.test")
OF = {"lacking.test": LACKING, "later.test": LATER, "nowhere.test": NOWHERE, "good.test": GOOD}

ENTRIES = {
    "out@mine.test": "bob@lacking.test",
    "both@mine.test": "bob@good.test, bob@lacking.test",
    "kept@mine.test": "kept@mine.test, copy@lacking.test",
    "soon@mine.test": "bob@later.test, bob@nowhere.test",
    "twice@mine.test": "ann@good.test, bob@good.test",
    "inside@mine.test": "alice@mine.test, root@mine.test",
    "routed@mine.test": "carol@routed.test",
    "abroad@elsewhere.test": "home@mine.test",
}


def expander(recipient: str) -> Expansion:
    if recipient == "<doubt@mine.test>":
        raise ExpansionError("hash:/etc/aliases: Permission denied")
    return expand(recipient, Tables(virtual_alias=(ENTRIES.get,)), Rewriting(Origin("mine.test")))


def message(
    rules: Mapping[str, Any] | None = None,
    *,
    client: SmtpClient = POSTFIX,
    requiretls: bool = True,
    by_smtp: bool = True,
    asked: Callable[[str], Expansion | Future[Expansion]] = expander,
    **sections: Any,
) -> Transaction:
    mta = {"local_domains": ["mine.test"], "routes": {"routed.test": "strict:[gate.good.test]"}}
    config = {"rules": rules or {"mode": "reject"}, "mta": mta, **sections}
    settings = Settings(Config.model_validate(config), asked)
    parameters = (b"REQUIRETLS",) if requiretls else ()
    return Transaction(settings, client, "<a@x.test>", parameters, by_smtp=by_smtp)


def rcpt(transaction: Transaction, address: str) -> Recipient:
    return transaction.add_recipient(f"<{address}@mine.test>", "local", "mine.test")


def answer(recipient: Recipient) -> None:
    """Give each target the forecast of its domain, as the adapter does."""
    for one in recipient.targets:
        if one.question is not None:
            one.forecast = OF[one.question.nexthop]


def decided(transaction: Transaction, address: str) -> Recipient:
    recipient = rcpt(transaction, address)
    assert transaction.decides_at_rcpt(recipient)
    answer(recipient)
    transaction.decide_at_rcpt(recipient, None, 0.0)
    return recipient


# ---------------------------------------------------------------- what is asked


def test_an_alias_that_leaves_has_the_question_of_where_it_leads() -> None:
    recipient = rcpt(message(), "out")
    assert recipient.expanded is Expanded.ALIAS
    assert not recipient.local
    (one,) = recipient.expansions
    assert one.address == "bob@lacking.test"
    assert one.question == Question("lacking.test", "smtp", REQUIRETLS, REQUIRETLS)
    assert recipient.question is None


def test_each_expansion_goes_the_way_of_its_own_address() -> None:
    (one,) = rcpt(message(), "routed").expansions
    assert (one.transport, one.nexthop_text) == ("strict", "[gate.good.test]")


def test_an_address_that_also_stays_goes_where_the_mta_says() -> None:
    kept, copy = rcpt(message(), "kept").expansions
    assert (kept.mailer, kept.host, kept.local) == ("local", "mine.test", True)
    assert (copy.mailer, copy.local) == ("", False)


def test_a_recipient_elsewhere_that_is_an_alias_of_a_local_one_is_local() -> None:
    recipient = message().add_recipient("<abroad@elsewhere.test>", "smtp", "elsewhere.test")
    assert recipient.local
    assert all(one.question is None for one in recipient.expansions)


@pytest.mark.parametrize("address", ["alice", "inside"])
def test_what_stays_here_is_local(address: str) -> None:
    transaction = message()
    recipient = rcpt(transaction, address)
    assert recipient.local
    assert not transaction.can_act(recipient)


def test_a_recipient_that_is_no_alias_is_what_it_was() -> None:
    recipient = rcpt(message(), "alice")
    assert recipient.expanded is Expanded.UNCHANGED
    assert recipient.targets == (recipient,)


def test_in_doubt_a_recipient_is_not_expanded_and_not_refused() -> None:
    transaction = message()
    recipient = rcpt(transaction, "doubt")
    assert recipient.expanded is Expanded.UNKNOWN
    assert recipient.not_expanded == "hash:/etc/aliases: Permission denied"
    assert recipient.local
    assert not transaction.can_act(recipient)
    assert transaction.decide(recipient, None, 0.0).action is Action.ACCEPT


def test_beyond_the_limit_of_a_message_a_recipient_is_not_expanded() -> None:
    transaction = message(limits={"expansions": 3})
    assert len(rcpt(transaction, "both").expansions) == 2
    last = rcpt(transaction, "twice")
    assert last.expanded is Expanded.TOO_MANY
    assert last.local
    assert len(rcpt(transaction, "out").expansions) == 1


@pytest.mark.parametrize(
    ("client", "mta"), [(SENDMAIL, {}), (POSTFIX, {"profile": "rfc8689"})], ids=["mta", "profile"]
)
def test_only_mail_through_postfix_is_expanded_as_postfix_does(
    client: SmtpClient, mta: Mapping[str, str]
) -> None:
    recipient = rcpt(message(client=client, mta=mta), "out")
    assert recipient.expanded is None
    assert recipient.local


def test_plain_mail_is_not_looked_up() -> None:
    transaction = message(requiretls=False)
    recipient = rcpt(transaction, "out")
    assert recipient.expanded is None
    assert transaction.ordinary


def test_what_the_header_asks_is_asked_of_each_expansion() -> None:
    transaction = message(requiretls=False)
    recipient = rcpt(transaction, "both")
    transaction.add_field("tls-required", b" No")
    assert transaction.end_of_header() == [recipient]
    assert [one.asked.requirement for one in recipient.expansions] == [NO, NO]
    assert transaction.requirement is NO
    assert transaction.source is Source.TLS_REQUIRED


# ---------------------------------------------------------------- what is decided


def test_an_alias_whose_next_hop_would_bounce_is_refused_without_telling_where_it_leads() -> None:
    recipient = decided(message(), "out")
    assert recipient.gone
    assert recipient.forecast is LACKING
    assert recipient.decision is not None
    reply = recipient.decision.reply
    assert reply is not None
    assert (reply.code, reply.enhanced) == (550, "5.7.30")
    assert "mine.test" in reply.text
    assert "lacking" not in reply.text


def test_the_forecast_is_the_worst_one_and_the_decision_the_hardest() -> None:
    recipient = decided(message(), "both")
    assert recipient.forecast is LACKING
    assert recipient.nexthop_text == "lacking.test"
    assert recipient.decision is not None
    assert recipient.decision.action is Action.REJECT
    first, second = recipient.expansions
    assert first.decision is not None
    assert second.decision is not None
    assert (first.decision.action, second.decision.action) == (Action.ACCEPT, Action.REJECT)


def test_a_failure_that_is_left_to_the_mta_does_not_hide_one_that_is_not() -> None:
    recipient = decided(message({"mode": "defer"}), "soon")
    assert recipient.forecast is NOWHERE
    assert recipient.decision is not None
    assert recipient.decision.why is Why.TEMPORARY


def test_an_alias_to_a_good_and_a_local_address_is_accepted() -> None:
    recipient = decided(message(), "twice")
    assert not recipient.gone
    assert recipient.forecast is GOOD


def test_an_answer_that_has_ended_is_asked_for_again_and_the_others_are_not() -> None:
    transaction = message({"mode": "monitor"})
    recipient = rcpt(transaction, "both")
    first, second = recipient.expansions
    first.pending = Forecast("2.0.0", Outcome.DELIVER, Reason.OK, valid_until=100.0)
    second.pending = Forecast("2.0.0", Outcome.DELIVER, Reason.OK, valid_until=9_000.0)
    assert transaction.outdated(1_000.0) == [recipient]
    assert [one.pending is None for one in recipient.expansions] == [True, False]


def test_mail_of_sendmail_is_refused_if_the_milter_alone_enforces_for_one_expansion() -> None:
    transaction = message(
        {"mode": "reject", "require": True}, client=OLD_POSTFIX, requiretls=False, by_smtp=False
    )
    recipient = rcpt(transaction, "both")
    rcpt(transaction, "alice")
    transaction.end_of_header()
    answer(recipient)
    for one in transaction.undecided():
        transaction.decide(one, None, 0.0)
    assert transaction.decide_message().action is Action.REJECT


def test_in_doubt_about_one_expansion_the_message_is_deferred_if_the_milter_alone_enforces() -> (
    None
):
    rules = {"mode": "reject", "recipient": {"lacking.test": {"require": True}}}
    transaction = message(rules, client=OLD_POSTFIX, requiretls=False)
    rcpt(transaction, "both")
    assert transaction.action_in_doubt() is Action.DEFER


# ---------------------------------------------------------------- rules


def test_rules_go_by_the_address_as_given_first_and_then_by_what_it_becomes() -> None:
    rules = {
        "mode": "monitor",
        "recipient": {
            "mine.test": {"decide_wait": 1.0},
            "lacking.test": {"mode": "reject", "decide_wait": 2.0},
        },
    }
    recipient = decided(message(rules), "out")
    assert recipient.rule is not None
    assert (recipient.rule.mode.value, recipient.rule.decide_wait) == ("reject", 1.0)
    assert recipient.rule.domain == "mine.test"
    assert recipient.gone


def test_rules_by_next_hop_go_by_that_of_each_expansion() -> None:
    rules = {"nexthop": {"lacking.test": {"mode": "reject"}}, "mode": "monitor"}
    first, second = rcpt(message(rules), "both").expansions
    assert first.rule is not None
    assert second.rule is not None
    assert (first.rule.mode.value, second.rule.mode.value) == ("monitor", "reject")


def test_a_rule_that_requires_for_an_expansion_requires_for_it_alone() -> None:
    rules = {"mode": "reject", "recipient": {"good.test": {"require": True}}}
    transaction = message(rules, client=OLD_POSTFIX, requiretls=False)
    recipient = rcpt(transaction, "both")
    asked = [one.asked.requirement for one in recipient.expansions]
    assert asked == [REQUIRETLS, NONE]
    assert recipient.asked.requirement is REQUIRETLS
    answer(recipient)
    transaction.decide_at_rcpt(recipient, None, 0.0)
    assert recipient.forecast is GOOD
    assert not recipient.gone


def test_an_expansion_whose_rule_is_off_is_not_assessed() -> None:
    rules = {"mode": "reject", "recipient": {"lacking.test": {"mode": "off"}}}
    recipient = decided(message(rules), "both")
    assert recipient.forecast is GOOD
    assert not recipient.gone


# ---------------------------------------------------------------- the tag


def tagged(transaction: Transaction, *addresses: str) -> tuple[str, Route]:
    for address in addresses:
        recipient = rcpt(transaction, address)
        answer(recipient)
        transaction.decide(recipient, None, 0.0)
    tag = transaction.tag()
    assert tag is not None
    return tag.forecast, tag.route


def monitoring() -> Transaction:
    return message({"mode": "monitor"})


def test_the_tag_says_the_forecast_if_all_goes_to_one_next_hop() -> None:
    assert tagged(monitoring(), "twice") == ("2.0.0", Route.REQUIRETLS)
    assert tagged(monitoring(), "out") == ("5.7.30", Route.REQUIRETLS)


@pytest.mark.parametrize(
    ("addresses", "route"),
    [
        (["both"], Route.REQUIRETLS),
        (["kept"], Route.MIXED),
        (["out", "alice"], Route.MIXED),
        (["out", "twice"], Route.REQUIRETLS),
    ],
)
def test_the_tag_withholds_it_if_there_are_several_next_hops(
    addresses: list[str], route: Route
) -> None:
    assert tagged(monitoring(), *addresses) == (WITHHELD, route)


def test_the_tag_of_an_alias_that_stays_here_is_that_of_local_mail() -> None:
    assert tagged(monitoring(), "inside") == (LOCAL_FORECAST.status, Route.MIXED)


def test_a_message_leaves_if_an_alias_of_it_does() -> None:
    transaction = message()
    rcpt(transaction, "kept")
    assert transaction.leaves


def test_a_recipient_is_put_off_if_a_part_of_it_stays_and_the_others_leave() -> None:
    rules = {"mode": "monitor", "on_mixed": "split"}
    transaction = message(rules)
    rcpt(transaction, "out")
    assert transaction.parts(rcpt(transaction, "kept"))


# ---------------------------------------------------------------- tables that are asked


class Later:
    """Answers when a test says so."""

    def __init__(self) -> None:
        self.futures: dict[str, Future[Expansion]] = {}

    def __call__(self, recipient: str) -> Future[Expansion]:
        return self.futures.setdefault(recipient, Future())

    def answer(self, address: str, error: str = "") -> None:
        future = self.futures[f"<{address}@mine.test>"]
        if error:
            future.set_exception(ExpansionError(error))
        else:
            future.set_result(expander(f"<{address}@mine.test>"))


def test_until_it_is_known_a_recipient_has_the_question_of_what_was_given() -> None:
    later = Later()
    transaction = message(asked=later)
    recipient = transaction.add_recipient("<out@mine.test>", "smtp", "gate.good.test")
    assert recipient.question == Question("gate.good.test", "smtp", REQUIRETLS, REQUIRETLS)
    assert recipient.expanded is None
    assert transaction.settles_at_rcpt(recipient)


def test_what_it_becomes_takes_its_place_once_it_is_known() -> None:
    later = Later()
    transaction = message(asked=later)
    given = transaction.add_recipient("<out@mine.test>", "smtp", "gate.good.test")
    later.answer("out")
    transaction.settle(given)
    assert given.expanded is Expanded.ALIAS
    assert (given.question, given.pending, given.nexthop) == (None, None, None)
    assert not transaction.settles_at_rcpt(given)
    at_once = message().add_recipient("<out@mine.test>", "smtp", "gate.good.test")
    shown = [(one.address, one.question, one.rule, one.asked) for one in given.expansions]
    assert shown == [(one.address, one.question, one.rule, one.asked) for one in at_once.expansions]
    assert (given.rule, given.asked, given.domain) == (at_once.rule, at_once.asked, at_once.domain)
    answer(given)
    decision = transaction.decide_at_rcpt(given, None, 0.0)
    assert (decision.action, given.gone) == (Action.REJECT, True)


@pytest.mark.parametrize("error", ["", "ldap:/x: the server is gone"])
def test_what_is_not_known_in_time_is_forecast_as_it_was_given(error: str) -> None:
    later = Later()
    transaction = message(asked=later)
    recipient = rcpt(transaction, "out")
    if error:
        later.answer("out", error)
    transaction.settle(recipient)
    assert recipient.expanded is Expanded.UNKNOWN
    assert recipient.not_expanded == (error or "not known in time")
    assert recipient.local
    assert not transaction.can_act(recipient)
    assert later.futures.keys() == {"<out@mine.test>"}
    transaction.settle(recipient)
    assert recipient.expanded is Expanded.UNKNOWN


def test_one_that_stays_what_it_is_keeps_its_question_and_answer() -> None:
    later = Later()
    transaction = message(asked=later)
    recipient = transaction.add_recipient("<alice@mine.test>", "smtp", "gate.good.test")
    recipient.pending = GOOD
    later.answer("alice")
    transaction.settle(recipient)
    assert (recipient.expanded, recipient.pending) == (Expanded.UNCHANGED, GOOD)


def test_its_questions_are_foreseen_without_a_change_of_the_message() -> None:
    later = Later()
    transaction = message(asked=later)
    recipient = rcpt(transaction, "both")
    found = transaction.foreseen(recipient, expander("<both@mine.test>"))
    assert [one.nexthop for one in found] == ["good.test", "lacking.test"]
    assert not recipient.expansions
    later.answer("both")
    transaction.settle(recipient)
    assert [one.question for one in recipient.expansions] == found


@pytest.mark.parametrize(
    ("rules", "client", "options", "waits"),
    [
        ({"mode": "reject"}, POSTFIX, {}, True),
        ({"mode": "monitor"}, POSTFIX, {}, False),
        ({"mode": "reject", "suspended": True}, POSTFIX, {}, False),
        ({"nexthop": {"lacking.test": {"mode": "defer"}}}, POSTFIX, {}, True),
        ({"mode": "reject"}, SmtpClient(postfix=True), {}, False),
        ({"mode": "reject", "enforce_for": "all"}, SmtpClient(postfix=True), {}, True),
        ({"mode": "reject"}, POSTFIX, {"by_smtp": False}, False),
    ],
)
def test_rcpt_waits_for_it_only_if_a_rule_could_refuse(
    rules: Mapping[str, Any], client: SmtpClient, options: Mapping[str, Any], waits: bool
) -> None:
    transaction = message(rules, client=client, asked=Later(), **options)
    assert transaction.settles_at_rcpt(rcpt(transaction, "out")) is waits


def test_the_end_waits_for_it_as_long_as_for_a_forecast_that_could_refuse() -> None:
    limits = {"message_wait": 20}
    rules = {"mode": "reject", "decide_wait": 7, "tag_wait": 3}
    transaction = message(rules, asked=Later(), limits=limits)
    rcpt(transaction, "out")
    assert transaction.patience() == 7.0
    assert transaction.patience_for_expansion() == 7.0
    transaction.waited = 18.0
    assert transaction.patience_for_expansion() == 2.0
    monitor = message({"decide_wait": 7, "tag_wait": 3}, asked=Later(), limits=limits)
    rcpt(monitor, "out")
    assert monitor.patience() == 3.0


@pytest.mark.parametrize("rules", [{"mode": "reject"}, {"recipient": {"x.test": {"mode": "off"}}}])
def test_ordinary_mail_is_not_expanded(rules: Mapping[str, Any]) -> None:
    later = Later()
    transaction = message(rules, requiretls=False, asked=later)
    recipient = rcpt(transaction, "out")
    assert not later.futures
    transaction.add_field("tls-required", b" No")
    transaction.end_of_header()
    assert list(later.futures) == ["<out@mine.test>"]
    assert recipient.expanding is not None


def test_it_is_expanded_if_a_rule_may_ask() -> None:
    later = Later()
    rcpt(message({"nexthop": {"x.test": {"require": True}}}, requiretls=False, asked=later), "out")
    assert list(later.futures) == ["<out@mine.test>"]
