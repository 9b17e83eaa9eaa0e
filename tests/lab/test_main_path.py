"""The main path: a message enters a real Postfix, and what the milter makes of it."""

from __future__ import annotations

import re
import smtplib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import idna
import pytest

from tests.lab import labconfig, submission
from tests.lab.lab import MYDOMAIN, Lab
from tests.lab.milter import Milter
from tests.lab.submission import SENDER, Accepted, Refused, message
from tests.support.scenario import Domain, Mx, Scenario, Server
from tests.support.waiting import eventually

pytestmark = pytest.mark.lab

BY = f"mta.{MYDOMAIN}"
"""The MTA's own name for itself, which the tag takes over."""

STRANGER = "127.0.9.9"
"""A client that is not in milter.trusted_networks; 127.0.0.1 is."""


def place(name: str, server: Server | None = None, *, tlsa: str = "3 1 1 match") -> Scenario:
    """A recipient domain with one server; ``may/...`` in none of them."""
    mx = Mx(tlsa=(tlsa,), server=server or Server())
    return Scenario(f"main-{name}", domains=(Domain(mx=(mx,)),))


NOREQ = Server(requiretls="none")
GOOD = place("good")
SECOND = place("second")
LACKING = place("lacking", NOREQ)
WRONG = place("wrong", tlsa="3 1 1 bad")
CLEAR = place("clear", Server(starttls="none"))
BROKEN = place("broken", Server(handshake="garbage"))
DOWNSTREAM = Scenario("main-downstream", domains=(Domain(mx=(Mx(addr="downstream"),)),))

# the same, but with rules that act
REJECTS = place("rejects", NOREQ)
REJECTS_WRONG = place("rejectswrong", tlsa="3 1 1 bad")
REJECTS_BROKEN = place("rejectsbroken", Server(handshake="garbage"))
REJECTS_GOOD = place("rejectsgood")
DEFERS = place("defers", NOREQ)
DEFERS_BROKEN = place("defersbroken", Server(handshake="garbage"))
FOR_ALL = place("forall", NOREQ)
FOR_AUTHENTICATED = place("forauth", NOREQ)
REQUIRED = place("required")
REQUIRED_LACKING = place("requiredlacking", NOREQ)
REQUIRED_MONITORED = place("requiredmonitored", NOREQ)
HONOURS = place("honours")
OFF = place("off")

PLACES = tuple(item for item in list(globals().values()) if isinstance(item, Scenario))


def domain(where: Scenario) -> str:
    return where.domain_name(where.domains[0])


def at(where: Scenario, local: str = "u") -> str:
    return f"{local}@{domain(where)}"


RULES: dict[str, Any] = {
    domain(REJECTS): {"mode": "reject"},
    domain(REJECTS_WRONG): {"mode": "reject"},
    domain(REJECTS_BROKEN): {"mode": "reject", "on_temporary": "defer"},
    domain(REJECTS_GOOD): {"mode": "reject"},
    domain(DEFERS): {"mode": "defer"},
    domain(DEFERS_BROKEN): {"mode": "defer"},
    domain(FOR_ALL): {"mode": "reject", "enforce_for": "all"},
    domain(FOR_AUTHENTICATED): {"mode": "reject", "enforce_for": "authenticated"},
    domain(REQUIRED): {"mode": "reject", "require": True},
    domain(REQUIRED_LACKING): {"mode": "reject", "require": True},
    domain(REQUIRED_MONITORED): {"mode": "monitor", "require": True},
    domain(HONOURS): {"honour_lost": True},
    domain(OFF): {"mode": "off"},
}

ASKS = ("REQUIRETLS",)


@pytest.fixture(scope="module", autouse=True)
def milter(lab: Lab) -> Iterator[Milter]:
    """One milter for all: what a test is about, its recipient's domain decides."""
    lab.add(PLACES)
    with Milter(
        lab,
        transport=labconfig.all_transports(),
        milter={"trusted_networks": ["127.0.0.1/32"]},
        # for mail of local users, whose transport Postfix does not tell
        mta={"tls_security_level": "dane", "requiretls_policy": "enforce"},
        rules={"recipient": RULES},
    ) as running:
        yield running


def send(
    lab: Lab,
    *recipients: str,
    asks: Sequence[str] = ASKS,
    headers: Sequence[str] = (),
    sender: str = SENDER,
    body: str = "hello\n",
    **session: Any,
) -> Accepted:
    """One message in a session of its own."""
    text = message("main path", recipients, headers=headers, body=body)
    with lab.session(**session) as smtp:
        return submission.transact(smtp, recipients, text, sender=sender, parameters=asks)


