"""libmilter itself, spoken to as Postfix does."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest

from tests.support import milterclient
from tests.support.milterclient import CONTINUE, Edit, Outcome, edited
from tests.support.milterprocess import POSTFIX_3_10, POSTFIX_3_11, SENDMAIL, MilterProcess
from tests.support.processes import alive
from tests.support.waiting import eventually

Serve = Callable[..., MilterProcess]

SENDER = "<a@x.test>"
BOB = "<bob@example.org>"
REQUIRETLS = ("REQUIRETLS",)

NOT_OFFERED = {"status": "5.7.30", "reason": "requiretls_not_offered", "mx": "mx1.example.org"}
NOT_VERIFIED = {"status": "5.7.10", "reason": "certificate_not_verified", "mx": "mx1.example.net"}
GOOD = {"status": "2.0.0", "reason": "ok", "compliant": True, "mx": "mx1.example.com"}
HANDSHAKE = {"status": "4.7.5", "reason": "tls_handshake_failed", "mx": "mx1.example.org"}
UNVERIFIED = {"status": "2.0.0", "reason": "noncompliant_unverified", "compliant": False}
NEVER = {**GOOD, "after": "never"}

SCRIPT = {
    "example.org": NOT_OFFERED,
    "example.net": NOT_VERIFIED,
    "example.com": GOOD,
    "handshake.test": HANDSHAKE,
    "unverified.test": UNVERIFIED,
    "never.test": NEVER,
}

REJECT = '[rules]\nmode = "reject"\n'
DEFER = '[rules]\nmode = "defer"\n'
NOT_OFFERED_REPLY = (
    "550 5.7.30 REQUIRETLS cannot be honoured for example.org: "
    "mx1.example.org does not offer REQUIRETLS"
)


def tags(outcome: Outcome) -> list[str]:
    """Values of the tags that were inserted."""
    return [edit.value for edit in outcome.edits if edit.kind == "insert"]


def replies(outcome: Outcome) -> list[str]:
    return [reply.text or reply.kind for reply in outcome.rcpt]


# ---------------------------------------------------------------- negotiation


def test_only_wanted_events_and_replies_are_negotiated_and_only_needed_macros(
    serve: Serve,
) -> None:
    with serve().client() as client:
        assert client.protocol == (
            milterclient.NO_HELO
            | milterclient.NO_DATA
            | milterclient.NO_EOH
            | milterclient.NO_BODY
            | milterclient.NO_UNKNOWN
            | milterclient.NR_CONNECT
            | milterclient.NR_MAIL
            | milterclient.NR_HEADER
        )
        assert client.actions == 0x01 | 0x10 | 0x100  # add, change fields; macro lists
        mail = ["i", "{auth_authen}", "{tls_version}", "{mail_addr}"]
        assert client.macro_lists["mail"].split() == mail
        rcpt = ["i", "{rcpt_mailer}", "{rcpt_host}", "{rcpt_addr}"]
        assert client.macro_lists["rcpt"].split() == rcpt
        assert "v" in client.macro_lists["connect"].split()


@pytest.mark.parametrize(
    ("version", "protocol", "actions"),
    [(2, 0x3F, 0x3F), (4, 0x3FF, 0x3F), (6, 0, 0x1FF), (6, 0x1FFFFF, 0x3F), (6, 0x1FFFFF, 0x1FF)],
)
def test_mtas_that_know_less_of_the_protocol_are_served_as_well(
    serve: Serve, version: int, protocol: int, actions: int
) -> None:
    milter = serve(REJECT, SCRIPT)
    with milter.client(version=version, protocol=protocol, actions=actions) as client:
        outcome = client.message(
            SENDER, [BOB, "<c@example.com>"], parameters=REQUIRETLS, fields=[("X-RequireTLS", " f")]
        )
        assert replies(outcome) == [NOT_OFFERED_REPLY, "continue"]
        assert [edit.kind for edit in outcome.edits] == ["change", "insert"]
        assert client.unsolicited() == b""


def test_what_is_negotiated_is_logged_once_and_a_lack_of_it_warned_of(serve: Serve) -> None:
    milter = serve()
    for _ in range(3):
        milter.client().close()
    (line,) = milter.wait_for_event("negotiated")
    assert (line["level"], line["missing_protocol"]) == ("info", "0x0")
    milter.client(protocol=0x3F).close()
    line = milter.wait_for_event("negotiated", 2)[1]
    assert line["level"] == "warning"


# ---------------------------------------------------------------- the tag


def test_a_message_that_asks_is_tagged_at_the_top_with_its_forecast(serve: Serve) -> None:
    milter = serve("", SCRIPT)
    with milter.client() as client:
        fields = [("From", " a"), ("Subject", " t")]
        outcome = client.message(SENDER, [BOB], parameters=REQUIRETLS, fields=fields)
        assert outcome.end == CONTINUE
        expected = (
            "requirement=requiretls; source=esmtp; forecast=5.7.30; "
            "reason=requiretls_not_offered; route=requiretls; by=mta.example.net"
        )
        assert outcome.edits == [Edit("insert", "X-RequireTLS", expected, 0)]
        header = edited(fields, outcome.edits)
        assert header[0] == ("X-RequireTLS", expected)
        assert client.unsolicited() == b""
    assert milter.asked == ["example.org smtp requiretls requiretls"]


def test_plain_mail_is_not_assessed_and_gets_no_tag(serve: Serve) -> None:
    milter = serve("", SCRIPT)
    with milter.client() as client:
        outcome = client.message(SENDER, [BOB])
        assert (outcome.end, outcome.edits) == (CONTINUE, [])
    assert milter.asked == []
    eventually(lambda: milter.totals().get("messages_total{none,accept}") == 1)
    assert not any(name.startswith("forecast") for name in milter.totals())


def test_tls_required_no_is_tagged_as_tls_optional(serve: Serve) -> None:
    milter = serve("", SCRIPT)
    with milter.client() as client:
        outcome = client.message(SENDER, ["<c@example.com>"], fields=[("TLS-Required", " No")])
        assert tags(outcome)[0].startswith(
            "requirement=tls-required-no; source=tls-required; forecast=2.0.0; reason=ok; "
            "route=tls-optional;"
        )
    assert milter.asked == ["example.com smtp tls-required-no tls-required-no"]


@pytest.mark.parametrize(
    ("macros", "carried"),
    [(POSTFIX_3_11, "requiretls"), (POSTFIX_3_10, "none"), (SENDMAIL, "none"), ({}, "none")],
)
def test_what_the_mta_carries_is_read_from_its_version(
    serve: Serve, macros: dict[str, str], carried: str
) -> None:
    milter = serve("", SCRIPT)
    with milter.client(macros) as client:
        client.message(SENDER, [BOB], parameters=REQUIRETLS)
    assert milter.asked == [f"example.org smtp requiretls {carried}"]


def test_more_than_one_next_hop_withholds_the_forecast(serve: Serve) -> None:
    with serve("", SCRIPT).client() as client:
        outcome = client.message(SENDER, [BOB, "<c@example.com>"], parameters=REQUIRETLS)
        (tag,) = tags(outcome)
        assert "forecast=withheld; reason=withheld; route=requiretls;" in tag


def test_local_and_remote_recipients_make_a_mixed_route(serve: Serve) -> None:
    with serve("", SCRIPT).client() as client:
        client.mail(SENDER, "REQUIRETLS")
        client.rcpt(BOB)
        client.rcpt("<alice@mine.test>", mailer="local", host="mta.mine.test")
        client.eoh()
        client.eom()
        (edit,) = client.edits
        assert "forecast=withheld; reason=withheld; route=mixed;" in edit.value


def test_r02_the_parameter_is_honoured_without_a_tls_macro_and_the_lack_of_it_logged(
    serve: Serve,
) -> None:
    milter = serve("", SCRIPT)
    for version in ("", "TLSv1.3"):
        macros = {**POSTFIX_3_11, **({"{tls_version}": version} if version else {})}
        with milter.client(macros) as client:
            assert tags(client.message(SENDER, [BOB], parameters=REQUIRETLS))
    lines = milter.wait_for_event("recipient", 2)
    assert [line["tls_version"] for line in lines] == ["", "TLSv1.3"]


def test_r16_submission_is_handled_as_relay_is(serve: Serve) -> None:
    milter = serve(REJECT, SCRIPT)
    macros = {**POSTFIX_3_11, "{auth_authen}": "alice", "{daemon_name}": "submission"}
    with milter.client(macros, address="192.0.2.9") as client:
        outcome = client.message(
            SENDER, [BOB, "<c@example.com>"], parameters=["AUTH=<>", "REQUIRETLS"]
        )
        assert replies(outcome) == [NOT_OFFERED_REPLY, "continue"]
        assert len(tags(outcome)) == 1


def test_mail_of_the_pickup_service_has_no_macros_and_its_field_asks(serve: Serve) -> None:
    milter = serve("", SCRIPT)
    with milter.client() as client:
        outcome = client.message(
            "a@x.test", ["bob@example.org"], fields=[("Require-TLS-ESMTP", " yes")], mailer=None
        )
        assert "source=require-tls-esmtp; forecast=5.7.30;" in tags(outcome)[0]
    assert milter.asked == ["example.org smtp requiretls requiretls"], "mta.default_transport"


POSTFIX_3_7 = {**POSTFIX_3_11, "v": "Postfix 3.7.11"}
REQUIRED = '[rules]\nmode = "reject"\nrequire = true\n'


@pytest.mark.parametrize("recipients", [[BOB], [BOB, "<c@example.com>"]])
def test_mail_of_the_pickup_service_is_refused_at_its_end_and_not_at_rcpt(
    serve: Serve, recipients: list[str]
) -> None:
    milter = serve(REQUIRED + "[milter]\nheaders_only_bounces = true\n", SCRIPT)
    with milter.client(POSTFIX_3_7) as client:
        client.by_smtp = False
        outcome = client.message("a@x.test", recipients, mailer=None)
        assert replies(outcome) == ["continue"] * len(recipients)
        assert outcome.end is not None
        ours = "; a rule of this system requires REQUIRETLS"
        assert outcome.end.text == NOT_OFFERED_REPLY + ours
        # Postfix makes the bounce itself, at once
        (edit,) = outcome.edits
        assert (edit.kind, edit.value.rstrip("\0").split("\0")) == ("e", ["a@x.test", "RET=HDRS"])
    lines = milter.wait_for_event("recipient", len(recipients))
    assert [line["action"] for line in lines] == ["reject"] * len(recipients)


@pytest.mark.parametrize("domain", ["example.net", "never.test", "unheard.test"])
def test_mail_of_the_pickup_service_is_never_deferred(serve: Serve, domain: str) -> None:
    wait = 'decide_wait = 0.2\non_temporary = "defer"\n'
    milter = serve(REQUIRED + wait, SCRIPT)
    with milter.client(POSTFIX_3_7) as client:
        client.by_smtp = False
        outcome = client.message("a@x.test", [f"u@{domain}"], mailer=None)
        assert outcome.end is not None
        assert outcome.end.text.startswith("550 5.7.")


@pytest.mark.parametrize(("macros", "refused"), [(POSTFIX_3_7, True), (POSTFIX_3_11, False)])
def test_a_failure_of_ours_never_defers_mail_of_the_pickup_service(
    serve: Serve, macros: dict[str, str], refused: bool
) -> None:
    for method in ("decide_message", "add_recipient"):
        milter = serve('[rules]\nmode = "reject"\n', SCRIPT, sabotage=method)
        with milter.client(macros) as client:
            client.by_smtp = False
            outcome = client.message(
                "a@x.test", ["c@example.com"], fields=[("Require-TLS-ESMTP", " yes")], mailer=None
            )
            assert replies(outcome) == ["continue"]
            assert outcome.end is not None
            expected = refused and method == "decide_message"
            assert outcome.end.text.startswith("550 5.3.0 " if expected else "")
            assert outcome.end.passed is not expected


def test_sendmails_macros_are_understood(serve: Serve) -> None:
    milter = serve("", SCRIPT)
    with milter.client(SENDMAIL) as client:
        client.mail(SENDER, "REQUIRETLS")
        client.rcpt(BOB, mailer="esmtp", host="example.org.")
        client.eoh()
        client.eom()
        assert "forecast=5.7.30;" in client.edits[0].value


def test_the_name_of_the_field_and_of_the_host_are_the_operators(serve: Serve) -> None:
    config = '[milter]\nheader_name = "X-Path"\nby = "gate.example.net"\n'
    with serve(config, SCRIPT).client() as client:
        fields = [("x-path", " forged"), ("X-RequireTLS", " not ours")]
        outcome = client.message(SENDER, [BOB], parameters=REQUIRETLS, fields=fields)
        assert outcome.edits[0] == Edit("change", "X-Path", "", 1)
        assert outcome.edits[1].name == "X-Path"
        assert outcome.edits[1].value.endswith("; by=gate.example.net")
        assert len(outcome.edits) == 2


# ---------------------------------------------------------------- forged tags


FORGED = [
    ("X-RequireTLS", " requirement=none; route=default"),
    ("x-requiretls", " lower case"),
    ("X-REQUIRETLS", ""),
    ("X-RequireTLS", " folded\n\tand folded\n\tagain"),
    ("X-RequireTLS ", " blanks before the colon"),
    ("X-RequireTLS\t", " a tab before the colon"),
    ("X-RequireTLS", " " + "x" * 60_000),
]


@pytest.mark.parametrize("parameters", [(), REQUIRETLS])
def test_r63_forged_tags_are_removed_whatever_their_number_case_and_folding(
    serve: Serve, parameters: tuple[str, ...]
) -> None:
    milter = serve("", SCRIPT)
    others = [("X-RequireTLS-Other", " stays"), ("X-Require-TLS", " stays"), ("Subject", " s")]
    fields = [field for pair in zip(FORGED, others * 3, strict=False) for field in pair]
    with milter.client() as client:
        outcome = client.message(SENDER, [BOB], parameters=parameters, fields=fields)
        kept = edited(fields, outcome.edits)
        ours = [value for name, value in kept if name.strip().lower() == "x-requiretls"]
        assert len(ours) == (1 if parameters else 0)
        assert all(value.startswith("requirement=requiretls; source=esmtp;") for value in ours)
        assert sum("stays" in value for _, value in kept) == sum(
            "stays" in value for _, value in fields
        )
        removals = [edit.index for edit in outcome.edits if edit.kind == "change"]
        assert removals == list(range(len(FORGED), 0, -1))
    (line,) = milter.wait_for_event("message")
    assert line["tags_removed"] == len(FORGED)


@pytest.mark.parametrize("config", ['[rules]\nmode = "off"\n', "", REJECT])
def test_r63_forged_tags_are_removed_in_every_mode(serve: Serve, config: str) -> None:
    with serve(config, SCRIPT).client() as client:
        outcome = client.message(SENDER, ["<c@example.com>"], fields=FORGED[:2])
        assert [edit.value for edit in outcome.edits] == ["", ""]


def test_r63_a_hundred_forged_tags_are_removed(serve: Serve) -> None:
    with serve().client() as client:
        fields = [("X-RequireTLS", " f")] * 100
        outcome = client.message(SENDER, [BOB], fields=fields)
        assert len(edited(fields, outcome.edits)) == 1  # the MTA's own Received


TOO_MANY = "550 5.7.1 more than 100 header fields X-RequireTLS: only this system writes them"


@pytest.mark.parametrize("copies", [101, 5000])
@pytest.mark.parametrize("sender", [SENDER, "<>"])
@pytest.mark.parametrize("parameters", [(), REQUIRETLS])
@pytest.mark.parametrize("config", ['[rules]\nmode = "off"\n', "", REJECT])
def test_a_message_with_more_forged_tags_is_refused_in_every_mode(
    serve: Serve, config: str, parameters: tuple[str, ...], sender: str, copies: int
) -> None:
    """The MTA is asked to change nothing of it; a bounce does not have that many either."""
    milter = serve(config, SCRIPT)
    fields = [("X-RequireTLS", " f")] * copies
    with milter.client() as client:
        outcome = client.message(sender, ["<c@example.com>"], parameters=parameters, fields=fields)
        assert outcome.end is not None
        assert (outcome.end.text, outcome.edits) == (TOO_MANY, [])
        assert client.message(SENDER, ["<c@example.com>"]).end == CONTINUE
    (line,) = milter.wait_for_event("message")
    assert (line["action"], line["tags_removed"]) == ("reject", copies)
    totals = eventually(lambda: "saturated_total{tags}" in milter.totals() and milter.totals())
    assert totals["saturated_total{tags}"] == 1
    asked = "requiretls" if parameters else "none"
    counted = totals.get(f"recipients_total{{{asked},reject}}", 0)
    assert counted == (0 if "off" in config else 1)


def test_how_many_forged_tags_are_removed_is_the_operators_choice(serve: Serve) -> None:
    with serve("[limits]\ntags = 3\n").client() as client:
        for copies in (3, 4):
            outcome = client.message(SENDER, [BOB], fields=[("X-RequireTLS", " f")] * copies)
            assert outcome.end is not None
            assert outcome.end.passed is (copies == 3)


def test_mail_of_the_pickup_service_with_too_many_forged_tags_is_refused_too(serve: Serve) -> None:
    """Postfix bounces it; deferred, it would stay in maildrop for ever."""
    with serve().client(POSTFIX_3_7) as client:
        client.by_smtp = False
        fields = [("X-RequireTLS", " f")] * 101
        outcome = client.message("a@x.test", ["bob@example.org"], fields=fields, mailer=None)
        assert outcome.end is not None
        assert outcome.end.text == TOO_MANY


@pytest.mark.parametrize("macros", [POSTFIX_3_11, SENDMAIL])
def test_what_the_mta_is_asked_to_change_is_bounded_whatever_a_stranger_sends(
    serve: Serve, macros: dict[str, str]
) -> None:
    """A deletion for each tag up to the limit, one field, one change of the sender."""
    options = '[milter]\nheaders_only_bounces = true\nenvid_mark = "REQUIRETLS"\n'
    many = [f"X{n}={'y' * 900}" for n in range(40)] + ["ENVID=" + "e" * 900, "BY=" + "9" * 900]
    fields = [("X-RequireTLS", " f" * 30_000)] * 100 + [("TLS-Required", " x")] * 2000
    with serve(options + "[rules]\nrequire = true\n", SCRIPT).client(macros) as client:
        client.mail(SENDER, *many)
        for number in range(1000):
            client.rcpt(f"<u{number}@d{number}.example>")
        for name, value in fields:
            client.header(name, value)
        client.eoh()
        assert client.eom() == CONTINUE
        kinds = [edit.kind for edit in client.edits]
        assert [kinds.count(kind) for kind in ("change", "insert", "e")] == [100, 1, 1]
        assert len(kinds) == 102
        assert all(len(edit.value) < 1000 for edit in client.edits)


# ---------------------------------------------------------------- refusing


def test_reject_refuses_at_rcpt_and_other_recipients_go_on(serve: Serve) -> None:
    milter = serve(REJECT, SCRIPT)
    with milter.client() as client:
        recipients = [BOB, "<c@example.com>", "<d@example.net>", "<e@handshake.test>"]
        outcome = client.message(SENDER, recipients, parameters=REQUIRETLS)
        assert replies(outcome) == [
            NOT_OFFERED_REPLY,
            "continue",
            "550 5.7.10 REQUIRETLS cannot be honoured for example.net: "
            "the certificate of mx1.example.net does not verify",
            "continue",
        ]
        assert outcome.end == CONTINUE
    eventually(lambda: milter.totals().get("messages_total{requiretls,accept}") == 1)
    totals = milter.totals()
    assert totals["recipients_total{requiretls,reject}"] == 2
    assert totals["recipients_total{requiretls,accept}"] == 2
    assert totals["forecasts_total{requiretls,5.7.30,requiretls_not_offered}"] == 1
    assert totals["forecast_wait_seconds_count"] == 4


def test_defer_answers_451_of_one_class(serve: Serve) -> None:
    with serve(DEFER, SCRIPT).client() as client:
        outcome = client.message(
            SENDER, [BOB, "<e@handshake.test>", "<d@example.net>"], parameters=REQUIRETLS
        )
        assert [text[:9] for text in replies(outcome)] == ["451 4.7.3", "451 4.7.5", "451 4.7.1"]
        assert outcome.end is None


def test_a_message_all_of_whose_recipients_are_refused_is_counted_once_as_refused(
    serve: Serve,
) -> None:
    milter = serve(REJECT, SCRIPT)
    with milter.client() as client:
        client.message(SENDER, [BOB, BOB], parameters=REQUIRETLS)
        client.message(SENDER, ["<c@example.com>"], parameters=REQUIRETLS)
    eventually(lambda: milter.totals().get("messages_total{requiretls,accept}") == 1)
    assert milter.totals()["messages_total{requiretls,reject}"] == 1
    assert milter.totals()["recipients_total{requiretls,reject}"] == 2


@pytest.mark.parametrize(
    ("parameters", "fields", "sender", "source"),
    [
        (REQUIRETLS, [], SENDER, "esmtp"),
        (REQUIRETLS, [("Require-TLS-ESMTP", " yes")], "<a@bank.example>", "esmtp"),
        ((), [("Require-TLS-ESMTP", " yes")], "<a@bank.example>", "require-tls-esmtp"),
        ((), [], "<a@bank.example>", "rule"),
        ((), [("TLS-Required", " No")], SENDER, "tls-required"),
        ((), [], SENDER, "none"),
    ],
)
def test_the_source_that_won_is_the_same_in_tag_log_and_metrics(
    serve: Serve, parameters: tuple[str, ...], fields: list[Any], sender: str, source: str
) -> None:
    config = '[rules.sender."bank.example"]\nrequire = true\n[log]\nlevel = "debug"\n'
    milter = serve(config + 'format = "json"\n', SCRIPT)
    with milter.client() as client:
        outcome = client.message(
            sender, [BOB, "<c@example.com>"], parameters=parameters, fields=fields
        )
    said = [re.findall(r"; source=([\w-]+);", tag) for tag in tags(outcome)]
    assert said == ([] if source == "none" else [[source]])
    (line,) = milter.wait_for_event("message")
    assert line["source"] == source
    assert {line["source"] for line in milter.events("recipient")} <= {source}
    eventually(lambda: milter.totals().get(f"requirement_sources_total{{{source}}}") == 1)
    assert sum_of(milter, "requirement_sources_total") == 1


def test_sources_are_counted_for_the_messages_that_are_counted_and_no_others(serve: Serve) -> None:
    """A refused one once, an aborted one not, nothing where a rule says off."""
    off = '[rules.recipient."example.net"]\nmode = "off"\n'
    milter = serve(REJECT + off, SCRIPT)
    with milter.client() as client:
        client.message(SENDER, [BOB, BOB], parameters=REQUIRETLS)  # refused at RCPT
        client.message(SENDER, [BOB], fields=[("Require-TLS-ESMTP", " yes")])  # at its end
        client.message(SENDER, ["<d@example.net>"], parameters=REQUIRETLS)  # mode off
        client.mail(SENDER, "REQUIRETLS")
        client.rcpt("<c@example.com>")
        client.abort()
        client.message(SENDER, ["<c@example.com>"])
    eventually(lambda: milter.totals().get("requirement_sources_total{none}") == 1)
    assert milter.totals()["requirement_sources_total{esmtp}"] == 1
    assert milter.totals()["requirement_sources_total{require-tls-esmtp}"] == 1
    assert sum_of(milter, "requirement_sources_total") == sum_of(milter, "messages_total") == 3


def sum_of(milter: MilterProcess, name: str) -> float:
    """Over all labels."""
    return sum(value for key, value in milter.totals().items() if key.startswith(name + "{"))


def test_what_is_known_only_from_the_header_is_refused_at_the_end(serve: Serve) -> None:
    milter = serve(REJECT, SCRIPT)
    with milter.client() as client:
        fields = [("Require-TLS-ESMTP", " yes"), ("X-RequireTLS", " forged")]
        outcome = client.message(SENDER, [BOB, "<bill@example.org>"], fields=fields)
        assert replies(outcome) == ["continue", "continue"]
        assert outcome.end is not None
        assert outcome.end.text == NOT_OFFERED_REPLY
        assert outcome.edits == []
        mixed = client.message(SENDER, [BOB, "<c@example.com>"], fields=fields)
        assert mixed.end == CONTINUE
        assert len(mixed.edits) == 2
    eventually(lambda: milter.totals().get("messages_total{requiretls,accept}") == 1)
    assert milter.totals()["messages_total{requiretls,reject}"] == 1
    assert milter.totals()["recipients_total{requiretls,reject}"] == 2
    assert milter.totals()["recipients_total{requiretls,accept}"] == 2


def test_tls_required_no_against_a_rule_is_refused_at_the_end(serve: Serve) -> None:
    config = '[rules.sender."x.test"]\nmode = "reject"\nrequire = true\n'
    with serve(config, SCRIPT).client() as client:
        good = "<c@example.com>"
        assert client.message(SENDER, [good]).end == CONTINUE
        outcome = client.message(SENDER, [good], fields=[("TLS-Required", " no")])
        assert replies(outcome) == ["continue"]
        assert outcome.end is not None
        assert outcome.end.text.startswith("550 5.7.10 TLS-Required: No contradicts")


@pytest.mark.parametrize("sender", ["<>", ""])
def test_r07_the_null_sender_is_tagged_and_never_refused(serve: Serve, sender: str) -> None:
    with serve(REJECT, SCRIPT).client() as client:
        outcome = client.message(sender, [BOB], parameters=REQUIRETLS)
        assert replies(outcome) == ["continue"]
        assert outcome.end == CONTINUE
        assert "forecast=5.7.30;" in tags(outcome)[0]


@pytest.mark.parametrize(
    ("enforce_for", "address", "authenticated", "refused"),
    [
        ("trusted", "127.0.0.1", False, True),
        ("trusted", "::1", False, True),
        ("trusted", "192.0.2.1", False, False),
        ("trusted", "2001:db8::1", False, False),
        ("trusted", "192.0.2.1", True, True),
        ("authenticated", "127.0.0.1", False, False),
        ("authenticated", "192.0.2.1", True, True),
        ("all", "192.0.2.1", False, True),
    ],
)
def test_a_stranger_is_told_nothing_and_tagged_all_the_same(
    serve: Serve, enforce_for: str, address: str, authenticated: bool, refused: bool
) -> None:
    milter = serve(f'{REJECT}enforce_for = "{enforce_for}"\n', SCRIPT)
    macros = {**POSTFIX_3_11, **({"{auth_authen}": "alice"} if authenticated else {})}
    with milter.client(macros, address=address) as client:
        outcome = client.message(SENDER, [BOB], parameters=REQUIRETLS)
        assert replies(outcome) == [NOT_OFFERED_REPLY if refused else "continue"]
        assert len(tags(outcome)) == (0 if refused else 1)


def test_a_client_that_the_mta_did_not_tell_is_a_stranger(serve: Serve) -> None:
    with serve(REJECT, SCRIPT).client(connect=False) as client:
        client.event("connect", b"unknown\0U")
        outcome = client.message(SENDER, [BOB], parameters=REQUIRETLS)
        assert replies(outcome) == ["continue"]


def test_rules_by_domain_meet_the_recipients_and_the_next_hops(serve: Serve) -> None:
    config = (
        '[rules.recipient."example.org"]\nmode = "reject"\n'
        '[rules.nexthop."relay.test"]\nmode = "defer"\n'
    )
    script = {**SCRIPT, "[relay.test]:587": NOT_OFFERED}
    milter = serve(config, script)
    with milter.client() as client:
        client.mail(SENDER, "REQUIRETLS")
        assert client.rcpt("<bob@Example.ORG>", host="Example.ORG").text.startswith("550 5.7.30")
        assert client.rcpt("<b@x.test>", host="[relay.test]:587").text.startswith("451 4.7.30")
        assert client.rcpt("<b@example.net>") == CONTINUE
        client.eoh()
        assert client.eom() == CONTINUE
    eventually(lambda: milter.totals().get("messages_total{requiretls,accept}") == 1)
    totals = milter.totals()
    assert totals["domain_forecasts_total{example.org,5.7.30}"] == 1
    assert totals["domain_forecasts_total{relay.test,5.7.30}"] == 1
    assert totals["domain_forecasts_total{other,5.7.10}"] == 1


def test_a_forecast_that_ended_while_the_message_came_in_is_asked_for_anew(serve: Serve) -> None:
    script = {"long.test": {**GOOD, "valid_until": 4e9}, "over.test": {**GOOD, "valid_until": 1.0}}
    milter = serve("", script)
    with milter.client() as client:
        client.message(SENDER, ["<a@long.test>", "<b@over.test>"], parameters=REQUIRETLS)
    assert [line.split()[0] for line in milter.asked] == ["long.test", "over.test", "over.test"]


def test_a_noncompliant_delivery_that_is_accepted_is_counted(serve: Serve) -> None:
    milter = serve(REJECT, SCRIPT)
    with milter.client() as client:
        accepted = client.message(SENDER, ["<u@unverified.test>"], parameters=REQUIRETLS)
        assert replies(accepted) == ["continue"]
    with milter.client(SENDMAIL) as client:
        refused = client.message(SENDER, ["<u@unverified.test>"], parameters=REQUIRETLS)
        assert refused.rcpt[0].text.startswith("550 5.7.10 ")
    name = "noncompliant_deliveries_total{noncompliant_unverified}"
    eventually(lambda: milter.totals().get(name) == 1)


def test_r62_percent_signs_in_a_reply_arrive_as_they_are(serve: Serve) -> None:
    with serve(DEFER, SCRIPT).client() as client:
        client.mail(SENDER, "REQUIRETLS")
        reply = client.rcpt("<bob@100%s%n%%d.test>", host="handshake.test")
        assert reply.text.startswith(
            "451 4.7.5 REQUIRETLS cannot be honoured now for 100%s%n%%d.test: "
        )
        long = client.rcpt("<bob@" + "%" * 900 + ".test>", host="handshake.test")
        assert long.text.startswith("451 4.7.5 REQUIRETLS cannot be honoured now for %%%%")
        hostile = client.rcpt(b"<bob@\xff\xc3\xb6\x01\x7f.test>", host="handshake.test")
        assert hostile.text.startswith("451 4.7.5 REQUIRETLS")


# ---------------------------------------------------------------- several messages, aborts


def test_messages_on_one_connection_do_not_know_of_one_another(serve: Serve) -> None:
    milter = serve("", SCRIPT)
    with milter.client() as client:
        for _ in range(3):
            asked = client.message(
                SENDER, [BOB], parameters=REQUIRETLS, fields=[("X-RequireTLS", " forged")]
            )
            assert [edit.kind for edit in asked.edits] == ["change", "insert"]
            optional = client.message(SENDER, [BOB], fields=[("TLS-Required", " No")])
            assert "requirement=tls-required-no;" in tags(optional)[0]
            assert client.message(SENDER, [BOB]).edits == []
    eventually(lambda: milter.totals().get("messages_total{none,accept}") == 3)


def test_aborted_messages_leave_nothing_behind_and_are_not_counted(serve: Serve) -> None:
    milter = serve("", SCRIPT)
    with milter.client() as client:
        for stage in range(5):
            client.mail(SENDER, "REQUIRETLS")
            if stage > 0:
                client.rcpt(BOB)
            if stage > 1:
                client.header("X-RequireTLS", " forged")
                client.header("TLS-Required", " No")
            if stage > 2:
                client.eoh()
            if stage > 3:
                client.mail(SENDER, "REQUIRETLS")  # RSET that the MTA did not tell
                client.rcpt(BOB)
            client.abort()
        assert client.message(SENDER, ["<c@example.com>"]).edits == []
    eventually(lambda: milter.totals().get("messages_total{none,accept}") == 1)
    assert "messages_total{requiretls,accept}" not in milter.totals()
    assert "recipients_total{requiretls,accept}" not in milter.totals()


def test_a_connection_that_breaks_off_in_a_message_is_over(serve: Serve) -> None:
    milter = serve("", {"*": NEVER})
    client = milter.client()
    client.mail(SENDER, "REQUIRETLS")
    client.rcpt(BOB)
    client.unsolicited()
    eventually(lambda: milter.state()[0] == 1)
    client.break_off()
    eventually(lambda: milter.state()[0] == 0)
    with milter.client() as other:
        assert other.message(SENDER, [BOB]).end == CONTINUE


# ---------------------------------------------------------------- hostile input


def test_r01_a_parameter_of_ten_kilobytes_asks_nothing_and_harms_nothing(serve: Serve) -> None:
    with serve("", SCRIPT).client() as client:
        huge = client.message(SENDER, [BOB], parameters=["REQUIRETLS" + "x" * 10_000, "A=" * 5000])
        assert huge.edits == []
        many = client.message(SENDER, [BOB], parameters=["X=1"] * 1000 + ["requiretls"])
        assert len(tags(many)) == 1


def test_two_thousand_fields_and_any_bytes_in_them_pass(serve: Serve) -> None:
    with serve("", SCRIPT).client() as client:
        fields: list[tuple[str | bytes, str | bytes]] = [
            (f"X-{number}", " " + "v" * 30) for number in range(2000)
        ]
        fields += [
            ("Subject", b" \xff\xfe\xc3"),
            ("TLS-Required", b" \xff No"),
            ("Received", b" \xff(requiretls)\xfe"),
            ("X-RequireTLS", b" \xff\xff"),
            (b"X-\xff\xfe", b" a name that is no UTF-8"),
            ("TLS-Required", b" No"),
        ]
        outcome = client.message(SENDER, [BOB], fields=fields)
        assert "requirement=tls-required-no;" in tags(outcome)[0]
        assert [edit.index for edit in outcome.edits] == [1, 0]
        assert client.unsolicited() == b""


def test_a_field_name_that_is_no_utf8_neither_stops_the_message_nor_saves_a_forged_tag(
    serve: Serve,
) -> None:
    milter = serve("", SCRIPT)
    for protocol in (milterclient.PROTOCOL, 0):
        with milter.client(protocol=protocol) as client:
            forged = (b"X-RequireTLS", b" f")
            fields = [forged, (b"X-\xff", b" x"), forged]
            outcome = client.message(SENDER, [BOB], parameters=REQUIRETLS, fields=fields)
            assert [edit.kind for edit in outcome.edits] == ["change", "change", "insert"]


def test_any_bytes_in_envelope_and_macros_pass(serve: Serve) -> None:
    bad = b"\xff\xfe".decode("utf-8", "surrogateescape")
    macros = {**POSTFIX_3_11, "j": bad, "i": bad, "{auth_authen}": bad, "{tls_version}": bad}
    milter = serve("", SCRIPT)
    with milter.client(macros, connect=False) as client:
        client.connect(name="client\xff.example")
        client.macros["{rcpt_mailer}"] = bad
        outcome = client.message(
            b"<\xff@\xfe.test>", [b"<\xff@\xfe.test>", BOB], parameters=[b"\xff=\xfe", "REQUIRETLS"]
        )
        (tag,) = tags(outcome)
        assert "forecast=withheld" in tag
        assert tag.endswith("; by=host.example.net")
    lines = milter.wait_for_event("recipient", 2)
    assert lines[0]["forecast"] == "unknown"
    assert all(line.isascii() and line.isprintable() for line in milter.log)


def test_a_message_that_comes_in_one_write_is_answered_in_order(serve: Serve) -> None:
    with serve(REJECT, SCRIPT).client() as client:
        strings = [f"<{name}@{domain}>\0".encode() for name, domain in (("b", "example.org"),) * 2]
        client.send(b"M", b"<a@x.test>\0REQUIRETLS\0")
        for octets in (*strings, b"<c@example.com>\0"):
            client.send_macros("rcpt")
            client.send(b"R", octets)
        client.send(b"L", b"X-RequireTLS\0forged\0")
        client.send(b"E")
        answers = [client.read_reply("rcpt") for _ in range(3)]
        assert [answer.text or answer.kind for answer in answers] == [
            NOT_OFFERED_REPLY,
            NOT_OFFERED_REPLY,
            "continue",
        ]
        assert client.read_reply("eom") == CONTINUE
        assert [edit.kind for edit in client.edits] == ["change", "insert"]


def test_garbage_on_the_socket_ends_its_connection_and_nothing_else(serve: Serve) -> None:
    # All but macros: libmilter 1.0.1 itself reads beyond the end of malformed ones.
    milter = serve(REJECT, SCRIPT)
    random = Random(8689)  # noqa: S311 - garbage, the same each time
    for _ in range(300):
        with socket.socket(socket.AF_UNIX) as peer, contextlib.suppress(OSError):
            peer.connect(milter.socket)
            if random.random() < 0.8:
                peer.sendall(struct.pack(">IcIII", 13, b"O", 6, 0x1FF, 0x1FFFFF))
            for _ in range(random.randint(1, 20)):
                data = random.randbytes(random.randint(0, 60))
                length = len(data) + 1 if random.random() < 0.95 else random.getrandbits(32)
                command = bytes([random.choice(b"CMRLNETBAQHUKO\xff")])
                peer.sendall(struct.pack(">I", length) + command + data)
    with milter.client() as client:
        outcome = client.message(SENDER, [BOB], parameters=REQUIRETLS)
        assert replies(outcome) == [NOT_OFFERED_REPLY]
    eventually(lambda: milter.state() == (0, 0.0))


def test_r17_a_lost_requirement_is_counted_and_logged(serve: Serve) -> None:
    milter = serve("", SCRIPT)
    with milter.client() as client:
        trace = ("Received", " from a by b with ESMTPS (requiretls) id c; d")
        outcome = client.message(SENDER, [BOB], fields=[trace])
        assert outcome.edits == []
    eventually(lambda: milter.totals().get("requirement_lost_total{}") == 1)
    (line,) = milter.wait_for_event("message")
    assert line["lost"] is True


# ---------------------------------------------------------------- waiting


def test_monitor_never_waits_at_rcpt_and_at_the_end_at_most_tag_wait(serve: Serve) -> None:
    milter = serve("[rules]\ntag_wait = 0.5\n", SCRIPT)
    with milter.client() as client:
        client.mail(SENDER, "REQUIRETLS")
        started = time.monotonic()
        for number in range(10):
            client.rcpt(f"<{number}@never.test>")
        client.eoh()
        assert time.monotonic() - started < 0.4
        started = time.monotonic()
        assert client.eom() == CONTINUE
        assert 0.45 < time.monotonic() - started < 1.5  # in all, not for each recipient
        assert "forecast=unknown; reason=unknown;" in client.edits[0].value
    eventually(lambda: milter.totals().get("forecasts_total{requiretls,unknown,unknown}") == 10)


@pytest.mark.parametrize(("macros", "reply"), [(POSTFIX_3_11, "continue"), (SENDMAIL, "451 4.7.0")])
def test_reject_waits_at_most_decide_wait_and_then_on_unknown_decides(
    serve: Serve, macros: dict[str, str], reply: str
) -> None:
    milter = serve(f"{REJECT}decide_wait = 0.5\n", SCRIPT)
    with milter.client(macros) as client:
        client.mail(SENDER, "REQUIRETLS")
        started = time.monotonic()
        answer = client.rcpt("<a@never.test>")
        assert 0.45 < time.monotonic() - started < 1.5
        assert (answer.text or answer.kind).startswith(reply)


@pytest.mark.parametrize(("macros", "reply"), [(POSTFIX_3_11, "continue"), (SENDMAIL, "451 4.7.0")])
def test_the_waits_of_many_slow_recipients_add_up_to_a_bound_and_no_further(
    serve: Serve, macros: dict[str, str], reply: str
) -> None:
    """The attack: 200 recipients, each of a domain of its own that does not answer."""
    config = f"{REJECT}decide_wait = 0.5\n[limits]\nmessage_wait = 1.2\n"
    milter = serve(config, {"*": NEVER, "example.org": NOT_OFFERED})
    with milter.client(macros) as client:
        for _ in range(2):  # each message of a session has its own
            client.mail(SENDER, "REQUIRETLS")
            started = time.monotonic()
            answers = [client.rcpt(f"<a@d{number}.test>") for number in range(200)]
            assert {(answer.text or answer.kind)[: len(reply)] for answer in answers} == {reply}
            assert client.rcpt(BOB).text.startswith("550 5.7.30"), "what is known needs no wait"
            assert 1.15 < time.monotonic() - started < 3.0
            client.abort()
    # Two wait in full, one for what is left, and the others not at all.
    assert milter.totals()["saturated_total{message_wait}"] >= 2 * 197


def test_the_end_of_a_message_waits_no_longer_than_is_left_of_its_bound(serve: Serve) -> None:
    config = f"{REJECT}decide_wait = 0.4\ntag_wait = 5.0\n"
    config += '[rules.recipient."tagged.test"]\nmode = "monitor"\n'
    milter = serve(f"{config}[limits]\nmessage_wait = 0.6\n", {"*": NEVER})
    with milter.client() as client:
        client.mail(SENDER, "REQUIRETLS")
        client.rcpt("<a@never.test>")
        client.rcpt("<b@tagged.test>")
        client.eoh()
        started = time.monotonic()
        assert client.eom() == CONTINUE
        assert 0.15 < time.monotonic() - started < 1.5


def test_the_assessment_runs_while_the_message_comes_in(serve: Serve) -> None:
    milter = serve("", {"example.org": {**NOT_OFFERED, "after": 0.4}})
    with milter.client() as client:
        client.mail(SENDER, "REQUIRETLS")
        client.rcpt(BOB)
        time.sleep(0.6)  # the client's DATA: an MTA sends us nothing meanwhile
        started = time.monotonic()
        client.eoh()
        client.eom()
        assert time.monotonic() - started < 0.3
        assert "forecast=5.7.30;" in client.edits[0].value


def test_one_connection_that_waits_holds_up_no_other(serve: Serve) -> None:
    milter = serve(f"{REJECT}decide_wait = 3.0\n", SCRIPT)
    with milter.client() as slow, milter.client() as quick:
        slow.mail(SENDER, "REQUIRETLS")
        waiting = threading.Thread(target=slow.rcpt, args=("<a@never.test>",))
        waiting.start()
        eventually(lambda: milter.state()[1] > 0.1)
        started = time.monotonic()
        for _ in range(20):
            quick.message(SENDER, [BOB], parameters=REQUIRETLS)
        assert time.monotonic() - started < 2.0
        assert waiting.is_alive()
        waiting.join()
        eventually(lambda: milter.state() == (1, 0.0))


def test_only_so_many_callbacks_wait_and_a_further_one_has_its_answer_at_once(
    serve: Serve,
) -> None:
    """Each that waits holds a thread of libmilter's, and strangers decide how many there are."""
    milter = serve(f"{REJECT}decide_wait = 2.0\n[limits]\ncallbacks = 2\n", SCRIPT)
    clients = [milter.client(SENDMAIL) for _ in range(4)]
    try:
        for client in clients:
            client.mail(SENDER, "REQUIRETLS")
        waiting = [
            threading.Thread(target=client.rcpt, args=("<a@never.test>",)) for client in clients[:2]
        ]
        for thread in waiting:
            thread.start()
            eventually(lambda: len(milter.asked) == waiting.index(thread) + 1)  # noqa: B023
        time.sleep(0.1)
        started = time.monotonic()
        late = clients[2].rcpt("<a@never.test>")
        known = clients[3].rcpt(BOB)  # nobody has to wait for what is known
        assert time.monotonic() - started < 1.0
        assert all(thread.is_alive() for thread in waiting)
        assert late.text.startswith("451 4.7.0")
        assert known.text.startswith("550 5.7.30")
        for thread in waiting:
            thread.join()
        assert milter.totals()["saturated_total{callbacks}"] == 1
    finally:
        for client in clients:
            client.close()


