"""kill -9 under load: what was accepted is delivered once or bounced, whoever died meanwhile.

Clients hand messages to the real Postfix without a pause, while worker, engine and supervisor are
killed in turn (the supervisor is started again by the test, as systemd does), and the store with
them: SQLite's file is the engine's, Redis is killed as the others are. Then both sides are counted:
what the MTA accepted, and what its log and the servers at the other end say of it.

``CRASH_KILLS`` is how many are killed with either store: 10 if nothing is said, 200 in
``make test-long``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import smtplib
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.lab.lab import Lab
from tests.lab.labconfig import all_transports
from tests.lab.milter import Milter
from tests.lab.roots import REDIS, ensure
from tests.lab.submission import SENDER, Refused, message, transact
from tests.support.redisserver import RedisServer
from tests.support.scenario import Domain, Mx, Scenario, Server
from tests.support.waiting import NotInTime, eventually

pytestmark = pytest.mark.lab

KILLS = int(os.environ.get("CRASH_KILLS", "10"))

VICTIMS = {
    "sqlite": ("worker-1", "engine", "supervisor"),
    "redis": ("worker-1", "engine", "redis", "supervisor"),
}
"""In turn. Two deaths a service's life: five within ten seconds would end it, as they should."""

CLIENTS = 4
"""SMTP clients at once."""

A_SESSION = 5
"""Messages that a client sends before it calls anew."""

PACE = 0.05
"""Seconds between two messages of a client: the lab's scripted servers must keep up with them."""

BETWEEN = 0.5
"""Seconds of load before the next kill, all processes being there."""

BACK = 20.0
"""Seconds for what was killed to be there again: on a busy machine."""

MOMENT = 10.0
STANDSTILL = 120.0
"""Seconds without a delivery until the queue is run, and until no more are waited for."""

GOOD = Scenario("crash-good", domains=(Domain(mx=(Mx(),)),))
LACKING = Scenario("crash-lacking", domains=(Domain(mx=(Mx(server=Server(requiretls="none")),)),))
REFUSED = Scenario("crash-refused", domains=(Domain(mx=(Mx(server=Server(requiretls="none")),)),))
"""The last one by a rule of ours, at RCPT; where no forecast is to be had Postfix bounces it."""

TROUBLED = Scenario(
    "crash-troubled",
    domains=tuple(
        Domain(suffix=f"d{number}", mx=(Mx(server=Server(handshake="close")),))
        for number in range(60)
    ),
)
"""Deferred by a rule of ours: each attempt that fails is kept, so that the store is always busy."""

SCENARIOS = (GOOD, LACKING, REFUSED, TROUBLED)

BODY = "".join(f"line {number} of what must arrive as it was sent\n" for number in range(40))


@dataclass
class Ledger:
    """What the clients were told."""

    name: str
    """What the subjects of its messages begin with."""
    accepted: dict[str, tuple[str, Scenario]] = field(default_factory=dict)
    """Subject to queue ID and scenario."""
    refused: Counter[tuple[str, str, int, str]] = field(default_factory=Counter)
    """(Scenario, stage, code, enhanced code) of what was not accepted."""
    not_accepted: set[str] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)
    """Connections that broke off without an answer: Postfix must not let it come to that."""


def load(lab: Lab, number: int, ledger: Ledger, end: threading.Event) -> None:
    """One client: message after message, until *end*."""
    sent = 0
    while not end.is_set():
        try:
            with lab.session() as smtp:
                for _ in range(A_SESSION):
                    scenario = SCENARIOS[sent % len(SCENARIOS)]
                    one(lab, smtp, f"{ledger.name}-{number}-{sent}", scenario, sent, ledger)
                    sent += 1
                    end.wait(PACE)
        except Refused as error:  # STARTTLS, or a banner: nothing of a message was said
            ledger.refused["", error.stage, error.reply.code, error.reply.text[:5]] += 1
            end.wait(0.05)
        except (OSError, smtplib.SMTPException) as error:
            ledger.lost.append(repr(error))
            end.wait(0.05)


