"""The recipe for Sendmail 8.17 and 8.18: the milter marks, and a ruleset keeps the promise.

docs/recipes/sendmail.md explains it; its files are what runs here.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import recipes
from tests.lab.lab import Lab
from tests.lab.recipes import (
    LOCAL_DOMAIN,
    LOCAL_RECIPIENT,
    SENDMAIL,
    Arrival,
    Site,
    fields,
    scenario,
    server,
)
from tests.lab.sendmail import PROGRAM, Sendmail
from tests.support.scenario import Scenario
from tests.support.waiting import eventually

pytestmark = pytest.mark.lab

CLEAR = server(tlsa=[], starttls="none")

DOMAINS = (
    GOOD := scenario("sm-good"),
    NOT_OFFERED := scenario("sm-notoffered", server(requiretls="none")),
    ENOUGH := scenario("sm-enough", server(requiretls="none")),
    DEFERRED := scenario("sm-deferred", CLEAR),
    NO_TLS := scenario("sm-notls", CLEAR),
    TRAP := scenario("sm-trap", CLEAR),
    WRONG_NAME := scenario("sm-wrongname", server(cert="wrongname")),
    UNTRUSTED := scenario("sm-untrusted", server(tlsa=[], cert="untrusted")),
    BROKEN := scenario("sm-broken", server(handshake="close")),
    CN_ONLY := scenario("sm-cnonly", server(cert="cnonly")),
    SECOND := scenario("sm-second", CLEAR, server(pref=20)),
    LATER := scenario("sm-later", server(rcpt_reply={"u": "451 4.2.0 later"})),
    BYSTANDER := scenario("sm-bystander", CLEAR),
    BACK := scenario("sm-back", CLEAR),
    SAME := scenario("sm-same", CLEAR),
    UNSIGNED := scenario("sm-unsigned", server(tlsa=[]), zone="uns"),
    WATCHED_UNSIGNED := scenario("sm-watchedunsigned", server(tlsa=[]), zone="uns"),
)

WATCHED = {"require": True, "mode": "monitor"}
"""Accepted whatever the forecast: what then happens is the doing of the ruleset."""


def domain(item: Scenario) -> str:
    return item.domain_name(item.domains[0])


def rules() -> dict[str, object]:
    """The recipe's rules, for the domains of the tests."""
    recipe = recipes.sections("sendmail/config.toml")["rules"]["recipient"]
    watched = (TRAP, WRONG_NAME, UNTRUSTED, BROKEN, CN_ONLY, SECOND, SAME, WATCHED_UNSIGNED)
    return {
        **{domain(item): recipe["bank.example"] for item in (GOOD, NOT_OFFERED, NO_TLS, UNSIGNED)},
        **{domain(item): recipe["partner.example"] for item in (ENOUGH, DEFERRED)},
        **{domain(item): WATCHED for item in watched},
        "relayed.test": recipe["bank.example"],
    }


@pytest.fixture(scope="module", params=SENDMAIL)
def site(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Site[Sendmail]]:
    if DOMAINS[0].id not in lab.plan.scenarios:
        lab.add(DOMAINS)
    site = recipes.sendmail(
        lab,
        SENDMAIL[request.param],
        mailertable={"relayed.test": f"esmtp:[mx1.{domain(GOOD)}]"},
        aliases={"leaver": f"u@{domain(BYSTANDER)}"},
        rules={"recipient": rules()},
    )
    with site as running:
        yield running


def subject(site: Site[Sendmail], word: str) -> str:
    """A subject that no other test has, with either version."""
    return f"{word} {site.mta.name}"


def mail_words(arrival: Arrival) -> list[str]:
    """The words of the MAIL command with which a message came."""
    (command,) = arrival.session.mail
    return command.split()[1:]


def refused_by_ruleset(site: Site[Sendmail], queue_id: str, item: Scenario) -> str:
    """That a message was refused before MAIL FROM; what the log says of it."""
    (delivery, *_) = site.mta.log.wait(queue_id)
    assert (delivery.dsn, delivery.stat) == ("5.7.10", "Service unavailable")
    assert site.saw_no_mail(item)
    lines = site.mta.log.grep(rf"ruleset=tls_server, .*relay=mx1\.{domain(item)}")
    return lines[-1].partition("reject=")[2]


# ---------------------------------------------------------------- what comes in


def test_the_parameter_is_refused_before_the_milter_hears_of_it(site: Site[Sendmail]) -> None:
    refused = site.refusal(site.rcpt(GOOD), parameters=["REQUIRETLS"])
    assert refused.stage == "mail"
    assert (refused.reply.code, refused.reply.text) == (
        555,
        "5.5.4 REQUIRETLS parameter unrecognized",
    )


