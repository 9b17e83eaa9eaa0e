"""What the envelope is changed to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.config import Config
from requiretls_milter.milter import envelope
from requiretls_milter.milter.settings import Settings
from requiretls_milter.milter.transaction import SmtpClient, Transaction
from requiretls_milter.model import Capability

POSTFIX = SmtpClient(trusted=True, capability=Capability.REQUIRETLS, postfix=True)
OTHER = SmtpClient(trusted=True, capability=Capability.NOTHING)

SENDER = "<a@x.test>"
BOB = "<bob@example.org>"
ALICE = "<alice@mine.test>"

MARK = "REQUIRETLS"

FULL = (b"REQUIRETLS", b"RET=FULL", b"ENVID=abc", b"SIZE=100", b"BODY=8BITMIME")


def asked(
    parameters: tuple[bytes, ...] = FULL,
    *,
    client: SmtpClient = POSTFIX,
    sender: str = SENDER,
    local: bool = False,
    rules: dict[str, Any] | None = None,
    **options: Any,
) -> str:
    """What is asked of the MTA for a message to bob, and to a local user besides."""
    config = Config.model_validate({"milter": options, "rules": rules or {}})
    message = Transaction(Settings(config), client, sender, parameters)
    message.add_recipient(BOB, "smtp", "example.org")
    if local:
        message.add_recipient(ALICE, "local", "mta.mine.test")
    return message.new_parameters()


# ---------------------------------------------------------------- bounces


def test_r14_ret_full_of_a_requiretls_message_becomes_ret_hdrs() -> None:
    assert asked(headers_only_bounces=True) == "RET=HDRS"


def test_a_message_without_ret_gets_it_too() -> None:
    assert asked((b"REQUIRETLS",), headers_only_bounces=True) == "RET=HDRS"


def test_a_sender_who_wants_the_header_only_is_left_alone() -> None:
    assert asked((b"REQUIRETLS", b"ret=hdrs"), headers_only_bounces=True) == ""


def test_by_default_the_envelope_is_left_alone() -> None:
    assert asked() == ""
    assert Config().milter.envid_mark == ""
    assert not Config().milter.headers_only_bounces


def test_mail_that_asks_nothing_is_left_alone() -> None:
    assert asked((b"RET=FULL",), headers_only_bounces=True, envid_mark=MARK) == ""


@pytest.mark.parametrize("sender", ["<>", ""])
def test_r07_a_null_sender_is_never_changed(sender: str) -> None:
    assert asked(sender=sender, headers_only_bounces=True, envid_mark=MARK) == ""


def test_a_rule_that_is_off_changes_nothing() -> None:
    assert asked(headers_only_bounces=True, envid_mark=MARK, rules={"mode": "off"}) == ""


def test_a_message_with_a_local_recipient_returns_no_body_either() -> None:
    assert asked(local=True, headers_only_bounces=True) == "RET=HDRS"


# ---------------------------------------------------------------- the mark


def test_a_message_with_route_requiretls_is_marked_and_returns_no_body() -> None:
    assert asked(envid_mark=MARK) == "ENVID=abc.REQUIRETLS RET=HDRS"


def test_a_message_without_an_identifier_has_the_mark_alone() -> None:
    assert asked((b"REQUIRETLS",), envid_mark=MARK) == "ENVID=REQUIRETLS RET=HDRS"


def test_a_message_with_a_recipient_who_asks_nothing_is_not_marked() -> None:
    assert asked(local=True, envid_mark=MARK) == ""


def test_sendmail_gets_again_what_it_would_forget() -> None:
    sent = (b"SIZE=100", b"body=8BITMIME", b"RET=FULL", b"ENVID=abc", b"AUTH=a@x", b"BY=120;R")
    rules = {"require": True}
    assert asked(sent, client=OTHER, rules=rules, envid_mark=MARK) == (
        "ENVID=abc.REQUIRETLS BODY=8BITMIME BY=120;R RET=HDRS"
    )
    assert asked(sent, client=OTHER, rules=rules, headers_only_bounces=True) == (
        "ENVID=abc BODY=8BITMIME BY=120;R RET=HDRS"
    )


def test_an_identifier_that_is_marked_already_is_not_marked_again() -> None:
    assert envelope.marked("abc.requiretls", MARK) == "abc.requiretls"
    assert envelope.marked("RequireTLS", MARK) == "RequireTLS"
    assert envelope.marked("notREQUIRETLS", MARK) == "notREQUIRETLS.REQUIRETLS"


@pytest.mark.parametrize(("length", "kept"), [(89, True), (90, False)])
def test_the_mark_counts_for_more_than_a_long_identifier(length: int, kept: bool) -> None:
    marked = envelope.marked("x" * length, MARK)
    assert marked == (f"{'x' * length}.{MARK}" if kept else MARK)
    assert len(marked) <= envelope.MAX_ENVID


@given(st.lists(st.binary(max_size=120), max_size=8), st.booleans())
def test_no_parameter_of_a_client_adds_one_of_its_own(sent: list[bytes], keeps: bool) -> None:
    words = envelope.new_parameters(sent, mark=MARK, keeps=keeps).split(" ")
    names = [word.partition("=")[0] for word in words]
    assert names[0] == "ENVID"
    assert names[-1] == "RET"
    assert names.count("ENVID") == 1
    assert len(set(names)) == len(names)
    assert set(names) <= {"RET", "ENVID", "BODY", "BY"}
    assert all(word.isascii() and word.isprintable() for word in words)


@pytest.mark.parametrize("word", ["", "REQUIRETLS", "tls-only", "a" * 32])
def test_a_word_can_be_a_mark(word: str) -> None:
    assert Config.model_validate({"milter": {"envid_mark": word}}).milter.envid_mark == word


@pytest.mark.parametrize("word", ["a.b", "a b", "a+b", "-a", "a" * 33, "ä", "a\n", 5])
def test_anything_else_can_not(word: object) -> None:
    with pytest.raises(ValueError, match="expected a word"):
        Config.model_validate({"milter": {"envid_mark": word}})
