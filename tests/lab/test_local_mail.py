"""Mail of sendmail(1), which Postfix's cleanup shows to the milter (``non_smtpd_milters``).

No client hears a reply. Postfix can refuse no single recipient of such mail ("milter
configuration error: can't reject recipient in non-smtpd(8) submission"), and tries what is
deferred again, and asks the milter again, each minute for ever. So it is decided at the end of
the message, and there refused or accepted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import recipes, submission
from tests.lab.lab import Lab
from tests.lab.postfix import Postfix
from tests.lab.recipes import POSTFIX, Arrival, Site, scenario, server
from tests.support.scenario import Scenario
from tests.support.waiting import eventually

pytestmark = pytest.mark.lab

RECIPE = "postfix-3.7"

CLEAR = server(tlsa=[], starttls="none")
WRONG = server(tlsa=["3 1 1 bad"])

DOMAINS = (
    GOOD := scenario("local-good"),
    REJECTED := scenario("local-rejected", server(requiretls="none")),
    DEFERRED := scenario("local-deferred", WRONG),
    IN_CLEAR := scenario("local-clear", CLEAR),
    CARRIED := scenario("local-carried", server(handshake="oldproto")),
    BACK := scenario("local-back", CLEAR),
)
"""What is asked for the first four, a rule asks: the milter alone keeps it."""


def domain(item: Scenario) -> str:
    return item.domain_name(item.domains[0])


@pytest.fixture(scope="module", params=list(POSTFIX))
def site(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Site[Postfix]]:
    if DOMAINS[0].id not in lab.plan.scenarios:
        lab.add(DOMAINS)
    rejects = {"require": True, "mode": "reject"}
    rules = {
        "mode": "reject",
        "on_temporary": "defer",
        "recipient": {
            domain(GOOD): rejects,
            domain(REJECTED): rejects,
            domain(DEFERRED): {"require": True, "mode": "defer"},
            domain(IN_CLEAR): rejects,
        },
    }
    with recipes.postfix(
        lab,
        POSTFIX[request.param],
        RECIPE,
        main={"smtp_tls_security_level": "dane"},
        rules=rules,
    ) as running:
        yield running


def submit(site: Site[Postfix], name: str, *recipients: str, options: tuple[str, ...] = ()) -> str:
    """Hand a message to sendmail(1); its subject."""
    subject = f"{name}-{site.mta.name}"
    site.mta.sendmail(
        ["-f", site.rcpt(BACK), *options, *recipients],
        f"Subject: {subject}\nTo: undisclosed:;\n\nSECRET\n",
    )
    return subject


def bounced(site: Site[Postfix], subject: str) -> Arrival:
    """The bounce of a refused message; nothing of it stays, and it was counted once."""
    bounce = site.bounce(BACK, subject)
    site.mta.log.read()
    assert not [line for line in site.mta.log.lines if "milter configuration error" in line]
    eventually(lambda: not in_maildrop(site), "maildrop is empty")
    return bounce


def in_maildrop(site: Site[Postfix]) -> list[str]:
    return [path.name for path in (site.mta.queue_directory / "maildrop").iterdir()]


def ended(site: Site[Postfix], recipient: str) -> dict[str, object]:
    """The one log line of a recipient."""
    (line,) = site.milter.wait("recipient", to=recipient)
    return line


def heard_nothing(site: Site[Postfix], item: Scenario) -> bool:
    """Whether no MTA of ours has sent mail to the servers of *item*."""
    places = [host.address for host in site.lab.hosts(item)]
    return not any(session.mail for session in site.lab.sessions() if session.address in places)


def to(item: Scenario, site: Site[Postfix], name: str) -> str:
    """A recipient that no other test has, with any version."""
    return f"{name}-{site.mta.name}@{domain(item)}"


def test_what_can_be_delivered_passes(site: Site[Postfix]) -> None:
    subject = submit(site, "passes", to(GOOD, site, "passes"))
    arrival = site.arrival(GOOD, subject)
    assert arrival.session.tls is not None
    assert ended(site, to(GOOD, site, "passes"))["action"] == "accept"


def test_what_is_refused_is_bounced_to_its_sender(site: Site[Postfix]) -> None:
    recipient = to(REJECTED, site, "one")
    subject = submit(site, "refused", recipient)
    bounce = bounced(site, subject)
    line = ended(site, recipient)
    assert line["action"] == "reject"
    assert str(line["reply"]).startswith("550 5.7.")
    assert "REQUIRETLS cannot be honoured" in bounce.text
    assert heard_nothing(site, REJECTED)


@pytest.mark.parametrize("item", [DEFERRED, IN_CLEAR], ids=["wrong", "clear"])
def test_what_would_be_deferred_and_the_milter_alone_keeps_is_refused(
    site: Site[Postfix], item: Scenario
) -> None:
    recipient = to(item, site, "one")
    subject = submit(site, "deferred", recipient)
    bounce = bounced(site, subject)
    line = ended(site, recipient)
    assert (line["action"], line["carried"]) == ("reject", "none")
    assert str(line["reply"]).startswith("550 5.7.")
    assert "REQUIRETLS cannot be honoured" in bounce.text
    assert heard_nothing(site, item)


def test_one_recipient_who_is_refused_keeps_the_others_back_too(site: Site[Postfix]) -> None:
    """Postfix would send it in clear: of several recipients none can be refused alone."""
    recipients = [to(item, site, "several") for item in (GOOD, IN_CLEAR)]
    subject = submit(site, "several", *recipients)
    bounced(site, subject)
    assert {ended(site, recipient)["action"] for recipient in recipients} == {"reject"}
    assert heard_nothing(site, IN_CLEAR)
    site.mta.log.read()
    assert not [line for line in site.mta.log.lines if recipients[0] in line and "sent" in line]


def test_it_is_counted_once(site: Site[Postfix]) -> None:
    labels = {"requirement": "requiretls", "action": "reject"}
    recipient = to(REJECTED, site, "counted")
    bounced(site, submit(site, "counted", recipient))
    site.milter.wait("message", queue_id=ended(site, recipient)["queue_id"])
    told = len(site.milter.wait("message", action="reject"))
    site.milter.await_metric("messages_total", told, requirement="requiretls", action="reject")
    time.sleep(1.5)  # workers send their counts once a second
    assert site.milter.metric("messages_total", **labels) == told
    assert len({str(line["queue_id"]) for line in site.milter.events("message")}) == len(
        site.milter.events("message")
    )


def test_what_postfix_keeps_itself_is_accepted_where_it_would_be_deferred(
    site: Site[Postfix],
) -> None:
    """Only Postfix 3.11 carries what ``sendmail -O requiretls=yes`` asks."""
    if site.mta.name != "postfix-3.11":
        return
    recipient = to(CARRIED, site, "one")
    submit(site, "carried", recipient, options=("-O", "requiretls=yes"))
    line = ended(site, recipient)
    assert (line["action"], line["carried"]) == ("accept", "requiretls")
    assert str(line["forecast"]).startswith("4.7.")
    (delivery,) = site.mta.log.wait(str(line["queue_id"]))
    assert (delivery.status, delivery.dsn) == ("deferred", line["forecast"])
    assert not in_maildrop(site)
    assert heard_nothing(site, CARRIED)
    site.mta.discard(str(line["queue_id"]))


def test_the_bounce_of_what_is_refused_has_no_body(site: Site[Postfix]) -> None:
    """``headers_only_bounces``: the bounce may go in clear, as this one does."""
    bounce = bounced(site, submit(site, "secret", to(REJECTED, site, "secret")))
    assert bounce.session.tls is None
    assert "SECRET" not in bounce.text


@pytest.mark.parametrize("sender", ["u", ""], ids=["sender", "null"])
def test_mail_with_too_many_forged_tags_is_bounced_and_does_not_stay(
    site: Site[Postfix], sender: str
) -> None:
    """A bounce too: Postfix tells its postmaster then, and that is the end of it."""
    subject = f"tags-{sender}-{site.mta.name}"
    site.mta.sendmail(
        ["-f", site.rcpt(BACK) if sender else "", to(GOOD, site, "tags")],
        f"Subject: {subject}\n" + "X-RequireTLS: x\n" * 101 + "\nhello\n",
    )
    if sender:
        assert "more than 100 header fields X-RequireTLS" in bounced(site, subject).text
    eventually(lambda: not in_maildrop(site), "maildrop is empty")

    def said() -> list[dict[str, Any]]:
        lines = site.milter.look("message")
        ours = [item for item in lines if item.get("tags_removed") == 101]
        return [item for item in ours if bool(item.get("sender")) == bool(sender)]

    (line,) = eventually(said, "the message is logged")
    assert line["action"] == "reject"
    site.mta.log.read()
    assert not [line for line in site.mta.log.lines if "milter configuration error" in line]


def test_mail_by_smtp_in_one_session_is_still_refused_at_rcpt(site: Site[Postfix]) -> None:
    """No queue ID of an earlier message is taken for that of mail that comes otherwise."""
    good, refused = to(GOOD, site, "smtp"), to(REJECTED, site, "smtp")
    with submission.session(site.mta.address, ca_file=site.lab.ca_file) as smtp:
        for _ in range(2):
            assert smtp.docmd("MAIL", "FROM:<a@sender.test>")[0] == 250
            assert smtp.docmd("RCPT", f"TO:<{good}>")[0] == 250
            assert smtp.docmd("RCPT", f"TO:<{refused}>")[0] == 550
            assert smtp.docmd("DATA")[0] == 354
            smtp.send(b"Subject: x\r\n\r\nbody\r\n.\r\n")
            assert smtp.getreply()[0] == 250