def test_sendmail_has_nothing_of_requiretls(site: Site[Sendmail]) -> None:
    """No parameter, no option, no table: not even the word."""
    program = (site.mta.root / PROGRAM.lstrip("/")).read_bytes()
    assert b"STARTTLS" in program
    assert b"requiretls" not in program.lower()


def test_tls_required_no_is_read_and_told_in_the_tag(site: Site[Sendmail]) -> None:
    name = subject(site, "no")
    sent = site.send(LOCAL_RECIPIENT, headers=["TLS-Required: No"], subject=name)
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.mailer, delivery.status) == ("local", "sent")
    (tag,) = local_tags(site, name)
    assert tag.startswith("requirement=tls-required-no; source=tls-required; forecast=2.0.0; ")
    assert tag.endswith(f"; route=mixed; by={site.name}")


def local_tags(site: Site[Sendmail], name: str) -> list[str]:
    """The tags of a message in the local mailbox."""
    messages = ("\n" + site.mta.mailbox()).split("\nFrom ")[1:]
    (message,) = [text for text in messages if f"Subject: {name}\n" in text]
    return fields(message.partition("\n")[2], "X-RequireTLS")


def test_a_refusal_at_rcpt_is_seen_by_the_client(site: Site[Sendmail]) -> None:
    refused = site.refusal(site.rcpt(NOT_OFFERED))
    assert refused.stage == "rcpt"
    assert (refused.reply.code, refused.reply.text) == (
        550,
        f"5.7.30 <{site.rcpt(NOT_OFFERED)}>... REQUIRETLS cannot be honoured for "
        f"{domain(NOT_OFFERED)}: mx1.{domain(NOT_OFFERED)} does not offer REQUIRETLS; a rule of "
        "this system requires REQUIRETLS",
    )


def test_what_sendmail_sends_without_smtp_goes_past_every_milter(site: Site[Sendmail]) -> None:
    """``sendmail -Am``, which submit.cf is there to avoid."""
    before = len(site.milter.events("recipient"))
    name = subject(site, "past")
    site.mta.submit(["-f", "a@x.test", site.rcpt(UNSIGNED)], f"Subject: {name}\n\nhello\n")
    site.arrival(UNSIGNED, name)
    assert len(site.milter.events("recipient")) == before


@pytest.mark.parametrize("item", [DEFERRED, NO_TLS], ids=["mode defer", "mode reject"])
def test_what_would_not_be_verified_is_deferred_at_rcpt(
    site: Site[Sendmail], item: Scenario
) -> None:
    """Accepted, it would be a bounce at once, by the ruleset."""
    refused = site.refusal(site.rcpt(item))
    assert (refused.stage, refused.reply.code) == ("rcpt", 451)
    assert refused.reply.text.startswith("4.7.4 REQUIRETLS cannot be honoured now")


def test_an_mx_without_a_signature_or_policy_is_refused_at_rcpt(site: Site[Sendmail]) -> None:
    refused = site.refusal(site.rcpt(UNSIGNED))
    assert (refused.stage, refused.reply.code) == ("rcpt", 550)
    assert refused.reply.text == (
        f"5.7.10 <{site.rcpt(UNSIGNED)}>... REQUIRETLS cannot be honoured for "
        f"{domain(UNSIGNED)}: its MX is secured neither by DNSSEC nor by MTA-STS; a rule of this "
        "system requires REQUIRETLS"
    )


def test_of_two_recipients_only_the_one_that_cannot_have_it_is_refused(
    site: Site[Sendmail],
) -> None:
    sent = site.send(site.rcpt(GOOD), site.rcpt(NOT_OFFERED))
    assert list(sent.refused) == [site.rcpt(NOT_OFFERED)]
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.to, delivery.status) == (site.rcpt(GOOD), "sent")


def test_the_milter_is_told_of_local_recipients_by_their_mailer(site: Site[Sendmail]) -> None:
    sent = site.send(LOCAL_RECIPIENT, headers=["TLS-Required: No"])
    line = site.milter.recipient(sent.queue_id)
    assert (line["transport"], line["nexthop"]) == ("local", "local")


def test_an_alias_that_leaves_looks_local_and_is_not_marked(site: Site[Sendmail]) -> None:
    sent = site.send(f"leaver@{LOCAL_DOMAIN}", headers=["Require-TLS-ESMTP: yes"])
    line = site.milter.recipient(sent.queue_id)
    assert (line["nexthop"], line["reason"]) == ("local", "local")
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.mailer, delivery.status) == ("esmtp", "sent")
    assert site.address(BYSTANDER) in delivery.relay


