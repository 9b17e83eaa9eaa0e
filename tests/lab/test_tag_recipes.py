"""The recipes of docs/tag.md, as they stand there, in a real Postfix."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.lab.lab import MYDOMAIN, Lab
from tests.lab.milter import Milter
from tests.lab.postfix import transport_name
from tests.support.paths import REPOSITORY
from tests.support.scenario import Domain, Message, Mx, Scenario, Server

pytestmark = pytest.mark.lab

STRICT = transport_name("dane-only/enforce")


def scenario(name: str, server: Server | None = None) -> Scenario:
    """Ordinary mail over a transport that is content with no TLS at all."""
    return Scenario(
        f"recipe-{name}",
        desc="",
        profile="may/opportunistic",
        message=Message(requiretls=False),
        domains=(Domain(mx=(Mx(server=server or Server()),)),),
    )


GOOD, CLEAR, ORDINARY, FORGED, BESIDE = scenarios = (
    scenario("good"),
    scenario("clear", Server(starttls="none")),
    scenario("ordinary", Server(starttls="none")),
    scenario("forged", Server(starttls="none")),
    scenario("beside"),
)


def recipe(action: str) -> str:
    """The line of the page that has *action*, as an inline table."""
    page = (REPOSITORY / "docs" / "tag.md").read_text(encoding="utf-8")
    ((pattern, rest),) = re.findall(rf"^    (/.*/) ({action}\b.*)$", page, re.MULTILINE)
    return f"regexp:{{{{{pattern} {rest.replace('smtp-strict:', f'{STRICT}:')}}}}}"


@pytest.fixture(scope="module")
def tagging(lab: Lab) -> Iterator[Lab]:
    """The lab with a milter whose rules require TLS for two of the domains, and both recipes."""
    lab.add(scenarios)
    lab.front.reload(
        parameters={
            "milter_header_checks": recipe("FILTER"),
            "smtp_header_checks": recipe("IGNORE"),
        }
    )
    recipients = {f"{item.id}.sig.test": {"require": True} for item in (GOOD, CLEAR, BESIDE)}
    with Milter(lab, rules={"mode": "monitor", "recipient": recipients}):
        yield lab
    lab.front.reload(parameters={"milter_header_checks": "", "smtp_header_checks": ""})


def test_mail_that_is_tagged_for_the_strict_route_takes_it(tagging: Lab) -> None:
    sent = tagging.send(GOOD)
    (delivery,) = tagging.deliveries(sent.queue_id)
    assert (delivery.transport, delivery.status, delivery.tls) == (STRICT, "sent", "dane-only")


def test_on_the_strict_route_nothing_goes_in_clear(tagging: Lab) -> None:
    sent = tagging.send(CLEAR)
    (delivery,) = tagging.deliveries(sent.queue_id)
    assert (delivery.transport, delivery.status, delivery.dsn) == (STRICT, "deferred", "4.7.4")


def test_other_mail_goes_its_own_way(tagging: Lab) -> None:
    sent = tagging.send(ORDINARY)
    (delivery,) = tagging.deliveries(sent.queue_id)
    assert delivery.status == "sent"
    assert delivery.transport == transport_name(ORDINARY.profile)


def test_r63_a_client_cannot_choose_its_route_by_a_forged_tag(tagging: Lab) -> None:
    forged = "X-RequireTLS: requirement=requiretls; source=esmtp; route=requiretls; by=x"
    sent = tagging.send(FORGED, headers=[forged])
    (delivery,) = tagging.deliveries(sent.queue_id)
    assert delivery.status == "sent"
    assert delivery.transport == transport_name(FORGED.profile)


def test_a_recipient_who_asks_nothing_keeps_the_message_off_the_strict_route(tagging: Lab) -> None:
    recipients = [*tagging.recipients(BESIDE), f"s@{MYDOMAIN}"]
    sent = tagging.send(BESIDE, recipients=recipients)
    deliveries = tagging.deliveries(sent.queue_id, recipients=2)
    assert STRICT not in {delivery.transport for delivery in deliveries}


def test_the_tag_stays_within_the_site(tagging: Lab) -> None:
    sent = tagging.send(GOOD)
    tagging.deliveries(sent.queue_id)
    (host,) = tagging.hosts(GOOD)
    messages = [text for item in tagging.sessions(host.address) for text in item.messages]
    assert messages
    assert not any("x-requiretls:" in text.lower() for text in messages)