def delivered(lab: Lab, where: Scenario, queue_id: str, recipients: int = 1) -> str:
    """The message as its server got it."""
    lab.deliveries(queue_id, recipients)
    found: list[str] = eventually(
        lambda: [
            text
            for host in lab.hosts(where)
            for session in lab.sessions(host.address)
            for text in session.messages
            if f" id {queue_id}" in text
        ],
        f"{queue_id} comes to {domain(where)}",
    )
    return found[0]


def tags(text: str) -> list[str]:
    head = text.partition("\n\n")[0]
    return re.findall(r"^X-RequireTLS: *(.*)$", head, re.MULTILINE | re.IGNORECASE)


def tag(
    requirement: str, source: str, forecast: str, reason: str, route: str = "requiretls"
) -> str:
    return (
        f"requirement={requirement}; source={source}; forecast={forecast}; reason={reason}; "
        f"route={route}; by={BY}"
    )


FULFILLED = tag("requiretls", "esmtp", "2.0.0", "ok")


def _totals(milter: Milter) -> tuple[float, float]:
    return milter.metric("messages_total"), milter.metric("recipients_total")


def _settled(milter: Milter) -> tuple[float, float]:
    """The totals once the workers have told all: they do so every second."""
    before = _totals(milter)
    while True:
        time.sleep(1.3)
        after = _totals(milter)
        if after == before:
            return after
        before = after


# ---------------------------------------------------------------- what is asked


@pytest.mark.parametrize("parameter", ["REQUIRETLS", "requiretls", "RequireTLS"])
def test_r01_requiretls_is_asked_by_the_mail_parameter_in_any_case(
    lab: Lab, parameter: str
) -> None:
    sent = send(lab, at(GOOD), asks=("BODY=8BITMIME", parameter, "SIZE=1000"))
    assert tags(delivered(lab, GOOD, sent.queue_id)) == [FULFILLED]
    (host,) = lab.hosts(GOOD)
    assert lab.sessions(host.address)[-1].mail[0].endswith(" REQUIRETLS")


def test_r01_a_parameter_with_a_value_is_refused_by_the_mta_and_never_asks(
    lab: Lab, milter: Milter
) -> None:
    with pytest.raises(Refused) as refused:
        send(lab, at(GOOD, "value"), asks=("REQUIRETLS=yes",))
    assert (refused.value.stage, refused.value.reply.code) == ("mail", 555)
    assert not [item for item in milter.events("recipient") if "value@" in item["to"]]


def test_r02_requiretls_is_no_parameter_outside_tls(lab: Lab) -> None:
    with pytest.raises(Refused) as refused:
        send(lab, at(GOOD), tls=False)
    assert (refused.value.stage, refused.value.reply.code) == ("mail", 555)


def test_r02_a_parameter_that_the_mta_passed_on_is_honoured_without_a_second_ehlo(
    lab: Lab, milter: Milter
) -> None:
    with lab.session(tls=False) as smtp:
        smtp.starttls()
        # smtplib forgets what EHLO said, as RFC 3207 wants; we do not say it again
        sent = submission.transact(smtp, [at(GOOD)], message("x", ["x"]), parameters=ASKS)
    assert tags(delivered(lab, GOOD, sent.queue_id)) == [FULFILLED]
    assert milter.recipient(sent.queue_id)["tls_version"] == "TLSv1.3"


def test_the_field_that_postfix_obeys_asks_from_anyone_and_in_clear(lab: Lab) -> None:
    field = "Require-TLS-ESMTP: yes"
    sent = send(lab, at(GOOD), asks=(), headers=[field], tls=False, source=STRANGER)
    expected = tag("requiretls", "require-tls-esmtp", "2.0.0", "ok")
    assert tags(delivered(lab, GOOD, sent.queue_id)) == [expected]


def test_r13_tls_required_no_ignores_dane(lab: Lab, milter: Milter) -> None:
    sent = send(lab, at(WRONG), asks=(), headers=["TLS-Required: No"])
    expected = tag("tls-required-no", "tls-required", "2.0.0", "ok", "tls-optional")
    assert tags(delivered(lab, WRONG, sent.queue_id)) == [expected]
    line = milter.recipient(sent.queue_id)
    assert (line["tls"], line["carried"]) == ("may", "tls-required-no")
    assert lab.deliveries(sent.queue_id)[0].tls == "may"


