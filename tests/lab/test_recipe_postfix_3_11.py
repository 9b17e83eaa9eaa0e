"""The recipe for Postfix 3.11: it keeps REQUIRETLS itself, and the milter tells beforehand.

docs/recipes/postfix.md explains it; its files are what runs here.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.lab import recipes
from tests.lab.lab import Lab
from tests.lab.postfix import Postfix
from tests.lab.recipes import LOCAL_DOMAIN, LOCAL_RECIPIENT, POSTFIX, Site, scenario, server
from tests.support.paths import REPOSITORY
from tests.support.scenario import Scenario

pytestmark = pytest.mark.lab

RECIPE = "postfix-3.11"

DOMAINS = (
    GOOD := scenario("new-good"),
    NOT_OFFERED := scenario("new-notoffered", server(requiretls="none")),
    PROTECTED := scenario("new-protected", server(requiretls="none")),
    LENIENT := scenario("new-lenient", server(requiretls="none")),
    BOUNCING := scenario("new-bouncing", server(requiretls="none")),
    BACK := scenario("new-back", server(tlsa=[], starttls="none")),
    RULED := scenario("new-ruled"),
    MISMATCH := scenario("new-mismatch", server(tlsa=["3 1 1 bad"])),
    CONTRADICTED := scenario("new-contradicted"),
    RELAY := scenario("new-relay"),
    RELAYED := scenario("new-relayed", server(tlsa=[], starttls="none")),
)

ALIAS = f"alias@{LOCAL_DOMAIN}"
"""A virtual alias for a recipient elsewhere."""


def domain(item: Scenario) -> str:
    return item.domain_name(item.domains[0])


@pytest.fixture(scope="module")
def site(lab: Lab) -> Iterator[Site[Postfix]]:
    lab.add(DOMAINS)
    watched = {domain(item): {"mode": "monitor"} for item in (LENIENT, BOUNCING)}
    protected = {domain(PROTECTED): {"mode": "defer", "enforce_for": "authenticated"}}
    ruled = {domain(item): {"require": True} for item in (RULED, CONTRADICTED)}
    site = recipes.postfix(
        lab,
        POSTFIX["postfix-3.11"],
        RECIPE,
        main={"virtual_alias_maps": f"inline:{{ {{ {ALIAS} = u@{domain(NOT_OFFERED)} }} }}"},
        rules={"recipient": {**watched, **protected, **ruled}},
    )
    with site as running:
        # exported as an operator does; and the rest of the list is lenient, to tell them apart
        command = [sys.executable, "-m", "requiretls_milter", "export"]
        command += ["postfix-requiretls-policy", "--config", str(running.milter.config_file)]
        made = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
        recipes.install(running.mta, "requiretls_policy", made.stdout)
        yield running


def test_the_parameter_is_taken_and_passed_on_over_verified_tls(site: Site[Postfix]) -> None:
    sent = site.send(site.rcpt(GOOD), parameters=["REQUIRETLS"], subject="passed on")
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.status, delivery.dsn, delivery.tls) == ("sent", "2.0.0", "dane/requiretls")
    arrival = site.arrival(GOOD, "passed on")
    assert arrival.session.tls == "TLSv1.3"
    assert any("REQUIRETLS" in command.split() for command in arrival.session.mail)
    line = site.milter.recipient(sent.queue_id)
    assert (line["source"], line["forecast"], line["reason"]) == ("esmtp", "2.0.0", "ok")


def test_the_header_field_is_obeyed_too(site: Site[Postfix]) -> None:
    sent = site.send(site.rcpt(GOOD), headers=["Require-TLS-ESMTP: yes"], subject="by field")
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert delivery.tls == "dane/requiretls"
    assert site.milter.recipient(sent.queue_id)["source"] == "require-tls-esmtp"


def test_the_sender_learns_at_rcpt_what_would_come_as_a_bounce(site: Site[Postfix]) -> None:
    refused = site.refusal(site.rcpt(NOT_OFFERED), parameters=["REQUIRETLS"])
    assert refused.stage == "rcpt"
    assert (refused.reply.code, refused.reply.text) == (
        550,
        f"5.7.30 REQUIRETLS cannot be honoured for {domain(NOT_OFFERED)}: "
        f"mx1.{domain(NOT_OFFERED)} does not offer REQUIRETLS",
    )
    assert site.saw_no_mail(NOT_OFFERED)


def test_of_two_recipients_only_the_one_that_cannot_have_it_is_refused(
    site: Site[Postfix],
) -> None:
    sent = site.send(site.rcpt(GOOD), site.rcpt(NOT_OFFERED), parameters=["REQUIRETLS"])
    assert list(sent.refused) == [site.rcpt(NOT_OFFERED)]
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.to, delivery.status) == (site.rcpt(GOOD), "sent")


def test_r14_ret_full_is_disregarded_at_every_hop(site: Site[Postfix]) -> None:
    parameters = ["RET=FULL", "ENVID=abc"]
    site.send(site.rcpt(GOOD), parameters=["REQUIRETLS", *parameters], subject="forced")
    (mail,) = mail_commands(site, "forced")
    assert "RET=HDRS" in mail
    assert "RET=FULL" not in mail
    assert "ENVID=abc" in mail
    assert "REQUIRETLS" in mail

    site.send(site.rcpt(GOOD), parameters=parameters, subject="not forced")
    (mail,) = mail_commands(site, "not forced")
    assert "RET=FULL" in mail


def mail_commands(site: Site[Postfix], subject: str) -> list[list[str]]:
    """The words of the MAIL command with which a message came to GOOD's server."""
    session = site.arrival(GOOD, subject).session
    place = next(
        number for number, text in enumerate(session.messages) if f"Subject: {subject}\n" in text
    )
    return [session.mail[place].split()]


