"""Servers of equal preference: Postfix shuffles them. What is certain comes true every time.

One message to many recipients of a domain, each delivered by itself, is as many throws of the
dice. The forecast is the worst of what can happen, and says where it can be otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from requiretls_milter.forecast import postfix
from requiretls_milter.forecast.servers import servers_of
from requiretls_milter.syntax import status
from tests.lab import afresh
from tests.lab.further import in_any_order
from tests.lab.lab import Lab
from tests.lab.labconfig import transports
from tests.lab.milter import Milter
from tests.lab.postfix import transport_name
from tests.lab.sweep import PATIENCE, mirroring
from tests.support.scenario import Domain, Message, Mx, Scenario, Server

pytestmark = pytest.mark.lab

FEW, MANY = 15, 40
"""Recipients: of many, an outcome that comes in one of four deliveries is missed once in 100,000
runs."""

SEED = 8689
COUNT = 100
"""Scenarios at random."""

BOTH = {"inet_protocols": "ipv4 ipv6"}
_DANE = {"smtp_tls_security_level": "dane", **BOTH}
PROFILES = {
    "dice": {**_DANE, "smtp_requiretls_policy": "enforce"},
    "dice-opportunistic": {**_DANE, "smtp_requiretls_policy": "opportunistic"},
    "dice-of-1": {**_DANE, "smtp_requiretls_policy": "enforce", "smtp_mx_address_limit": "1"},
    "dice-of-2": {**_DANE, "smtp_requiretls_policy": "enforce", "smtp_mx_address_limit": "2"},
    "dice-of-3": {**_DANE, "smtp_requiretls_policy": "enforce", "smtp_mx_address_limit": "3"},
}
ONE_BY_ONE = {f"{transport_name(name)}_destination_recipient_limit": "1" for name in PROFILES}

NO_REQUIRETLS = Server(requiretls="none")
NO_STARTTLS = Server(starttls="none")
NO_HANDSHAKE = Server(handshake="garbage")
WRONG_NAME = Server(cert="wrongname")
ENDS = Server(starttls_reply="502 5.5.1 no")
"""Where ordinary mail needs TLS this is the last word: no other server is tried."""

GOOD, LACKING, CLEAR, BROKEN, FOR_GOOD = (
    Mx(server=server) for server in (Server(), NO_REQUIRETLS, NO_STARTTLS, NO_HANDSHAKE, ENDS)
)
DOWN = Mx(addr="refused")
UNVERIFIED = Mx(tlsa=("3 1 1 bad",))


def at(name: str, *mx: Mx, profile: str = "dice", throws: int = MANY, **message: Any) -> Scenario:
    """A domain of these hosts, mail for it to so many recipients."""
    recipients = tuple(f"u{number}" for number in range(throws))
    wanted = Message(rcpts=recipients, **message)
    return Scenario(f"dice-{name}", profile, domains=(Domain(mx=mx),), message=wanted)


def surely(name: str, *mx: Mx, profile: str = "dice") -> Scenario:
    """The same, for what is to be certain."""
    return at(name, *mx, profile=profile, throws=FEW)


def later(*mx: Mx) -> tuple[Mx, ...]:
    """The same, less preferred."""
    return tuple(replace(item, pref=20) for item in mx)


CERTAIN = (
    # one that satisfies decides, if all can be tried
    surely("good-lacking", GOOD, LACKING),
    surely("good-down", GOOD, DOWN),
    surely("good-of-four", UNVERIFIED, BROKEN, CLEAR, GOOD),
    surely("good-behind", LACKING, BROKEN, *later(GOOD)),
    surely("one-host-good", Mx(server=NO_REQUIRETLS, more=(Server(), NO_HANDSHAKE))),
    surely("family-good", Mx(server=NO_REQUIRETLS, addr6="listen", server6=Server())),
    # all fail alike, or the last of all is not among the equals
    surely("all-lacking", LACKING, LACKING, LACKING),
    surely("all-down", DOWN, DOWN),
    surely("last-lacking", BROKEN, CLEAR, *later(LACKING)),
    surely("limit-1-good", GOOD, *later(LACKING), profile="dice-of-1"),
    surely("limit-3", LACKING, BROKEN, *later(CLEAR), Mx(pref=30), profile="dice-of-3"),
)

UNCERTAIN = (
    # the last failure decides, and chance which it is
    at("lacking-broken", LACKING, BROKEN),
    at("lacking-clear", LACKING, CLEAR),  # one status, two tokens
    at("lacking-unverified-down", LACKING, UNVERIFIED, DOWN),
    at("behind-down", DOWN, *later(LACKING, BROKEN)),
    at("one-host", Mx(server=NO_REQUIRETLS, more=(NO_HANDSHAKE,))),
    at("families", Mx(server=NO_REQUIRETLS, addr6="listen", server6=NO_HANDSHAKE)),
    # a server that refuses for good ends it, where it comes first
    at("ends-good", FOR_GOOD, GOOD, requiretls=False),
    at("ends-three", FOR_GOOD, GOOD, FOR_GOOD, *later(GOOD), requiretls=False),
    # not all can be tried
    at("limit-1", GOOD, LACKING, profile="dice-of-1"),
    at("limit-2-of-3", GOOD, LACKING, LACKING, profile="dice-of-2"),
    at(
        "limit-2-families",
        Mx(server=NO_REQUIRETLS, addr6="listen", server6=NO_HANDSHAKE),
        Mx(addr="refused", addr6="listen", server6=NO_STARTTLS),
        profile="dice-of-2",
    ),
    # all deliver, and not all as RFC 8689 wants
    at("opportunistic", GOOD, LACKING, CLEAR, profile="dice-opportunistic"),
    at("optional", GOOD, CLEAR, requiretls=False, tls_required_no=True),
)


RANDOM = in_any_order(SEED, COUNT, tuple(PROFILES), ("u1", "u2", "u3"))


@pytest.fixture(scope="module")
def milter(lab: Lab) -> Iterator[Milter]:
    """A milter that mirrors the transports of these tests."""
    lab.add((*CERTAIN, *UNCERTAIN, *RANDOM))
    lab.add_transports(PROFILES, **ONE_BY_ONE)
    with mirroring(lab, transports(PROFILES)) as running:
        yield running


@pytest.fixture(scope="module")
def sent(lab: Lab, milter: Milter) -> dict[str, str]:
    """Everything, sent at once: scenario to queue id."""
    scenarios = (*CERTAIN, *UNCERTAIN, *RANDOM)
    return {item.id: lab.send(item, authenticated=True).queue_id for item in scenarios}


def thrown(lab: Lab, milter: Milter, scenario: Scenario, queue_id: str) -> tuple[Any, set[Any]]:
    """The milter's line for each of the recipients, and how Postfix's deliveries ended."""
    throws = len(scenario.message.rcpts)
    lines = milter.recipients(queue_id, throws, timeout=2 * PATIENCE)
    told = {(line["forecast"], line["tls"], line["compliant"], line["text"]) for line in lines}
    assert len(told) == 1, "one domain, one forecast"
    return lines[0], {(item.dsn, item.tls) for item in lab.deliveries(queue_id, throws)}


async def admitted(milter: Milter, scenario: Scenario) -> set[Any]:
    """What the judge holds to be possible."""
    delivery = await afresh.delivery(milter.config, scenario)
    possible = postfix.deliver(delivery, servers_of(delivery.evidence, delivery.profile))
    return {(attempt.status, attempt.tls) for attempt in possible}


@pytest.mark.parametrize("scenario", CERTAIN, ids=lambda item: item.id)
def test_r11_what_is_called_certain_comes_true_whatever_the_order(
    lab: Lab, milter: Milter, sent: dict[str, str], scenario: Scenario
) -> None:
    line, ends = thrown(lab, milter, scenario, sent[scenario.id])
    assert "random order" not in line["text"]
    assert ends == {(line["forecast"], line["tls"])}


@pytest.mark.parametrize("scenario", UNCERTAIN, ids=lambda item: item.id)
async def test_r11_what_happens_is_what_was_held_possible_and_no_worse_than_forecast(
    lab: Lab, milter: Milter, sent: dict[str, str], scenario: Scenario
) -> None:
    line, ends = thrown(lab, milter, scenario, sent[scenario.id])
    assert "random order" in line["text"]
    assert len(ends) > 1
    assert ends == await admitted(milter, scenario)
    assert (line["forecast"], line["tls"]) in ends
    assert status.severity(line["forecast"]) == max(status.severity(code) for code, _ in ends)


async def test_r11_so_it_is_with_servers_at_random(
    lab: Lab, milter: Milter, sent: dict[str, str]
) -> None:
    different = []
    for scenario in RANDOM:
        line, ends = thrown(lab, milter, scenario, sent[scenario.id])
        told = (line["forecast"], line["tls"] or None)
        possible = await admitted(milter, scenario)
        certain = "random order" not in line["text"]
        if not ends <= possible or told not in possible or (certain and ends != {told}):
            different.append((scenario.id, told, certain, ends, possible))
    assert different == []


def test_among_deliveries_the_one_that_does_not_satisfy_is_forecast(
    lab: Lab, milter: Milter, sent: dict[str, str]
) -> None:
    scenario = lab.plan.scenarios["dice-opportunistic"]
    line, ends = thrown(lab, milter, scenario, sent[scenario.id])
    assert line["forecast"] == "2.0.0"
    assert line["compliant"] == "false"
    assert ("2.0.0", "dane/requiretls") in ends, "though one server satisfies"