@pytest.mark.parametrize("value", ["No (comment)", "yes", "NoNo", ""])
def test_r08_tls_required_that_does_not_say_exactly_no_asks_nothing(
    lab: Lab, milter: Milter, value: str
) -> None:
    sent = send(lab, at(WRONG), asks=(), headers=[f"TLS-Required: {value}"])
    (told,) = milter.wait("message", queue_id=sent.queue_id)
    assert (told["requirement"], told["tls_required_malformed"]) == ("none", 1)
    (delivery,) = lab.deliveries(sent.queue_id)
    assert delivery.dsn == "4.7.5"


@pytest.mark.parametrize(
    "field",
    [
        *("TLS-Required:No", "tls-required:\tnO", "TLS-Required: No ", "TLS-Required: No\t"),
        *("TLS-Required:\n No", "TLS-Required: No\n ", "TLS-Required: N\n o"),
        *("TLS-Required : No", "TLS-Required\t: No", "TLS-Required:\x0bNo", "TLS-Required: No\x0b"),
        *("TLS-Required: No\n\t\n ", "TLS-Required: =?us-ascii?Q?No?=", "TLS-Required: No\x00x"),
    ],
)
def test_r08_tls_required_says_no_to_the_milter_where_it_does_to_postfix(
    lab: Lab, milter: Milter, field: str
) -> None:
    sent = send(lab, at(WRONG), asks=(), headers=[field])
    (delivery,) = lab.deliveries(sent.queue_id)
    told = [line for line in milter.events("recipient") if line.get("queue_id") == sent.queue_id]
    said_no = any(line["requirement"] == "tls-required-no" for line in told)
    assert said_no is (delivery.dsn == "2.0.0")


@pytest.mark.parametrize(
    "field",
    [
        *("Require-TLS-ESMTP:yes", "require-tls-esmtp:\tYES", "Require-TLS-ESMTP: yes "),
        *("Require-TLS-ESMTP : yes", "Require-TLS-ESMTP:\n yes", "Require-TLS-ESMTP: yes\n "),
        *("Require-TLS-ESMTP: y", "Require-TLS-ESMTP: yes (or no)", "Require-TLS-ESMTP: yes\x00x"),
        *("Require-TLS-ESMTP: no\nRequire-TLS-ESMTP: yes", "Require-TLS-ESMTP:\x0byes"),
    ],
)
def test_the_field_of_postfix_asks_the_milter_where_it_asks_postfix(
    lab: Lab, milter: Milter, field: str
) -> None:
    sent = send(lab, at(WRONG), asks=(), headers=[field])
    (delivery,) = lab.deliveries(sent.queue_id)
    told = [line for line in milter.events("recipient") if line.get("queue_id") == sent.queue_id]
    asked = any(line["requirement"] == "requiretls" for line in told)
    assert asked is (delivery.dsn == "5.7.10")


def test_r09_of_several_tls_required_fields_one_that_says_no_is_enough_for_postfix(
    lab: Lab, milter: Milter
) -> None:
    fields = ["TLS-Required: yes", "tls-required:  NO"]
    sent = send(lab, at(WRONG), asks=(), headers=fields)
    line = milter.recipient(sent.queue_id)
    assert (line["requirement"], line["forecast"]) == ("tls-required-no", "2.0.0")
    (told,) = milter.wait("message", queue_id=sent.queue_id)
    assert (told["tls_required_fields"], told["tls_required_malformed"]) == (2, 1)
    assert lab.deliveries(sent.queue_id)[0].dsn == "2.0.0"


def test_r10_the_parameter_wins_over_tls_required_no(lab: Lab, milter: Milter) -> None:
    sent = send(lab, at(WRONG), headers=["TLS-Required: No"])
    line = milter.recipient(sent.queue_id)
    assert (line["source"], line["carried"]) == ("esmtp", "requiretls")
    (delivery,) = lab.deliveries(sent.queue_id)
    assert (line["forecast"], line["tls"]) == (delivery.dsn, delivery.tls)
    assert delivery.dsn == "5.7.10"


@pytest.mark.parametrize(
    "form", ["{domain}!{user}", "@relay.test:{user}@{domain}", "{user}@{domain}."]
)
def test_no_rule_is_evaded_by_another_way_to_write_an_address(
    lab: Lab, milter: Milter, form: str
) -> None:
    user, domain_part = at(REQUIRED).split("@")
    sent = send(lab, form.format(user=user, domain=domain_part), asks=())
    (delivery,) = lab.deliveries(sent.queue_id)
    assert delivery.to == at(REQUIRED)
    line = milter.recipient(sent.queue_id)
    assert (line["requirement"], line["source"]) == ("requiretls", "rule")