def test_a_mailertable_entry_is_the_next_hop_that_is_judged(site: Site[Sendmail]) -> None:
    name = subject(site, "relayed")
    sent = site.send("u@relayed.test", subject=name)
    line = site.milter.recipient(sent.queue_id)
    assert (line["transport"], line["nexthop"]) == ("esmtp", f"[mx1.{domain(GOOD)}]")
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert delivery.status == "sent"
    assert mail_words(site.arrival(GOOD, name))[-2:] == ["ENVID=REQUIRETLS", "RET=HDRS"]


# ---------------------------------------------------------------- the mail that may go


def test_what_a_rule_asks_goes_marked_over_verified_tls(site: Site[Sendmail]) -> None:
    name = subject(site, "marked")
    parameters = ["BODY=8BITMIME", "RET=FULL", "ENVID=abc"]
    sent = site.send(site.rcpt(GOOD), parameters=parameters, subject=name)
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.mailer, delivery.status) == ("esmtp", "sent")
    (*_, line) = site.mta.log.grep(rf"STARTTLS=client, relay=mx1\.{domain(GOOD)}\., version=")
    assert "verify=OK" in line
    arrival = site.arrival(GOOD, name)
    assert arrival.session.tls == "TLSv1.3"
    words = mail_words(arrival)
    assert words[0] == "From:<s@sender.test>"
    assert not any(word.upper() == "REQUIRETLS" for word in words)
    assert words[2:] == ["BODY=8BITMIME", "ENVID=abc.REQUIRETLS", "RET=HDRS"]


def test_r13_no_does_not_undo_what_a_rule_asks(site: Site[Sendmail]) -> None:
    name = subject(site, "both")
    sent = site.send(site.rcpt(GOOD), headers=["TLS-Required: No"], subject=name)
    assert site.milter.recipient(sent.queue_id)["source"] == "rule"
    assert "ENVID=REQUIRETLS" in mail_words(site.arrival(GOOD, name))


def test_the_header_field_of_a_front_mta_counts_as_well(site: Site[Sendmail]) -> None:
    name = subject(site, "by field")
    sent = site.send(site.rcpt(BYSTANDER), headers=["Require-TLS-ESMTP: yes"], subject=name)
    assert site.milter.recipient(sent.queue_id)["source"] == "require-tls-esmtp"
    (delivery, *_) = site.mta.log.wait(sent.queue_id)
    assert delivery.dsn == "5.7.10"


def test_the_next_server_is_tried_where_the_first_one_has_no_tls(site: Site[Sendmail]) -> None:
    name = subject(site, "second")
    sent = site.send(site.rcpt(SECOND), subject=name)
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert delivery.status == "sent"
    arrival = site.arrival(SECOND, name)
    assert (arrival.session.address, arrival.session.tls) == (site.address(SECOND, 1), "TLSv1.3")


def test_a_name_in_the_subject_is_enough_where_there_is_no_other(site: Site[Sendmail]) -> None:
    sent = site.send(site.rcpt(CN_ONLY))
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert delivery.status == "sent"


def test_the_tag_does_not_leave(site: Site[Sendmail]) -> None:
    name = subject(site, "tag")
    site.send(site.rcpt(GOOD), headers=["X-RequireTLS: forged"], subject=name)
    assert site.arrival(GOOD, name).tags == []


# ---------------------------------------------------------------- the mail that may not


def test_the_ruleset_refuses_a_session_without_tls_before_mail_from(site: Site[Sendmail]) -> None:
    name = subject(site, "trap")
    sent = site.send(site.rcpt(TRAP), sender=site.rcpt(BACK), subject=name, body="SECRET\n")
    assert refused_by_ruleset(site, sent.queue_id, TRAP) == (
        f"550 5.7.10 <{site.rcpt(TRAP)}>... REQUIRETLS: the session with mx1.{domain(TRAP)} "
        "is not verified TLS (verify=NONE)"
    )
    bounce = site.bounce(BACK, name)
    assert bounce.session.tls is None
    assert mail_words(bounce)[0] == "From:<>"
    assert "Status: 5.7.10\n" in bounce.text
    assert "Content-Type: text/rfc822-headers" in bounce.text
    assert "SECRET" not in bounce.text


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (WRONG_NAME, "is for another name"),
        (UNTRUSTED, "(verify=FAIL)"),
        (BROKEN, "(verify=SOFTWARE)"),
    ],
    ids=["wrong name", "untrusted", "broken handshake"],
)
def test_the_ruleset_refuses_tls_that_is_not_verified(
    site: Site[Sendmail], item: Scenario, said: str
) -> None:
    sent = site.send(site.rcpt(item))
    assert refused_by_ruleset(site, sent.queue_id, item).endswith(said)