def one(
    lab: Lab, smtp: smtplib.SMTP, subject: str, scenario: Scenario, turn: int, ledger: Ledger
) -> None:
    everybody = lab.recipients(scenario)
    recipients = [everybody[turn // len(SCENARIOS) % len(everybody)]]
    text = message(subject, recipients, body=BODY)
    try:
        accepted = transact(smtp, recipients, text, parameters=("REQUIRETLS",))
    except Refused as error:
        reply = error.reply
        ledger.refused[scenario.id, error.stage, reply.code, reply.text.split(" ")[0]] += 1
        ledger.not_accepted.add(subject)
        smtp.rset()
        return
    ledger.accepted[subject] = accepted.queue_id, scenario


class Service(Milter):
    """The milter, by its processes, and its store."""

    redis: RedisServer | None = None

    @property
    def store(self) -> str:
        return "sqlite" if self.redis is None else "redis"

    def pid(self, name: str) -> int:
        """Of the supervisor or one of its children; 0 where there is none."""
        supervisor = next(iter(children(self.server.pid).values()), 0)
        return supervisor if name == "supervisor" else children(supervisor).get(f"rtls-{name}", 0)

    def ready(self) -> set[int]:
        """The pids of those that said so."""
        return {int(line["pid"]) for line in self.events("ready")}

    def whole(self) -> bool:
        """Whether engine and workers are there and ready."""
        pids = {self.pid(name) for name in ("engine", "worker-1", "worker-2")}
        return 0 not in pids and pids <= self.ready()

    def strike(self, name: str) -> None:
        """Kill -9, and wait until all is well again; the supervisor we start anew ourselves."""
        if name == "redis":
            assert self.redis is not None
            self.redis.stop()
            self.redis.start()
            return
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        if name == "supervisor":
            eventually(lambda: not self.server.running(), wait=BACK)
            self.launch()
        eventually(
            lambda: self.pid(name) != pid and self.whole(),
            f"{name} is back: {self.log_file}",
            wait=BACK,
        )


def children(pid: int) -> dict[str, int]:
    """Name to pid."""
    found = {}
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found[Path(f"/proc/{text}/comm").read_text().strip()] = int(text)
    return found


@pytest.fixture(scope="module")
def places(lab: Lab) -> None:
    lab.add(SCENARIOS)


@pytest.fixture(params=VICTIMS)
def service(lab: Lab, places: None, request: pytest.FixtureRequest) -> Iterator[Service]:
    defer = {"mode": "reject", "on_temporary": "defer", "on_unknown": "defer"}
    rules = {name.partition("@")[2]: defer for name in lab.recipients(TROUBLED)}
    with contextlib.ExitStack() as stack:
        redis = None
        url = f"sqlite://{lab.directory / 'crash.db'}"
        if request.param == "redis":
            redis = stack.enter_context(RedisServer(ensure(REDIS), "valkey"))
            url = redis.url
        running = Service(
            lab,
            transport=all_transports(),
            store={"url": url},
            probe={"retry_after": 1},
            rules={"recipient": {**rules, "crash-refused.sig.test": {"mode": "reject"}}},
            log={"level": "info"},
        )
        running.redis = redis
        stack.enter_context(running)
        yield running


def sound(service: Service, state: Path) -> str:
    """What SQLite says of the file as a crash would leave it at this very moment.

    The engine has it for itself alone: it is stopped while file and log are copied.
    """
    engine = service.pid("engine")
    copy = state.with_name("copy")
    copy.mkdir(exist_ok=True)
    os.kill(engine, signal.SIGSTOP)
    try:
        for suffix in ("", "-wal"):
            (copy / f"{state.name}{suffix}").unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{state}{suffix}", copy / f"{state.name}{suffix}")
    finally:
        os.kill(engine, signal.SIGCONT)
    with contextlib.closing(sqlite3.connect(copy / state.name)) as database:
        return str(database.execute("PRAGMA integrity_check").fetchone()[0])


@pytest.mark.timeout(300 + 15 * KILLS)
def test_under_kill_9_each_accepted_message_is_delivered_once_or_bounced(
    lab: Lab, service: Service
) -> None:
    ledger, end = Ledger(f"crash-{service.store}"), threading.Event()
    victims = VICTIMS[service.store]
    clients = [
        threading.Thread(target=load, args=(lab, number, ledger, end)) for number in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    try:
        for number in range(KILLS):
            time.sleep(BETWEEN)
            service.strike(victims[number % len(victims)])
            if service.redis is None:
                assert sound(service, lab.directory / "crash.db") == "ok"
        time.sleep(BETWEEN)
    finally:
        end.set()
        for client in clients:
            client.join(60)
    assert not any(client.is_alive() for client in clients)
    assert service.events("store_damaged") == []
    assert service.events("store_record_bad") == []
    if service.redis is None:  # which forgets what it had
        assert service.metric("cache_requests_total", result="stored") > 0
    print(f"{KILLS} kills, {len(ledger.accepted)} accepted, refused: {dict(ledger.refused)}")

    assert len(ledger.accepted) > 5 * KILLS, "there was no load"
    assert ledger.lost == []
    # Temporary where nobody could be asked; for good only by the rule, and with its code.
    by_rule = (REFUSED.id, "rcpt", 550, "5.7.30")
    assert [kind for kind in ledger.refused if kind[2] // 100 != 4] == [by_rule]

    assert outcomes(lab, ledger) == []
    assert at_the_other_end(lab, ledger) == []


def outcomes(lab: Lab, ledger: Ledger) -> list[str]:
    """What Postfix's log says otherwise than it should: one end for each message, and the right."""
    wrong = []
    for subject, (queue_id, scenario) in ledger.accepted.items():
        try:
            found = lab.deliveries(queue_id)
        except NotInTime as error:
            wrong.append(f"{subject}: {error}")
            continue
        expected = ("sent", "2.0.0") if scenario is GOOD else ("bounced", "5.7.30")
        if [(item.status, item.dsn) for item in found] != [expected]:
            wrong.append(f"{subject}: {found}")
    return wrong


def at_the_other_end(lab: Lab, ledger: Ledger) -> list[str]:
    """What servers and mailbox got otherwise than they should."""
    (host,) = lab.hosts(GOOD)
    good = {subject for subject, (_, item) in ledger.accepted.items() if item is GOOD}
    bounced = set(ledger.accepted) - good
    got, back = await_all(lab, host.address, ledger.name, len(good), len(bounced))
    wrong = differences("delivered", Counter(map(subject_of, got)), good)
    wrong += differences("bounced", Counter(map(subject_of, back)), bounced)
    for text in got:
        header, _, body = text.partition("\n\n")
        tags = re.findall(r"^X-RequireTLS: requirement=requiretls; ", header, re.M)
        if body.rstrip("\n") != BODY.rstrip("\n") or len(tags) != 1:
            wrong.append(f"altered: {text}")
        if f"From: <{SENDER}>\n" not in header:
            wrong.append(f"altered: {header}")
    # Nothing was called secure that was not, and nothing delivered where it was lacking.
    for scenario in (LACKING, REFUSED):
        (host,) = lab.hosts(scenario)
        wrong += [f"{scenario.id}: {item}" for item in lab.sessions(host.address) if item.messages]
    return wrong


def await_all(
    lab: Lab, address: str, name: str, good: int, bounced: int
) -> tuple[list[str], list[str]]:
    """The messages at the good server and the bounces: all of them, or those that came at last.

    Thousands of bounces take a while. One that is deferred waits for the queue manager's next
    round, which the lab has once an hour; here it comes when nothing has moved for a moment.
    """
    most, since, flushed = -1, time.monotonic(), 0.0
    while True:
        mine = re.compile(rf"^Subject: {name}-\d", re.M)
        got = [
            text for item in lab.sessions(address) for text in item.messages if mine.search(text)
        ]
        back = [text for text in lab.mailbox() if mine.search(text)]
        now = time.monotonic()
        if len(got) + len(back) > most:
            most, since = len(got) + len(back), now
        if (len(got) >= good and len(back) >= bounced) or now - since > STANDSTILL:
            break
        if now - max(since, flushed) > MOMENT:
            lab.front.flush()
            flushed = now
        time.sleep(1.0)
    deferred = list(lab.front.log.grep(rf"to=<{re.escape(SENDER)}>.* status=deferred"))
    print(f"{len(got)} delivered, {len(back)} bounced; deferred: {len(deferred)} {deferred[:1]}")
    return got, back


def subject_of(text: str) -> str:
    found = re.findall(r"^Subject: (crash-\w+-\d+-\d+)$", text, re.M)
    return str(found[-1]) if found else text


def differences(what: str, got: Counter[str], expected: set[str]) -> list[str]:
    """More or less than once."""
    return [
        f"{subject}: {what} {got[subject]} times instead of {int(subject in expected)}"
        for subject in sorted(got.keys() | expected)
        if got[subject] != int(subject in expected)
    ]
