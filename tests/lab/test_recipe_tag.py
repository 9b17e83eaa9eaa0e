"""Tag hygiene on every MTA: what bears the tag's name goes, and one tag of ours is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.lab import recipes
from tests.lab.lab import Lab
from tests.lab.postfix import Postfix
from tests.lab.recipes import LOCAL_RECIPIENT, POSTFIX, SENDMAIL, Site, fields, scenario, server
from tests.lab.sendmail import Sendmail

pytestmark = pytest.mark.lab

TAG = "requirement=requiretls; source=esmtp; forecast=2.0.0; reason=ok; route=requiretls; by=x"

FORGED: dict[str, list[str]] = {
    "one": [f"X-RequireTLS: {TAG}"],
    "lower case": [f"x-requiretls: {TAG}"],
    "upper case": [f"X-REQUIRETLS: {TAG}"],
    "blanks before the colon": [f"X-RequireTLS \t: {TAG}"],
    "folded": [f"X-RequireTLS: {TAG[:30]}\n\t{TAG[30:]}"],
    "folded after the colon": [f"X-RequireTLS:\n {TAG}"],
    "empty": ["X-RequireTLS:"],
    "eight bits": ["X-RequireTLS: caf\u00e9"],
    "long": [f"X-RequireTLS: {'x' * 900}"],
    "many": [f"X-RequireTLS: {number}; {TAG}" for number in range(40)],
    "among others": [
        f"X-RequireTLS: {TAG}",
        "X-Other: kept",
        "x-requireTLS: a\n b\n c",
        "X-RequireTLS-Too: kept",
        f"X-RequireTLS: {TAG}",
    ],
}

DOMAIN = scenario("tag-remote", server(tlsa=[], starttls="none"))


@pytest.fixture(scope="module", params=[*POSTFIX, *SENDMAIL])
def site(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Site[Postfix] | Site[Sendmail]]:
    if DOMAIN.id not in lab.plan.scenarios:
        lab.add([DOMAIN])
    name = request.param
    if name in SENDMAIL:
        with recipes.sendmail(lab, SENDMAIL[name]) as sendmail:
            yield sendmail
    else:
        recipe = "postfix-3.11" if name == "postfix-3.11" else "postfix-3.7"
        with recipes.postfix(lab, POSTFIX[name], recipe) as postfix:
            yield postfix


AnySite = Site[Postfix] | Site[Sendmail]


@pytest.fixture(scope="module")
def delivered(site: AnySite) -> Callable[..., str]:
    """Sends a message to the local recipient; what came of it in the mailbox."""

    def deliver(subject: str, headers: list[str]) -> str:
        sent = site.send(
            LOCAL_RECIPIENT, headers=headers, subject=subject, body="X-RequireTLS: b\n"
        )
        (delivery,) = site.mta.log.wait(sent.queue_id)
        assert delivery.status == "sent"
        return local_message(site, subject)

    return deliver


def local_message(site: AnySite, subject: str) -> str:
    """The one with that subject."""
    if isinstance(site.mta, Sendmail):
        messages = [
            text.partition("\n")[2] for text in ("\n" + site.mta.mailbox()).split("\nFrom ")
        ]
    else:
        messages = recipes.mailbox(site.mta)
    (message,) = [text for text in messages if f"Subject: {subject}\n" in text]
    return message


@pytest.mark.parametrize("kind", FORGED)
def test_r63_fields_of_the_tags_name_are_removed(delivered: Callable[..., str], kind: str) -> None:
    message = delivered(f"forged {kind}", FORGED[kind])
    assert fields(message, "X-RequireTLS") == []
    if kind == "among others":
        assert fields(message, "X-Other") == ["kept"]
        assert fields(message, "X-RequireTLS-Too") == ["kept"]
    assert message.replace("\r", "").rstrip().endswith("\n\nX-RequireTLS: b")


@pytest.mark.parametrize("kind", ["one", "many", "among others"])
def test_r63_one_tag_of_ours_takes_their_place_at_the_top(
    site: AnySite, delivered: Callable[..., str], kind: str
) -> None:
    message = delivered(f"replaced {kind}", ["TLS-Required: No", *FORGED[kind]])
    (tag,) = fields(message, "X-RequireTLS")
    assert tag == (
        "requirement=tls-required-no; source=tls-required; forecast=2.0.0; reason=local; "
        f"route=mixed; by={site.name}"
    )
    names = [line.partition(":")[0].lower() for line in message.splitlines() if ":" in line]
    assert names.index("x-requiretls") < names.index("subject")


def test_r63_none_leaves_the_site(site: AnySite) -> None:
    subject = f"leaving {site.mta.name}"
    site.send(
        site.rcpt(DOMAIN), headers=["TLS-Required: No", *FORGED["among others"]], subject=subject
    )
    arrival = site.arrival(DOMAIN, subject)
    assert arrival.tags == []
    assert fields(arrival.text, "X-RequireTLS-Too") == ["kept"]
