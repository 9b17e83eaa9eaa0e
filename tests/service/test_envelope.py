"""The envelope is changed through libmilter as Postfix and Sendmail expect it."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.milterclient import Edit, Outcome
from tests.support.milterprocess import POSTFIX_3_11, SENDMAIL, MilterProcess

Serve = Callable[..., MilterProcess]

SENDER = "<a@x.test>"
BOB = "<bob@example.org>"
ALICE = "<alice@mine.test>"

CHGFROM = 0x40
"""SMFIF_CHGFROM of the milter protocol."""


def senders(outcome: Outcome) -> list[str]:
    """What the MTA is asked to make of the sender: address and parameters."""
    return [
        edit.value.rstrip("\0").replace("\0", " ") for edit in outcome.edits if edit.kind == "e"
    ]


def test_the_mta_is_asked_to_change_the_sender(serve: Serve) -> None:
    milter = serve("headers_only_bounces = true\n")
    client = milter.client()
    outcome = client.message(SENDER, [BOB], parameters=("REQUIRETLS", "RET=FULL"))
    assert senders(outcome) == [f"{SENDER} RET=HDRS"]
    assert senders(client.message(SENDER, [BOB], parameters=("RET=FULL",))) == []
    client.close()


def test_sendmail_is_told_the_mark_and_no_tag_leaves(serve: Serve) -> None:
    milter = serve('envid_mark = "REQUIRETLS"\ntag_leaving = false\n[rules]\nrequire = true\n')
    client = milter.client(SENDMAIL)
    outcome = client.message(
        SENDER, [BOB], parameters=("ENVID=a",), fields=[("X-RequireTLS", " forged")]
    )
    assert senders(outcome) == [f"{SENDER} ENVID=a.REQUIRETLS RET=HDRS"]
    assert [edit for edit in outcome.edits if edit.kind != "e"] == [
        Edit("change", "X-RequireTLS", "", 1)
    ]
    client.close()


def test_a_message_that_stays_is_tagged_also_where_none_may_leave(serve: Serve) -> None:
    milter = serve("tag_leaving = false\n[rules]\nrequire = true\n")
    client = milter.client(SENDMAIL)
    outcome = client.message(SENDER, [ALICE], mailer="local")
    assert [edit.kind for edit in outcome.edits] == ["insert"]
    client.close()


def test_the_right_to_change_the_sender_is_asked_for_only_where_it_is_used(serve: Serve) -> None:
    plain = serve().client()
    changing = serve('envid_mark = "x"\n').client()
    assert not plain.actions & CHGFROM
    assert changing.actions & CHGFROM
    plain.close()
    changing.close()


def test_a_sender_that_cannot_be_handed_back_is_not_marked_but_deferred(serve: Serve) -> None:
    milter = serve(
        'envid_mark = "REQUIRETLS"\n[rules]\nrequire = true\nmode = "defer"\n',
        {"*": {"status": "2.0.0", "reason": "ok", "compliant": True}},
    )
    client = milter.client({**POSTFIX_3_11, "v": "8.17.1"})
    outcome = client.message(b"<\xff@x.test>", [BOB])
    assert outcome.end is not None
    assert outcome.end.text == "451 4.3.0 REQUIRETLS cannot be judged now"
    assert milter.totals()["callback_errors_total{eom}"] == 1
    client.close()