# ---------------------------------------------------------------- failures of ours


@pytest.mark.parametrize("failure", ["raise", "exit", "fail"])
@pytest.mark.parametrize(("macros", "reply"), [(POSTFIX_3_11, "continue"), (SENDMAIL, "451 4.7.0")])
def test_a_source_that_fails_makes_an_unknown_forecast_and_nothing_worse(
    serve: Serve, failure: str, macros: dict[str, str], reply: str
) -> None:
    milter = serve(REJECT, {"*": failure})
    with milter.client(macros) as client:
        for _ in range(3):
            outcome = client.message(SENDER, [BOB], parameters=REQUIRETLS)
            assert (outcome.rcpt[0].text or outcome.rcpt[0].kind).startswith(reply)
            assert client.message(SENDER, [BOB]).end == CONTINUE
    assert milter.process.poll() is None
    eventually(lambda: milter.totals().get("callback_errors_total{rcpt}") == 3)
    assert milter.wait_for_event("callback_failed")


@pytest.mark.parametrize(
    ("method", "stage"),
    [
        ("__init__", "mail"),
        ("add_recipient", "rcpt"),
        ("can_act", "rcpt"),
        ("decide_at_rcpt", "rcpt"),
        ("add_field", "header"),
        ("end_of_header", "eoh"),
        ("undecided", "eom"),
        ("decide", "eom"),
        ("decide_message", "eom"),
        ("tag", "eom"),
        ("accepted", "eom"),
    ],
)
def test_no_exception_of_ours_leaves_a_callback_and_mail_goes_on(
    serve: Serve, method: str, stage: str
) -> None:
    config = '[rules]\nmode = "reject"\non_unknown = "accept"\non_temporary = "accept"\n'
    milter = serve(config, SCRIPT, sabotage=method)
    with milter.client() as client:
        for _ in range(2):
            for parameters in (REQUIRETLS, ()):
                outcome = client.message(
                    SENDER,
                    ["<c@example.com>", "<h@handshake.test>"],
                    parameters=parameters,
                    fields=[("Require-TLS-ESMTP", " yes"), ("X-RequireTLS", " forged")],
                )
                assert replies(outcome) == ["continue", "continue"]
                assert outcome.end == CONTINUE
        assert client.unsolicited() == b""
    assert milter.process.poll() is None
    eventually(lambda: milter.totals().get(f"callback_errors_total{{{stage}}}", 0) > 0)


