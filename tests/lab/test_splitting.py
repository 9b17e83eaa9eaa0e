"""Recipients with different routes, sent by a real client in one message (``rules.on_mixed``).

The MTA with the milter is a Postfix that follows the recipe for versions that do not know
REQUIRETLS: what a rule asks goes by a transport that authenticates its servers, and FILTER moves
all recipients of a message. The clients are mail servers of others.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import recipes, submission
from tests.lab.lab import Lab
from tests.lab.postfix import Postfix
from tests.lab.recipes import (
    LOCAL_RECIPIENT,
    POSTFIX,
    SENDMAIL,
    Arrival,
    Site,
    mailbox,
    scenario,
    server,
)
from tests.lab.sendmail import Sendmail
from tests.support.scenario import Scenario
from tests.support.waiting import eventually

pytestmark = pytest.mark.lab

CLEAR = server(tlsa=[], starttls="none")

DOMAINS = (
    ASKED := scenario("split-asked"),
    BYSTANDER := scenario("split-bystander", CLEAR),
)
"""A rule asks for the first; the other one's server offers no TLS."""

RULE = {"require": True, "mode": "defer", "on_noncompliant": "accept"}


def rules(lab: Lab) -> dict[str, object]:
    if ASKED.id not in lab.plan.scenarios:
        lab.add(DOMAINS)
    (domain,) = ASKED.domains
    return {"on_mixed": "split", "recipient": {ASKED.domain_name(domain): RULE}}


@pytest.fixture(params=list(POSTFIX))
def site(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Site[Postfix]]:
    with recipes.postfix(
        lab,
        POSTFIX[request.param],
        "postfix-3.7",
        main={"smtp_tls_security_level": "may"},
        rules=rules(lab),
    ) as running:
        yield running


@pytest.fixture(params=["postfix", "sendmail"])
def client(
    request: pytest.FixtureRequest, lab: Lab, site: Site[Postfix]
) -> Iterator[Postfix | Sendmail]:
    relay = site.mta.address
    if request.param == "postfix":
        version = next(each for each in POSTFIX.values() if each.name != site.mta.name)
        with recipes.postfix_client(lab, version, relay) as postfix:
            yield postfix
    else:
        with recipes.sendmail_client(lab, SENDMAIL["sendmail-8.18"], relay) as sendmail:
            yield sendmail


def put_off(site: Site[Postfix], client: Postfix | Sendmail) -> list[str]:
    """The recipients of the test's message that were put off, in order."""
    return [
        str(line["to"]).strip("<>")
        for line in site.milter.events("put_off")
        if str(line["sender"]) == f"<{client.name}@sender.test>"
    ]


def arrivals(site: Site[Postfix], item: Scenario, subject: str) -> list[Arrival]:
    places = [host.address for host in site.lab.hosts(item)]
    return [
        Arrival(session, text)
        for session in site.lab.sessions()
        if session.address in places
        for text in session.messages
        if f"Subject: {subject}\n" in text
    ]


def in_mailbox(site: Site[Postfix], subject: str) -> list[str]:
    return [text for text in mailbox(site.mta) if f"Subject: {subject}\n" in text]


def test_each_recipient_comes_once_and_by_its_own_route(
    site: Site[Postfix], client: Postfix | Sendmail
) -> None:
    subject = f"split-{client.name}-{site.mta.name}"
    recipients = [site.rcpt(ASKED), site.rcpt(BYSTANDER), LOCAL_RECIPIENT]
    submission.send(
        client.address,
        recipients,
        submission.message(subject, recipients),
        ca_file=site.lab.ca_file,
        sender=f"{client.name}@sender.test",
    )
    eventually(lambda: put_off(site, client), "those of one route are put off")

    def all_arrived() -> bool:
        client.flush()  # in vain while the client is still busy with its first attempt
        places = (arrivals(site, ASKED, subject), arrivals(site, BYSTANDER, subject))
        return all(places) and bool(in_mailbox(site, subject))

    eventually(all_arrived, "each recipient has the message", wait=60)
    (asked,) = arrivals(site, ASKED, subject)
    assert asked.session.tls is not None
    (bystander,) = arrivals(site, BYSTANDER, subject)
    assert bystander.session.tls is None
    assert len(in_mailbox(site, subject)) == 1
    once = sorted(put_off(site, client))
    others = sorted([site.rcpt(BYSTANDER), LOCAL_RECIPIENT])
    assert once in ([site.rcpt(ASKED)], others), "the client chooses which come first"
    strict = site.mta.log.grep(r"postfix/smtp-strict/smtp\[\d+\]: .* status=")
    assert all(site.rcpt(ASKED) in line for line in strict)


@pytest.mark.parametrize("version", list(SENDMAIL))
def test_sendmail_puts_recipients_of_another_route_off(lab: Lab, version: str) -> None:
    with recipes.sendmail(lab, SENDMAIL[version], rules=rules(lab)) as site:
        accepted = site.send(site.rcpt(ASKED), site.rcpt(BYSTANDER), subject=f"split-{version}")
        (reply,) = accepted.refused.values()
        assert (reply.code, reply.text.partition(" ")[0]) == (452, "4.5.3")
        assert reply.text.endswith("send it separately")
