"""Which recipients go together, and how often one is put off."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from requiretls_milter.config import Config
from requiretls_milter.milter.recipient import Recipient
from requiretls_milter.milter.settings import Settings
from requiretls_milter.milter.splitting import LIFE, MAX_KEPT, MAX_TIMES, PutOff
from requiretls_milter.milter.transaction import SmtpClient, Transaction
from requiretls_milter.model import Action, Capability
from requiretls_milter.rules import Why

STRANGER = SmtpClient(capability=Capability.NOTHING, postfix=True)
ASKED = "bob@bank.example"
"""For whom a rule asks."""

RULES = {"on_mixed": "split", "recipient": {"bank.example": {"require": True, "mode": "reject"}}}


def message(
    *recipients: str,
    parameters: tuple[bytes, ...] = (),
    client: SmtpClient = STRANGER,
    sender: str = "<a@x.test>",
    by_smtp: bool = True,
    **rules: Any,
) -> tuple[Transaction, list[Recipient]]:
    config = Config.model_validate({"rules": {**RULES, **rules}})
    transaction = Transaction(Settings(config), client, sender, parameters, by_smtp=by_smtp)
    return transaction, [add(transaction, recipient) for recipient in recipients]


def add(transaction: Transaction, address: str) -> Recipient:
    """A recipient; those of mine.test are delivered here."""
    domain = address.partition("@")[2]
    mailer = "virtual" if domain == "mine.test" else "smtp"
    return transaction.add_recipient(f"<{address}>", mailer, domain)


@pytest.mark.parametrize(
    ("first", "second", "parted"),
    [
        (ASKED, "eve@other.example", True),
        ("eve@other.example", ASKED, True),
        (ASKED, "carol@bank.example", False),
        ("eve@other.example", "dave@another.example", False),
        ("eve@other.example", "alice@mine.test", False),
        (ASKED, "alice@mine.test", True),
    ],
)
def test_recipients_are_parted_if_their_routes_differ(
    first: str, second: str, parted: bool
) -> None:
    transaction, (_, newest) = message(first, second)
    assert transaction.parts(newest) is parted


@pytest.mark.parametrize(
    ("first", "second", "parted"),
    [
        ("eve@other.example", ASKED, False),
        (ASKED, "alice@mine.test", True),
        ("alice@mine.test", "carol@mine.test", False),
    ],
)
def test_with_the_parameter_only_local_recipients_are_parted_from_the_others(
    first: str, second: str, parted: bool
) -> None:
    transaction, (_, newest) = message(first, second, parameters=(b"REQUIRETLS",))
    assert transaction.parts(newest) is parted


def test_the_first_recipient_is_never_put_off() -> None:
    transaction, (first,) = message(ASKED)
    assert not transaction.parts(first)


def test_a_recipient_that_was_put_off_parts_no_other_from_the_message() -> None:
    transaction, (_, second) = message(ASKED, "eve@other.example")
    assert transaction.parts(second)
    transaction.put_off(second)
    assert not transaction.parts(add(transaction, "carol@bank.example"))
    assert transaction.parts(add(transaction, "dave@another.example"))


@pytest.mark.parametrize(
    "exempt",
    [
        {"client": SmtpClient(authenticated=True)},
        {"sender": "<>"},
        {"by_smtp": False},
        {"on_mixed": "accept"},
        {"suspended": True},
    ],
    ids=["a mail program", "r7 a bounce", "sendmail(1)", "not configured", "suspended"],
)
def test_a_client_that_would_not_bring_it_again_is_never_asked_to(exempt: dict[str, Any]) -> None:
    transaction, (_, second) = message(ASKED, "eve@other.example", **exempt)
    assert not transaction.parts(second)


def test_without_a_rule_nor_the_parameter_all_mail_goes_together() -> None:
    transaction, (_, second) = message("eve@other.example", "alice@mine.test", recipient={})
    assert not transaction.parts(second)


def test_a_recipient_that_is_put_off_leaves_the_message_whose_route_is_clear_then() -> None:
    transaction, (first, second) = message(ASKED, "eve@other.example")
    reply = transaction.put_off(second)
    assert (reply.code, reply.enhanced) == (452, "4.5.3")
    assert second.decision is not None
    assert (second.decision.action, second.decision.why) == (Action.DEFER, Why.MIXED)
    assert transaction.recipients == [first]
    tag = transaction.tag()
    assert tag is not None
    assert tag.route == "requiretls"
    assert not transaction.all_refused


# ---------------------------------------------------------------- how often


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_same_recipient_of_the_same_message_is_put_off_three_times_a_day() -> None:
    clock = Clock()
    put_off = PutOff(clock)
    message = ("192.0.2.1", "<a@x.test>", b"SIZE=1000", "<bob@bank.example>", "<eve@other.example>")
    assert [put_off.once_more(*message) for _ in range(MAX_TIMES + 2)] == [True] * 3 + [False] * 2
    assert put_off.once_more(*message[:2], b"SIZE=1001", *message[3:]), "another message"
    clock.now += LIFE
    assert put_off.once_more(*message), "another day"


def test_what_is_remembered_is_bounded() -> None:
    put_off = PutOff()
    for _ in range(MAX_TIMES):
        put_off.once_more("first")
    assert not put_off.once_more("first")
    for number in range(MAX_KEPT):
        put_off.once_more(str(number))
    assert put_off.once_more("first"), "forgotten, and put off anew"


def test_many_threads_may_put_off_at_once() -> None:
    put_off = PutOff()
    answers: list[bool] = []
    threads = [
        threading.Thread(target=lambda: answers.append(put_off.once_more("one"))) for _ in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.count(True) == MAX_TIMES