@pytest.mark.parametrize(("macros", "defers"), [(POSTFIX_3_11, False), (SENDMAIL, True)])
def test_a_failure_of_ours_defers_where_a_rule_defers_the_unknown(
    serve: Serve, macros: dict[str, str], defers: bool
) -> None:
    milter = serve(REJECT, SCRIPT, sabotage="decide_message")
    with milter.client(macros) as client:
        outcome = client.message(SENDER, ["<c@example.com>"], parameters=REQUIRETLS)
        assert outcome.end is not None
        assert outcome.end.text.startswith("451 4.3.0" if defers else "")
        assert outcome.end.passed is not defers
        # what a rule does not ask for is not held up
        assert client.message(SENDER, ["<c@example.com>"]).end == CONTINUE


def test_a_failure_to_count_or_to_tell_does_not_undo_a_refusal(serve: Serve) -> None:
    milter = serve(REJECT, SCRIPT, sabotage="requirement")
    with milter.client() as client:
        outcome = client.message(SENDER, [BOB, "<c@example.com>"], parameters=REQUIRETLS)
        assert replies(outcome) == [NOT_OFFERED_REPLY, "continue"]
        fields = [("Require-TLS-ESMTP", " yes")]
        outcome = client.message(SENDER, [BOB], fields=fields)
        assert outcome.end is not None
        assert outcome.end.text == NOT_OFFERED_REPLY


