"""The recipe for Sendmail with DANE, which Debian's 8.18 has, and without receipts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import recipes
from tests.lab.lab import Lab
from tests.lab.recipes import SENDMAIL, Site, scenario, server
from tests.lab.sendmail import Sendmail
from tests.support.scenario import Scenario

pytestmark = pytest.mark.lab

DOMAINS = (
    DANE_ONLY := scenario("smd-daneonly", server(cert="selfsigned")),
    MISMATCH := scenario("smd-mismatch", server(tlsa=["3 1 1 bad"])),
    STRIPPED := scenario("smd-stripped", server(starttls="none")),
    JUDGED := scenario("smd-judged", server(tlsa=["3 1 1 bad"])),
    FREE := scenario("smd-free", server(tlsa=["3 1 1 bad"])),
)


def domain(item: Scenario) -> str:
    return item.domain_name(item.domains[0])


@pytest.fixture(scope="module")
def site(lab: Lab) -> Iterator[Site[Sendmail]]:
    lab.add(DOMAINS)
    watched = {"require": True, "mode": "monitor"}
    rule = recipes.sections("sendmail/config.toml")["rules"]["recipient"]["partner.example"]
    site = recipes.sendmail(
        lab,
        SENDMAIL["sendmail-8.18"],
        features=("define(`confDANE', `true')dnl\ndefine(`confPRIVACY_FLAGS', `noreceipts')dnl\n"),
        mta={"tls_security_level": "dane"},
        rules={
            "recipient": {
                **{domain(item): watched for item in (DANE_ONLY, MISMATCH, STRIPPED)},
                domain(JUDGED): rule,
            }
        },
    )
    with site as running:
        yield running


def test_a_certificate_that_tlsa_records_name_is_enough(site: Site[Sendmail]) -> None:
    sent = site.send(site.rcpt(DANE_ONLY), subject="dane only")
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert delivery.status == "sent"
    assert site.mta.log.grep(rf"relay=mx1\.{domain(DANE_ONLY)}\., .*verify=TRUSTED")
    (mail,) = site.arrival(DANE_ONLY, "dane only").session.mail
    assert "ENVID=REQUIRETLS" in mail.split()
    line = site.milter.recipient(sent.queue_id)
    assert (line["forecast"], line["compliant"]) == ("2.0.0", "true")


def test_the_mark_holds_where_sendmail_gives_no_receipts(site: Site[Sendmail]) -> None:
    refused = site.refusal(site.rcpt(DANE_ONLY), parameters=["RET=FULL"])
    assert (refused.stage, refused.reply.code) == ("mail", 504)
    site.send(site.rcpt(DANE_ONLY), parameters=["BODY=8BITMIME"], subject="no receipts")
    (mail,) = site.arrival(DANE_ONLY, "no receipts").session.mail
    assert "ENVID=REQUIRETLS" in mail.split()


@pytest.mark.parametrize(
    ("item", "verify"), [(MISMATCH, "DANE_FAIL"), (STRIPPED, "NONE")], ids=["bad", "stripped"]
)
def test_the_ruleset_refuses_what_dane_does_not_verify(
    site: Site[Sendmail], item: Scenario, verify: str
) -> None:
    sent = site.send(site.rcpt(item))
    (delivery, *_) = site.mta.log.wait(sent.queue_id)
    assert (delivery.dsn, delivery.stat) == ("5.7.10", "Service unavailable")
    assert site.saw_no_mail(item)
    (line,) = site.mta.log.grep(rf"ruleset=tls_server, .*relay=mx1\.{domain(item)}")
    assert line.endswith(f"(verify={verify})")


def test_it_is_deferred_at_rcpt_where_a_rule_says_so(site: Site[Sendmail]) -> None:
    refused = site.refusal(site.rcpt(JUDGED))
    assert (refused.stage, refused.reply.code) == ("rcpt", 451)
    assert refused.reply.text.startswith("4.7.5 REQUIRETLS cannot be honoured now")


def test_r13_no_does_not_lift_dane_here(site: Site[Sendmail]) -> None:
    """Sendmail does not know the field: it is read and told, but not obeyed."""
    sent = site.send(site.rcpt(FREE), headers=["TLS-Required: No"])
    line = site.milter.recipient(sent.queue_id)
    assert (line["requirement"], line["carried"]) == ("tls-required-no", "none")
    (delivery,) = site.mta.log.wait(sent.queue_id)
    assert delivery.status == "deferred"
    assert line["forecast"] == "4.7.5"