def test_the_parameter_wins_over_a_rule_too(lab: Lab, milter: Milter) -> None:
    sent = send(lab, at(REQUIRED))
    line = milter.recipient(sent.queue_id)
    assert (line["source"], line["carried"], line["compliant"]) == ("esmtp", "requiretls", "true")


def test_a_rule_asks_where_the_sender_does_not(lab: Lab, milter: Milter) -> None:
    sent = send(lab, at(REQUIRED), asks=())
    expected = tag("requiretls", "rule", "2.0.0", "ok")
    assert tags(delivered(lab, REQUIRED, sent.queue_id)) == [expected]
    line = milter.recipient(sent.queue_id)
    assert (line["carried"], line["why"], line["compliant"]) == ("none", "will_deliver", "true")
    # nobody told the MTA, so it does not tell the server
    (host,) = lab.hosts(REQUIRED)
    assert not lab.sessions(host.address)[-1].mail[0].endswith("REQUIRETLS")


def test_what_a_rule_asks_and_no_mta_carries_the_milter_enforces(lab: Lab) -> None:
    with pytest.raises(Refused) as refused:
        send(lab, at(REQUIRED_LACKING), asks=())
    text = refused.value.reply.text
    assert (refused.value.stage, refused.value.reply.code) == ("rcpt", 550)
    assert text.startswith(f"5.7.30 REQUIRETLS cannot be honoured for {domain(REQUIRED_LACKING)}: ")
    assert "does not offer REQUIRETLS" in text


def test_in_monitor_mode_a_delivery_that_a_rule_forbids_is_counted(
    lab: Lab, milter: Milter
) -> None:
    before = milter.metric("noncompliant_deliveries_total", reason="noncompliant_not_offered")
    sent = send(lab, at(REQUIRED_MONITORED), asks=())
    expected = tag("requiretls", "rule", "2.0.0", "noncompliant_not_offered")
    assert tags(delivered(lab, REQUIRED_MONITORED, sent.queue_id)) == [expected]
    milter.await_metric("noncompliant_deliveries_total", before + 1)


def test_what_a_rule_asks_and_the_sender_undoes_is_refused_at_the_end(lab: Lab) -> None:
    with pytest.raises(Refused) as refused:
        send(lab, at(REQUIRED), asks=(), headers=["TLS-Required: No"])
    assert refused.value.stage == "data"
    assert refused.value.reply.code == 550
    assert refused.value.reply.text.startswith("5.7.10 TLS-Required: No contradicts")


def test_r17_a_requirement_that_got_lost_is_counted(lab: Lab, milter: Milter) -> None:
    before = milter.metric("requirement_lost_total")
    trace = "Received: from a by b with ESMTPS (requiretls) id c; Mon, 1 Jan 2024 00:00:00 +0000"
    sent = send(lab, at(LACKING), asks=(), headers=[trace])
    (told,) = milter.wait("message", queue_id=sent.queue_id)
    assert (told["lost"], told["requirement"]) == (True, "none")
    assert lab.deliveries(sent.queue_id)[0].dsn == "2.0.0"
    milter.await_metric("requirement_lost_total", before + 1)


def test_r17_a_lost_requirement_is_asked_again_where_a_rule_says_so(
    lab: Lab, milter: Milter
) -> None:
    trace = "Received: from a by b with ESMTPS (requiretls) id c; Mon, 1 Jan 2024 00:00:00 +0000"
    sent = send(lab, at(HONOURS), asks=(), headers=[trace])
    line = milter.recipient(sent.queue_id)
    assert (line["requirement"], line["source"], line["carried"]) == ("requiretls", "rule", "none")


def test_ordinary_mail_gets_no_tag_and_no_forecast(lab: Lab, milter: Milter) -> None:
    sent = send(lab, at(GOOD), asks=())
    assert tags(delivered(lab, GOOD, sent.queue_id)) == []
    assert not [
        item for item in milter.events("recipient") if item.get("queue_id") == sent.queue_id
    ]


def test_in_mode_off_nothing_is_tagged_and_nothing_told(lab: Lab, milter: Milter) -> None:
    sent = send(lab, at(OFF))
    assert tags(delivered(lab, OFF, sent.queue_id)) == []
    assert not [
        item for item in milter.events("recipient") if item.get("queue_id") == sent.queue_id
    ]


# ---------------------------------------------------------------- the tag


def test_the_tag_is_the_first_line_of_the_message(lab: Lab) -> None:
    sent = send(lab, at(GOOD))
    assert delivered(lab, GOOD, sent.queue_id).startswith(f"X-RequireTLS: {FULFILLED}\n")