# ---------------------------------------------------------------- log


def test_a_recipients_line_has_the_documented_keys_and_the_queue_id(serve: Serve) -> None:
    milter = serve(REJECT, SCRIPT)
    with milter.client() as client:
        client.message(SENDER, [BOB, "<c@example.com>"], parameters=REQUIRETLS)
    refused, accepted = milter.wait_for_event("recipient", 2)
    for line, expected in (
        (refused, {"to": BOB, "forecast": "5.7.30", "action": "reject", "why": "will_fail"}),
        (accepted, {"to": "<c@example.com>", "forecast": "2.0.0", "action": "accept"}),
    ):
        assert expected.items() <= line.items()
        assert {
            "sender": SENDER,
            "requirement": "requiretls",
            "source": "esmtp",
            "carried": "requiretls",
            "transport": "smtp",
            "queue_id": "4XyZ1",
        }.items() <= line.items()
        assert {"nexthop", "reason", "compliant", "tls", "mx", "waited", "text"} <= line.keys()
    assert refused["reply"] == NOT_OFFERED_REPLY
    assert "reply" not in accepted


def test_before_there_is_a_queue_id_the_session_stands_in_its_place(serve: Serve) -> None:
    milter = serve(REJECT, SCRIPT)
    with milter.client({"v": "Postfix 3.11.7"}) as client:
        client.message(SENDER, [BOB, BOB], parameters=REQUIRETLS)
    first, second = milter.wait_for_event("recipient", 2)
    assert "queue_id" not in first
    assert first["session"] == second["session"]


