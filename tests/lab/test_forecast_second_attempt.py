"""What becomes of deferred mail when Postfix tries again.

The forecast is of a first attempt, made with what is to be seen when it is made. A later attempt
ends as a forecast of that time has it, with one exception: at level ``may``, once a message is
older than minimal_backoff_time, Postfix goes on in clear where TLS breaks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab import afresh
from tests.lab.lab import Lab
from tests.lab.labconfig import transports
from tests.lab.log import Delivery
from tests.lab.milter import Milter
from tests.lab.sweep import mirroring
from tests.support.scenario import Domain, Message, Mx, Scenario, Server
from tests.support.waiting import eventually

pytestmark = pytest.mark.lab

PROFILES = {
    f"again/{level}/{policy}{'/old' if old else ''}": {
        "smtp_tls_security_level": level,
        "smtp_requiretls_policy": policy,
        **({"minimal_backoff_time": "4s"} if old else {}),
    }
    for level in ("may", "encrypt", "dane")
    for policy in ("enforce", "opportunistic+starttls", "opportunistic")
    for old in (False, True)
} | {"suspending": {"smtp_tls_security_level": "dane", "smtp_requiretls_policy": "enforce"}}
AGE = 5.1
"""Seconds after which a message is older than these: Postfix counts whole ones."""

REQUIRED = Message()
ORDINARY = Message(requiretls=False)
OPTIONAL = Message(requiretls=False, tls_required_no=True)

GOOD = Server()
NO_REQUIRETLS = Server(requiretls="none")
NO_STARTTLS = Server(starttls="none")
NO_HANDSHAKE = Server(handshake="garbage")
NO_SESSION = Server(ehlo_tls="close")
REFUSES = Server(starttls_reply="454 4.7.0 not now")
DOWN = None


def again(lab: Lab, queue_id: str) -> Delivery:
    """Let Postfix try one message again: how that ends."""
    before = len(lab.deliveries(queue_id))
    lab.front.flush(queue_id)
    eventually(
        lambda: len(lab.front.log.deliveries(queue_id)) > before, f"{queue_id} is tried again"
    )
    return lab.front.log.deliveries(queue_id)[-1]


# ---------------------------------------------------------------- servers that have changed


@dataclass(frozen=True)
class Change:
    """A server at the first attempt and at the second (None: down), and how each ends."""

    name: str
    before: Server | None
    after: Server | None
    first: str
    second: str
    profile: str = "again/dane/enforce"
    message: Message = REQUIRED

    @property
    def scenario(self) -> Scenario:
        server = self.before or GOOD
        return Scenario(
            f"again-{self.name}",
            self.profile,
            (Domain(mx=(Mx(server=server),)),),
            self.message,
        )


CHANGES = (
    Change("down-good", DOWN, GOOD, "4.4.1", "2.0.0"),
    Change("down-lacking", DOWN, NO_REQUIRETLS, "4.4.1", "5.7.30"),
    Change("down-clear", DOWN, NO_STARTTLS, "4.4.1", "5.7.30"),
    Change("down-down", DOWN, DOWN, "4.4.1", "4.4.1"),
    Change("handshake-good", NO_HANDSHAKE, GOOD, "4.7.5", "2.0.0"),
    Change("handshake-refuses", NO_HANDSHAKE, REFUSES, "4.7.5", "5.7.10"),
    Change("handshake-same", NO_HANDSHAKE, NO_HANDSHAKE, "4.7.5", "4.7.5"),
    Change("busy-good", Server(banner="450 4.3.2 busy"), GOOD, "4.3.2", "2.0.0"),
    Change("busy-lacking", Server(banner="450 4.3.2 busy"), NO_REQUIRETLS, "4.3.2", "5.7.30"),
    Change("session-good", NO_SESSION, GOOD, "4.4.2", "2.0.0"),
    # ordinary mail has to do with DANE all the same
    Change("refuses-good", REFUSES, GOOD, "4.7.0", "2.0.0", message=ORDINARY),
    Change("refuses-clear", REFUSES, NO_STARTTLS, "4.7.0", "4.7.4", message=ORDINARY),
    Change("clear-good", NO_STARTTLS, GOOD, "4.7.4", "2.0.0", message=ORDINARY),
    # and TLS-Required: No with nothing
    Change("optional", DOWN, NO_STARTTLS, "4.4.1", "2.0.0", message=OPTIONAL),
    # without DANE a bounce is at once, and nothing is tried again
    Change("starttls", DOWN, NO_STARTTLS, "4.4.1", "5.7.30", "again/may/opportunistic+starttls"),
)

SUSPENDED = Change("suspended", NO_HANDSHAKE, GOOD, "4.7.5", "2.0.0", "suspending")
"""Postfix calls a destination dead for a while after failures that are the server's: after one,
where it begins with one delivery at a time."""
# ---------------------------------------------------------------- messages that have aged


@dataclass(frozen=True)
class Aged:
    """How a first attempt ends, and one with the same servers when the message is older."""

    name: str
    profile: str
    message: Message
    servers: tuple[Server | None, ...]
    first: tuple[str, str]
    later: tuple[str, str]
    signed: bool = False
    forecast: tuple[str, str] | None = None
    """Of the later time; None: as before."""

    @property
    def scenario(self) -> Scenario:
        tlsa = ("3 1 1 match",) if self.signed else ()
        hosts = tuple(
            Mx(
                pref=10 * number,
                tlsa=tlsa,
                server=server or GOOD,
                addr="listen" if server else "refused",
            )
            for number, server in enumerate(self.servers, start=1)
        )
        return Scenario(f"aged-{self.name}", self.profile, (Domain(mx=hosts),), self.message)


BROKEN, LOST = (NO_HANDSHAKE,), (NO_SESSION,)
MAY, DANE = "again/may/enforce", "again/dane/enforce"
OPPORTUNISTIC = "again/may/opportunistic"
STARTTLS = "again/may/opportunistic+starttls"
WAIT, IN_CLEAR = ("4.7.5", "may?"), ("2.0.0", "may:none")

AGED = (
    # in clear, but not before minimal_backoff_time
    Aged("young", MAY, ORDINARY, BROKEN, WAIT, WAIT),
    Aged("old", f"{MAY}/old", ORDINARY, BROKEN, WAIT, IN_CLEAR),
    Aged("lost", f"{MAY}/old", ORDINARY, LOST, ("4.4.2", "may"), IN_CLEAR),
    Aged("optional", f"{DANE}/old", OPTIONAL, BROKEN, WAIT, IN_CLEAR, signed=True),
    # level dane is may where there are no TLSA records
    Aged("dane-without", f"{DANE}/old", ORDINARY, BROKEN, WAIT, IN_CLEAR),
    # and REQUIRETLS too, where the policy does not insist on TLS
    Aged(
        "opportunistic",
        f"{OPPORTUNISTIC}/old",
        REQUIRED,
        BROKEN,
        ("4.7.5", "may?/requiretls?"),
        ("2.0.0", "may:none/requiretls:none"),
    ),
    # never where TLS is needed
    Aged(
        "starttls",
        f"{STARTTLS}/old",
        REQUIRED,
        BROKEN,
        ("4.7.5", "may?/requiretls?"),
        ("4.7.5", "may?/requiretls?"),
    ),
    Aged(
        "encrypt",
        "again/encrypt/enforce/old",
        ORDINARY,
        BROKEN,
        ("4.7.5", "encrypt?"),
        ("4.7.5", "encrypt?"),
    ),
    Aged(
        "dane", f"{DANE}/old", ORDINARY, BROKEN, ("4.7.5", "dane?"), ("4.7.5", "dane?"), signed=True
    ),
    Aged(
        "required",
        f"{DANE}/old",
        REQUIRED,
        BROKEN,
        ("4.7.5", "dane?/requiretls?"),
        ("4.7.5", "dane?/requiretls?"),
        signed=True,
    ),
    # the first server takes it in clear, though the second is up by now and would do so over TLS
    Aged(
        "second-up",
        f"{MAY}/old",
        ORDINARY,
        (NO_HANDSHAKE, DOWN),
        ("4.4.1", "may?"),
        IN_CLEAR,
        forecast=("2.0.0", "may"),
    ),
)


@dataclass
class Attempts:
    """Everything that was sent once, by scenario: the first forecast, and the queue id."""

    forecasts: dict[str, tuple[str, str]]
    queue_ids: dict[str, str]
    firsts: dict[str, Delivery]
    sent_at: float


@pytest.fixture(scope="module")
def milter(lab: Lab) -> Iterator[Milter]:
    """A milter that mirrors the transports of these tests."""
    lab.plan.add([item.scenario for item in (*CHANGES, SUSPENDED, *AGED)])
    for change in (*CHANGES, SUSPENDED):
        lab.plan_server(change.scenario, change.before)
    lab.update()
    lab.add_transports(PROFILES, suspending_initial_destination_concurrency="1")
    with mirroring(lab, transports(PROFILES)) as running:
        yield running


@pytest.fixture(scope="module")
def attempts(lab: Lab, milter: Milter) -> Attempts:
    """Send everything once; then change the servers that are to change."""
    scenarios = [item.scenario for item in (*CHANGES, *AGED)]
    made = Attempts({}, {}, {}, 0.0)
    for scenario in scenarios:
        made.queue_ids[scenario.id] = lab.send(scenario, authenticated=True).queue_id
    for scenario in scenarios:
        queue_id = made.queue_ids[scenario.id]
        line = milter.recipient(queue_id)
        made.forecasts[scenario.id] = (line["forecast"], line["tls"])
        (made.firsts[scenario.id],) = lab.deliveries(queue_id)
    for change in CHANGES:
        lab.plan_server(change.scenario, change.after)
    for aged in AGED:
        if aged.servers[-1] is DOWN:
            lab.plan_server(aged.scenario, GOOD)
    lab.update_servers()
    made.sent_at = time.monotonic()
    return made


@pytest.mark.parametrize("change", CHANGES, ids=lambda item: item.name)
async def test_each_attempt_ends_as_a_forecast_of_its_time_has_it(
    lab: Lab, milter: Milter, attempts: Attempts, change: Change
) -> None:
    scenario = change.scenario
    first = attempts.firsts[scenario.id]
    assert (first.dsn, first.tls) == attempts.forecasts[scenario.id]
    assert first.dsn == change.first
    second = again(lab, attempts.queue_ids[scenario.id])
    told = await afresh.forecast(milter.config, scenario)
    assert (second.dsn, second.tls) == (told.status, told.tls)
    assert second.dsn == change.second


async def test_a_first_attempt_at_a_destination_that_just_failed_is_put_off(
    lab: Lab, milter: Milter
) -> None:
    """Another message's failure: nothing is tried, whatever the server would do by now."""
    scenario = SUSPENDED.scenario
    (other,) = lab.deliveries(lab.send(scenario, authenticated=True).queue_id)
    assert (other.dsn, other.tls) == (SUSPENDED.first, "dane?/requiretls?")
    lab.plan_server(SUSPENDED.scenario, SUSPENDED.after)
    lab.update_servers()
    accepted = lab.send(scenario, authenticated=True)
    (first,) = lab.deliveries(accepted.queue_id)
    assert (first.dsn, first.tls, first.relay) == (SUSPENDED.first, None, "none")
    assert first.reason.startswith("delivery temporarily suspended: ")
    second = again(lab, accepted.queue_id)
    told = await afresh.forecast(milter.config, scenario)
    assert (second.dsn, second.tls) == (told.status, told.tls)
    assert second.dsn == SUSPENDED.second


@pytest.mark.parametrize("aged", AGED, ids=lambda item: item.name)
async def test_only_at_level_may_does_an_older_message_go_on_in_clear(
    lab: Lab, milter: Milter, attempts: Attempts, aged: Aged
) -> None:
    scenario = aged.scenario
    first = attempts.firsts[scenario.id]
    assert (first.dsn, first.tls) == attempts.forecasts[scenario.id] == aged.first
    await asyncio.sleep(max(0.0, attempts.sent_at + AGE - time.monotonic()))
    later = again(lab, attempts.queue_ids[scenario.id])
    assert (later.dsn, later.tls) == aged.later
    # A forecast is of a first attempt, whose message is new.
    told = await afresh.forecast(milter.config, scenario)
    assert (told.status, told.tls) == (aged.forecast or aged.first)