FORGED = (
    "X-RequireTLS: requirement=none; source=none; forecast=2.0.0; reason=ok; route=default; by=x",
    "x-requiretls : route=requiretls",
    "X-REQUIRETLS:\n folded; route=tls-optional;\n\tby=y",
    "Subject: kept",
    "X-RequireTLS: again",
)


@pytest.mark.parametrize("asks", [ASKS, ()])
def test_r63_forged_tags_are_removed_whatever_their_number_case_and_folding(
    lab: Lab, milter: Milter, asks: Sequence[str]
) -> None:
    sent = send(lab, at(GOOD), asks=asks, headers=FORGED)
    text = delivered(lab, GOOD, sent.queue_id)
    assert tags(text) == ([FULFILLED] if asks else [])
    assert "Subject: kept" in text
    for trace in ("folded", "again", "by=x", "by=y"):
        assert trace not in text
    (told,) = milter.wait("message", queue_id=sent.queue_id)
    assert told["tags_removed"] == 4


def test_r16_the_tag_survives_submission_and_the_next_hop(lab: Lab) -> None:
    """By port 587, authenticated, to a real Postfix that takes REQUIRETLS."""
    sent = send(lab, at(DOWNSTREAM, "r16"), authenticated=True, headers=["X-Test: r16"])
    (delivery,) = lab.deliveries(sent.queue_id)
    assert (delivery.dsn, delivery.tls) == ("2.0.0", "dane/requiretls")
    inbox = lab.downstream.directory / "mail/inbox/new"
    (text,) = eventually(
        lambda: [p.read_text() for p in inbox.glob("*") if "X-Test: r16" in p.read_text()]
    )
    assert tags(text) == [FULFILLED]
    assert "Require-TLS-ESMTP: yes" in text


def test_with_two_next_hops_the_forecast_is_withheld(lab: Lab, milter: Milter) -> None:
    sent = send(lab, at(GOOD), at(LACKING, "bcc"))
    expected = tag("requiretls", "esmtp", "withheld", "withheld")
    assert tags(delivered(lab, GOOD, sent.queue_id, 2)) == [expected]
    lines = {item["to"]: item["forecast"] for item in milter.recipients(sent.queue_id, 2)}
    assert lines == {f"<{at(GOOD)}>": "2.0.0", f"<{at(LACKING, 'bcc')}>": "5.7.30"}


def test_recipients_of_one_next_hop_share_a_forecast(lab: Lab, milter: Milter) -> None:
    sent = send(lab, at(GOOD), at(GOOD, "v").upper(), at(GOOD, "w"))
    assert tags(delivered(lab, GOOD, sent.queue_id, 3)) == [FULFILLED]
    lines = milter.recipients(sent.queue_id, 3)
    assert {(item["nexthop"], item["forecast"]) for item in lines} == {(domain(GOOD), "2.0.0")}


def test_a_recipient_in_mode_off_does_not_spoil_the_tag_of_the_others(lab: Lab) -> None:
    sent = send(lab, at(OFF), at(GOOD))
    (found,) = tags(delivered(lab, GOOD, sent.queue_id, 2))
    assert found.startswith("requirement=requiretls; source=esmtp; forecast=withheld; ")


# ---------------------------------------------------------------- refusing, deferring


@pytest.mark.parametrize(
    ("where", "reply"),
    [
        (REJECTS, "550 5.7.30 {}: {} does not offer REQUIRETLS"),
        (REJECTS_WRONG, "550 5.7.10 {}: the certificate of {} does not verify"),
        (REJECTS_BROKEN, "451 4.7.5 {}: the TLS handshake with {} fails"),
        (DEFERS, "451 4.7.30 {}: {} does not offer REQUIRETLS"),
        (DEFERS_BROKEN, "451 4.7.5 {}: the TLS handshake with {} fails"),
    ],
    ids=lambda item: item.id if isinstance(item, Scenario) else "",
)
def test_a_recipient_is_refused_with_a_text_that_says_why(
    lab: Lab, milter: Milter, where: Scenario, reply: str
) -> None:
    with pytest.raises(Refused) as refused:
        send(lab, at(where))
    assert refused.value.stage == "rcpt"
    now = " now" if where in (REJECTS_BROKEN, DEFERS_BROKEN) else ""
    said = f"REQUIRETLS cannot be honoured{now} for {domain(where)}"
    expected = reply.format(said, f"mx1.{domain(where)}")
    got = refused.value.reply
    assert f"{got.code} {got.text}" == expected
    (line,) = milter.wait("recipient", to=f"<{at(where)}>")
    assert line["action"] == ("reject" if expected[0] == "5" else "defer")
    assert line["reply"] == expected