# ---------------------------------------------------------------- messages that are split

SPLIT = """
[rules]
on_mixed = "split"
[rules.recipient."example.com"]
require = true
mode = "reject"
"""
ASKED, ORDINARY = "<bob@example.com>", "<eve@handshake.test>"
PUT_OFF = "452 4.5.3 too many recipients: this one takes another route, send it separately"


def test_a_recipient_whose_route_differs_is_left_to_another_transaction(serve: Serve) -> None:
    milter = serve(SPLIT, SCRIPT)
    with milter.client() as client:
        outcome = client.message(SENDER, [ASKED, ORDINARY, ASKED])
        assert replies(outcome) == ["continue", PUT_OFF, "continue"]
        assert "route=requiretls" in tags(outcome)[0]
        outcome = client.message(SENDER, [ORDINARY])
        assert replies(outcome) == ["continue"]
        assert tags(outcome) == []
    (line,) = milter.wait_for_event("put_off", 1)
    assert line["to"] == ORDINARY
    assert line["reply"] == PUT_OFF
    eventually(lambda: milter.totals().get("recipients_total{none,defer}") == 1)
    assert milter.totals()["messages_total{requiretls,accept}"] == 1


def test_a_mail_program_is_never_asked_to_split(serve: Serve) -> None:
    milter = serve(SPLIT, SCRIPT)
    with milter.client({**POSTFIX_3_11, "{auth_authen}": "alice"}) as client:
        outcome = client.message(SENDER, [ASKED, ORDINARY])
    assert replies(outcome) == ["continue", "continue"]
    assert "route=mixed" in tags(outcome)[0]