def test_r14_r15_its_bounce_has_no_body_and_goes_in_clear_if_need_be(site: Site[Postfix]) -> None:
    sent = site.send(
        site.rcpt(BOUNCING),
        sender=site.rcpt(BACK),
        parameters=["REQUIRETLS", "RET=FULL"],
        subject="bounced",
        body="SECRET\n",
    )
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.status, delivery.dsn) == ("bounced", "5.7.30")
    bounce = site.bounce(BACK, "bounced")
    assert bounce.session.tls is None
    assert "Content-Type: text/rfc822-headers" in bounce.text
    assert "SECRET" not in bounce.text


def test_the_exported_table_enforces_what_a_lenient_list_would_let_pass(
    site: Site[Postfix],
) -> None:
    policy = recipes.parameters(f"{RECIPE}/main.cf")["smtp_requiretls_policy"]
    policy = policy.replace("/etc/postfix/", site.mta.inside("etc") + "/")
    assert policy.endswith(", enforce")
    lenient = policy.removesuffix("enforce") + "opportunistic"
    site.mta.reload(parameters={"smtp_requiretls_policy": lenient})
    try:
        sent = site.send(site.rcpt(PROTECTED), parameters=["REQUIRETLS"])
        (delivery,) = site.mta.log.wait(sent.queue_id)
        assert (delivery.status, delivery.dsn) == ("bounced", "5.7.30")
        sent = site.send(site.rcpt(LENIENT), parameters=["REQUIRETLS"])
        (delivery,) = site.mta.log.wait(sent.queue_id)
        assert (delivery.status, delivery.tls) == ("sent", "dane/requiretls:none")
    finally:
        site.mta.reload(parameters={"smtp_requiretls_policy": policy})


def test_the_tag_tells_those_within_the_site_and_no_one_else(site: Site[Postfix]) -> None:
    sent = site.send(LOCAL_RECIPIENT, parameters=["REQUIRETLS"], subject="within")
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.transport, delivery.status) == ("virtual", "sent")
    (inside,) = [text for text in recipes.mailbox(site.mta) if "Subject: within\n" in text]
    (tag,) = recipes.fields(inside, "X-RequireTLS")
    assert tag.startswith("requirement=requiretls; source=esmtp; forecast=2.0.0; reason=local; ")
    assert tag.endswith(f"; by={site.name}")

    site.send(site.rcpt(GOOD), parameters=["REQUIRETLS"], subject="leaving")
    assert site.arrival(GOOD, "leaving").tags == []


def test_a_rule_is_kept_by_the_milter_and_not_passed_on(site: Site[Postfix]) -> None:
    sent = site.send(site.rcpt(RULED), subject="ruled")
    line = site.milter.recipient(sent.queue_id)
    assert (line["source"], line["carried"], line["compliant"]) == ("rule", "none", "true")
    arrival = site.arrival(RULED, "ruled")
    assert arrival.session.tls == "TLSv1.3"
    assert not any("REQUIRETLS" in command for command in arrival.session.mail)


def test_r13_no_is_obeyed_and_refused_where_a_rule_asks(site: Site[Postfix]) -> None:
    headers = ["TLS-Required: No"]
    sent = site.send(site.rcpt(MISMATCH), headers=headers)
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.status, delivery.tls) == ("sent", "may")
    refused = site.refusal(site.rcpt(CONTRADICTED), headers=headers)
    assert (refused.stage, refused.reply.code) == ("data", 550)
    assert refused.reply.text.startswith("5.7.10 TLS-Required: No contradicts")


def test_the_relayhost_is_the_next_hop_that_is_judged(site: Site[Postfix]) -> None:
    (able,), (unable,) = site.lab.hosts(RELAY), site.lab.hosts(NOT_OFFERED)
    try:
        site.mta.reload(parameters={"relayhost": f"[{able.name}]"})
        sent = site.send(site.rcpt(RELAYED), parameters=["REQUIRETLS"], subject="relayed")
        (delivery,) = site.mta.log.wait(sent.queue_id)
        assert (delivery.status, delivery.tls) == ("sent", "dane/requiretls")
        assert delivery.relay == f"{able.name}[{able.address}]:25"
        assert site.arrival(RELAY, "relayed").session.tls == "TLSv1.3"
        assert site.milter.recipient(sent.queue_id)["nexthop"] == f"[{able.name}]"

        site.mta.reload(parameters={"relayhost": f"[{unable.name}]"})
        refused = site.refusal(site.rcpt(RELAYED), parameters=["REQUIRETLS"])
        assert (refused.stage, refused.reply.code) == ("rcpt", 550)
        assert refused.reply.text.endswith(f"{unable.name} does not offer REQUIRETLS")
    finally:
        site.mta.reload(parameters={"relayhost": ""})


def test_an_alias_that_leaves_looks_local_and_is_not_refused(site: Site[Postfix]) -> None:
    sent = site.send(ALIAS, parameters=["REQUIRETLS"])
    line = site.milter.recipient(sent.queue_id)
    assert (line["nexthop"], line["reason"]) == ("local", "local")
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert (delivery.to, delivery.orig_to) == (site.rcpt(NOT_OFFERED), ALIAS)
    assert (delivery.status, delivery.dsn) == ("bounced", "5.7.30")


def test_outside_tls_the_parameter_is_refused(site: Site[Postfix]) -> None:
    refused = site.refusal(site.rcpt(GOOD), parameters=["REQUIRETLS"], tls=False)
    assert (refused.stage, refused.reply.code) == ("mail", 555)