def test_what_will_be_delivered_is_accepted(lab: Lab, milter: Milter) -> None:
    sent = send(lab, at(REJECTS_GOOD))
    line = milter.recipient(sent.queue_id)
    assert (line["action"], line["why"]) == ("accept", "will_deliver")
    assert tags(delivered(lab, REJECTS_GOOD, sent.queue_id)) == [FULFILLED]


def test_one_recipient_is_refused_and_the_others_get_their_mail(lab: Lab, milter: Milter) -> None:
    _settled(milter)
    before = milter.metric("messages_total", requirement="requiretls", action="accept")
    sent = send(lab, at(GOOD), at(REJECTS, "mixed"), at(GOOD, "w"), at(DEFERS, "mixed"))
    assert {to: reply.code for to, reply in sent.refused.items()} == {
        at(REJECTS, "mixed"): 550,
        at(DEFERS, "mixed"): 451,
    }
    text = delivered(lab, GOOD, sent.queue_id, 2)
    # only those whom the message still has count: one next hop, nothing to withhold
    assert tags(text) == [FULFILLED]
    assert {item.to for item in lab.deliveries(sent.queue_id, 2)} == {at(GOOD), at(GOOD, "w")}
    _settled(milter)
    accepted = milter.metric("messages_total", requirement="requiretls", action="accept")
    assert accepted == before + 1


def test_what_is_not_asked_is_never_refused(lab: Lab) -> None:
    sent = send(lab, at(REJECTS), at(DEFERS), asks=())
    assert sent.refused == {}
    assert {item.dsn for item in lab.deliveries(sent.queue_id, 2)} == {"2.0.0"}


def test_a_header_field_that_asks_refuses_the_message_at_its_end(lab: Lab) -> None:
    """What is asked there is known only then; all recipients would be refused alike."""
    with pytest.raises(Refused) as refused:
        send(lab, at(REJECTS), at(REJECTS, "v"), asks=(), headers=["Require-TLS-ESMTP: yes"])
    assert refused.value.stage == "data"
    assert refused.value.reply.text.startswith("5.7.30 REQUIRETLS cannot be honoured for ")


def test_at_the_end_a_message_passes_for_the_recipients_it_can_be_delivered_to(
    lab: Lab, milter: Milter
) -> None:
    """Postfix bounces the other recipient: the milter never removes one."""
    field = "Require-TLS-ESMTP: yes"
    sent = send(lab, at(REJECTS), at(GOOD), asks=(), headers=[field])
    ends = {item.to: item.dsn for item in lab.deliveries(sent.queue_id, 2)}
    assert ends == {at(REJECTS): "5.7.30", at(GOOD): "2.0.0"}
    lines = {item["to"]: item["action"] for item in milter.recipients(sent.queue_id, 2)}
    assert set(lines.values()) == {"accept"}


@pytest.mark.parametrize("where", [REJECTS, DEFERS, FOR_ALL, REJECTS_BROKEN])
def test_r07_a_null_reverse_path_is_tagged_but_never_refused(
    lab: Lab, milter: Milter, where: Scenario
) -> None:
    sent = send(lab, at(where, "null"), sender="")
    line = milter.recipient(sent.queue_id)
    (delivery,) = lab.deliveries(sent.queue_id)
    assert (line["why"], line["action"]) == ("null_sender", "accept")
    # profile postfix forecasts it as for any sender, and that is what Postfix does
    assert line["forecast"] == delivery.dsn != "2.0.0"


def test_r07_a_bounce_that_can_be_delivered_carries_its_tag(lab: Lab) -> None:
    sent = send(lab, at(GOOD), sender="")
    assert tags(delivered(lab, GOOD, sent.queue_id)) == [FULFILLED]


# ---------------------------------------------------------------- whom a rule binds


@pytest.mark.parametrize(
    ("where", "session", "refuses"),
    [
        (REJECTS, {}, True),
        (REJECTS, {"source": STRANGER}, False),
        (REJECTS, {"source": STRANGER, "authenticated": True}, True),
        (FOR_AUTHENTICATED, {}, False),
        (FOR_AUTHENTICATED, {"authenticated": True}, True),
        (FOR_ALL, {"source": STRANGER}, True),
    ],
    ids=["trusted", "stranger", "submits", "network", "login", "all"],
)
def test_a_rule_binds_whom_enforce_for_says(
    lab: Lab, milter: Milter, where: Scenario, session: dict[str, Any], refuses: bool
) -> None:
    if refuses:
        with pytest.raises(Refused) as refused:
            send(lab, at(where, "bound"), **session)
        assert refused.value.reply.text.startswith("5.7.30 ")
        return
    sent = send(lab, at(where, "bound"), **session)
    line = milter.recipient(sent.queue_id)
    assert (line["why"], line["forecast"]) == ("not_enforced", "5.7.30")