def test_other_mail_to_the_same_server_goes_on(site: Site[Sendmail]) -> None:
    """Sendmail remembers a host's failure; not here, where it is the message's."""
    sent = site.send(site.rcpt(BYSTANDER), headers=["Require-TLS-ESMTP: yes"])
    (delivery, *_) = site.mta.log.wait(sent.queue_id)
    assert delivery.dsn == "5.7.10"
    name = subject(site, "ordinary")
    sent = site.send(site.rcpt(BYSTANDER), subject=name)
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert delivery.status == "sent"
    assert site.arrival(BYSTANDER, name).session.tls is None


def test_the_ruleset_does_not_ask_who_vouches_for_an_mx(site: Site[Sendmail]) -> None:
    """That is for the forecast: here, in mode monitor, it is told and nothing more."""
    sent = site.send(site.rcpt(WATCHED_UNSIGNED))
    assert site.milter.recipient(sent.queue_id)["reason"] == "noncompliant_mx_insecure"
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert delivery.status == "sent"


def test_a_bounce_to_the_refused_server_itself_goes_to_the_postmaster(
    site: Site[Sendmail],
) -> None:
    """The process that was refused there remembers it, and sends the bounce."""
    sent = site.send(site.rcpt(SAME), sender=site.rcpt(SAME))
    site.mta.log.wait(sent.queue_id)
    told = f"<{site.rcpt(SAME)}>\n    (reason: 550 5.7.10 "
    eventually(lambda: told in site.mta.mailbox(), wait=15)
    assert site.saw_no_mail(SAME)


def test_the_mark_outlives_the_queue_and_binds_only_its_message(site: Site[Sendmail]) -> None:
    ordinary = [f"first@{domain(LATER)}", f"last@{domain(LATER)}"]
    names = [subject(site, word) for word in ("before", "queued", "after")]
    set_server(site, LATER, "offer", dict.fromkeys(("u", "first", "last"), "451 4.2.0 later"))
    recipients = [ordinary[0], site.rcpt(LATER), ordinary[1]]
    queue_ids = []
    # Sendmail's queue runs by size: the last one comes after the one that is refused.
    for recipient, name, size in zip(recipients, names, (1, 1, 2000), strict=True):
        asks = [] if recipient in ordinary else ["Require-TLS-ESMTP: yes"]
        body = f"{'x' * 70}\n" * size
        sent = site.send(recipient, headers=asks, subject=name, body=body)
        (delivery,) = site.mta.log.wait(sent.queue_id)
        assert delivery.status == "deferred"
        queue_ids.append(sent.queue_id)
    set_server(site, LATER, "none", {})
    site.mta.flush()
    outcomes = [site.mta.log.wait_for_end(queue_id).dsn for queue_id in queue_ids]
    assert outcomes == ["2.0.0", "5.7.10", "2.0.0"]
    for name in (names[0], names[2]):
        assert site.arrival(LATER, name).session.tls is None


def set_server(
    site: Site[Sendmail], item: Scenario, starttls: str, rcpt_reply: dict[str, str]
) -> None:
    """Make the server of *item* another one."""
    (listener,) = [
        listener
        for listener in site.lab.plan.listeners
        if listener["address"] == site.address(item)
    ]
    listener["server"] |= {"starttls": starttls, "rcpt_reply": rcpt_reply}
    site.lab.update()


# ---------------------------------------------------------------- whom it does not concern


@pytest.mark.parametrize("other", ["local", "bystander"])
def test_a_recipient_who_asks_nothing_keeps_the_message_unmarked(
    site: Site[Sendmail], other: str
) -> None:
    beside = LOCAL_RECIPIENT if other == "local" else site.rcpt(BYSTANDER)
    name = subject(site, f"with {other}")
    sent = site.send(site.rcpt(GOOD), beside, subject=name)
    deliveries = {item.to: item for item in site.mta.log.wait(sent.queue_id, recipients=2)}
    assert {item.status for item in deliveries.values()} == {"sent"}
    assert not any("ENVID" in word for word in mail_words(site.arrival(GOOD, name)))


def test_r07_mail_of_the_null_sender_goes_unmarked(site: Site[Sendmail]) -> None:
    name = subject(site, "null sender")
    sent = site.send(site.rcpt(TRAP), sender="", subject=name)
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert delivery.status == "sent"
    arrival = site.arrival(TRAP, name)
    assert arrival.session.tls is None
    assert not any("ENVID" in word for word in mail_words(arrival))