def test_a_client_that_never_splits_gets_its_message_through(serve: Serve) -> None:
    milter = serve(SPLIT, SCRIPT)
    for _ in range(3):
        with milter.client() as client:
            assert replies(client.message(SENDER, [ASKED, ORDINARY])) == ["continue", PUT_OFF]
    with milter.client() as client:
        outcome = client.message(SENDER, [ASKED, ORDINARY])
    assert replies(outcome) == ["continue", "continue"]
    assert "route=mixed" in tags(outcome)[0]
    (line,) = milter.wait_for_event("client_does_not_split", 1)
    assert line["to"] == ORDINARY


# ---------------------------------------------------------------- processes


def test_two_forked_workers_serve_one_socket_and_one_survives_the_other(serve: Serve) -> None:
    milter = serve(REJECT, SCRIPT, workers=2)

    def send(_: int) -> str:
        with milter.client() as client:
            return replies(client.message(SENDER, [BOB], parameters=REQUIRETLS))[0]

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(send, range(100))) == {NOT_OFFERED_REPLY}
    asked = (milter.directory / "asked").read_text().splitlines()
    workers = {line.split()[0] for line in asked}
    assert workers == {str(pid) for pid in milter.pids()}
    killed = milter.pids()[0]
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: not alive(killed))
    for number in range(20):
        assert send(number) == NOT_OFFERED_REPLY