# ---------------------------------------------------------------- sessions


def test_several_messages_on_one_connection_do_not_mix(lab: Lab, milter: Milter) -> None:
    text = message("one of many", ["x"])
    with lab.session() as smtp:

        def one(where: Scenario, *asks: str, headers: Sequence[str] = ()) -> str:
            body = message("one of many", ["x"], headers=headers)
            return submission.transact(smtp, [at(where)], body, parameters=asks).queue_id

        first = one(GOOD, *ASKS)
        ordinary = one(GOOD)
        optional = one(WRONG, headers=["TLS-Required: No"])
        with pytest.raises(Refused):
            submission.transact(smtp, [at(REJECTS)], text, parameters=ASKS)
        assert smtp.rset()[0] == 250
        second = one(SECOND, *ASKS)
    assert tags(delivered(lab, GOOD, first)) == [FULFILLED]
    assert tags(delivered(lab, GOOD, ordinary)) == []
    assert tags(delivered(lab, SECOND, second)) == [FULFILLED]
    (found,) = tags(delivered(lab, WRONG, optional))
    assert found.startswith("requirement=tls-required-no; ")


def test_what_never_comes_to_its_end_is_not_counted(lab: Lab, milter: Milter) -> None:
    before = _settled(milter)
    with lab.session() as smtp:
        for _ in range(3):
            smtp.docmd("MAIL", f"FROM:<{SENDER}> REQUIRETLS")
            assert smtp.docmd("RCPT", f"TO:<{at(GOOD)}>")[0] == 250
            smtp.rset()
    with lab.session() as smtp:
        smtp.docmd("MAIL", f"FROM:<{SENDER}> REQUIRETLS")
        smtp.docmd("RCPT", f"TO:<{at(GOOD)}>")
        assert smtp.docmd("DATA")[0] == 354
        smtp.send(b"Subject: half of it\r\n\r\nno end")
        smtp.close()  # in the middle of DATA
    assert _settled(milter) == before


def test_a_message_that_is_refused_recipient_by_recipient_is_counted_once(
    lab: Lab, milter: Milter
) -> None:
    before = _settled(milter)
    refused = milter.metric("messages_total", requirement="requiretls", action="reject")
    with pytest.raises(Refused):
        send(lab, at(REJECTS), at(REJECTS_WRONG))
    after = _settled(milter)
    assert (after[0] - before[0], after[1] - before[1]) == (1, 2)
    assert milter.metric("messages_total", requirement="requiretls", action="reject") == refused + 1


def test_pipelined_commands_are_answered_one_by_one(lab: Lab) -> None:
    """RFC 2920: MAIL, all RCPT and DATA in one write."""
    commands = (
        f"MAIL FROM:<{SENDER}> REQUIRETLS\r\nRCPT TO:<{at(GOOD)}>\r\n"
        f"RCPT TO:<{at(REJECTS)}>\r\nRCPT TO:<{at(GOOD, 'w')}>\r\nDATA\r\n"
    )
    with lab.session() as smtp:
        smtp.send(commands)
        replies = [_reply(smtp) for _ in range(5)]
        assert [code for code, _ in replies] == [250, 250, 550, 250, 354]
        assert b"5.7.30" in replies[2][1]
        smtp.send(b"Subject: pipelined\r\n\r\nhello\r\n.\r\n")
        code, text = _reply(smtp)
    assert code == 250
    queue_id = text.decode().rpartition(" ")[2]
    assert tags(delivered(lab, GOOD, queue_id, 2)) == [FULFILLED]


def _reply(smtp: smtplib.SMTP) -> tuple[int, bytes]:
    return smtp.getreply()


# ---------------------------------------------------------------- other ways in and out


@pytest.mark.parametrize("asks", [True, False])
def test_mail_of_local_users_comes_by_way_of_non_smtpd_milters(
    lab: Lab, milter: Milter, asks: bool
) -> None:
    """pickup(8) names no parameter, no mailer and no TLS; Postfix's own field tells."""
    options = ("-O", "requiretls=yes") if asks else ()
    subject = f"by sendmail, {asks}"
    lab.front.sendmail(
        ["-f", SENDER, *options, at(GOOD, "local")], message(subject, ["x"]).replace("\r", "")
    )
    (host,) = lab.hosts(GOOD)
    found = eventually(
        lambda: [
            text
            for session in lab.sessions(host.address)
            for text in session.messages
            if f"Subject: {subject}" in text
        ]
    )
    expected = tag("requiretls", "require-tls-esmtp", "2.0.0", "ok")
    assert tags(found[0]) == ([expected] if asks else [])
    lines = [item for item in milter.events("recipient") if "local@" in item["to"]]
    assert all(item["nexthop"] == domain(GOOD) for item in lines)


@pytest.fixture
def aliases(lab: Lab) -> Iterator[None]:
    """An alias in a domain of the front MTA's own that leads out of it."""
    table = f"inline:{{ {{ alias@mine.test = {at(LACKING, 'aliased')} }} }}"
    lab.front.reload(
        parameters={
            "mydestination": "mine.test",
            "local_recipient_maps": "",
            "virtual_alias_maps": table,
        }
    )
    yield
    lab.front.reload(parameters={"mydestination": "", "virtual_alias_maps": ""})


@pytest.mark.usefixtures("aliases")
def test_a_virtual_alias_that_leaves_by_smtp_looks_local(lab: Lab, milter: Milter) -> None:
    """A limit, and a documented one: Postfix tells the next hop before it expands aliases."""
    sent = send(lab, "alias@mine.test")
    line = milter.recipient(sent.queue_id)
    assert (line["transport"], line["nexthop"], line["reason"]) == ("local", "local", "local")
    assert (line["forecast"], line["why"]) == ("2.0.0", "mode")
    (delivery,) = lab.deliveries(sent.queue_id)
    assert (delivery.orig_to, delivery.dsn) == ("alias@mine.test", "5.7.30")


def test_r54_an_internationalized_domain_is_looked_up_as_a_labels(lab: Lab, milter: Milter) -> None:
    name = "gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n"
    where = Scenario(idna.encode(name).decode(), domains=(Domain(mx=(Mx(server=NOREQ),)),))
    lab.add([where])
    # Postfix looks a transport up by the name as it was typed
    lab.plan.transport[f"{name}.sig.test"] = (where.profile, "")
    lab.update()
    with lab.session() as smtp:
        for command in (
            f"MAIL FROM:<{SENDER}> SMTPUTF8 REQUIRETLS",
            f"RCPT TO:<{name}@{name}.sig.test>",
            "DATA",
        ):
            smtp.send(f"{command}\r\n".encode())
            code, text = smtp.getreply()
            assert code in (250, 354), text
        smtp.send(b"Subject: x\r\n\r\nbody\r\n.\r\n")
        code, text = smtp.getreply()
    assert code == 250
    queue_id = text.decode().split()[-1]
    line = milter.recipient(queue_id)
    assert line["nexthop"] == domain(where) == "xn--grn-ioa.sig.test"
    (delivery,) = lab.deliveries(queue_id)
    assert (
        (line["forecast"], line["tls"]) == (delivery.dsn, delivery.tls) == ("5.7.30", delivery.tls)
    )


# ---------------------------------------------------------------- log and metrics


def test_log_and_metrics_tell_the_same(lab: Lab, milter: Milter) -> None:
    """After all that the tests above have sent, whatever it was."""
    send(lab, at(GOOD))
    _settled(milter)
    lines = milter.events("recipient")
    assert milter.metric("forecasts_total") == len(lines)
    for requirement in ("requiretls", "tls-required-no"):
        for action in ("accept", "defer", "reject"):
            said = [
                item
                for item in lines
                if (item["requirement"], item["action"]) == (requirement, action)
            ]
            labels = {"requirement": requirement, "action": action}
            assert milter.metric("recipients_total", **labels) == len(said), labels
    messages = [item for item in milter.events("message") if not _off(item)]
    for action in ("accept", "defer", "reject"):
        told = sum(item["action"] == action for item in messages)
        assert milter.metric("messages_total", action=action) == told > 0, action
    for source in ("esmtp", "require-tls-esmtp", "rule", "tls-required", "none"):
        told = sum(item["source"] == source for item in messages)
        assert milter.metric("requirement_sources_total", source=source) == told > 0, source
    assert milter.metric("forecast_wait_seconds_count") > 0
    assert milter.metric("callback_errors_total") == 0
    assert milter.metric("process_restarts_total") == 0


def _off(item: dict[str, Any]) -> bool:
    """A message whose recipients' rules all say ``off``: told at level debug, and not counted."""
    asked = item["requirement"] == "requiretls" and item["action"] == "accept"
    return asked and "route" not in item