def test_many_sessions_at_once_each_get_their_own_answers(serve: Serve) -> None:
    milter = serve(REJECT, SCRIPT)

    def session(number: int) -> None:
        with milter.client() as client:
            for turn in range(10):
                good, bad = f"<{number}.{turn}@example.com>", f"<{number}.{turn}@example.org>"
                order = [good, bad] if turn % 2 else [bad, good]
                outcome = client.message(SENDER, order, parameters=REQUIRETLS)
                expected = {good: "continue", bad: NOT_OFFERED_REPLY}
                assert replies(outcome) == [expected[address] for address in order]
                assert "forecast=2.0.0; reason=ok;" in tags(outcome)[0]
                time.sleep(0.002 * (number % 3))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(session, range(16)))
    eventually(lambda: milter.totals().get("messages_total{requiretls,accept}") == 160)
    assert milter.totals()["recipients_total{requiretls,reject}"] == 160
    assert not any(name.startswith("callback_errors") for name in milter.totals())


def test_a_new_configuration_holds_for_later_connections(serve: Serve) -> None:
    milter = serve("", SCRIPT)
    with milter.client() as before:
        assert len(tags(before.message(SENDER, [BOB], parameters=REQUIRETLS))) == 1
        config = (milter.directory / "config.toml").read_text()
        (milter.directory / "reload.toml").write_text(config + REJECT)
        milter.process.send_signal(signal.SIGHUP)

        def refuses() -> bool:
            with milter.client() as client:
                outcome = client.message(SENDER, [BOB], parameters=REQUIRETLS)
                return replies(outcome) == [NOT_OFFERED_REPLY]

        eventually(refuses)
        assert len(tags(before.message(SENDER, [BOB], parameters=REQUIRETLS))) == 1


def test_a_process_that_stops_accepting_finishes_what_it_has_begun(serve: Serve) -> None:
    milter = serve("", SCRIPT)
    with milter.client() as client:
        client.mail(SENDER, "REQUIRETLS")
        client.rcpt(BOB)
        client.unsolicited(wait=0.05)
        eventually(lambda: milter.state()[0] == 1)
        milter.process.send_signal(signal.SIGUSR1)

        def refused() -> bool:
            try:
                milter.client(timeout=1).close()
            except (ConnectionError, TimeoutError, milterclient.Closed):
                return True
            return False

        eventually(refused)
        client.eoh()
        assert client.eom() == CONTINUE
        assert len(client.edits) == 1
        assert client.message(SENDER, [BOB]).end == CONTINUE
    eventually(lambda: milter.state()[0] == 0)
    assert milter.stop() == 0
