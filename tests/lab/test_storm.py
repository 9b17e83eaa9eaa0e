"""All attacks at once, and honest mail beside them, of which none is lost, altered or unknown.

Twenty messages a second go through a real Postfix, plain ones and ones that ask for REQUIRETLS,
for domains that are known and for domains that nobody has asked for before. ``STORM_SECONDS`` is
how long: 20 if nothing is said, 300 in ``make test-long``.
"""

from __future__ import annotations

import itertools
import os
import re
import smtplib
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.lab.attacks import (
    PROFILE,
    ZONE,
    Attack,
    ForgedTags,
    GivenUpMessages,
    Hostile,
    HostileRedis,
    MilterConnections,
    Scrapers,
    UnreadLog,
    running,
)
from tests.lab.lab import Lab
from tests.lab.labconfig import all_transports
from tests.lab.milter import METRICS, Milter
from tests.lab.roots import REDIS, ensure
from tests.lab.submission import Refused, message, transact
from tests.support.paths import REPOSITORY
from tests.support.redisproxy import RedisProxy
from tests.support.redisserver import RedisServer
from tests.support.scenario import Domain, Scenario
from tests.support.waiting import eventually

pytestmark = pytest.mark.lab

SECONDS = float(os.environ.get("STORM_SECONDS", "20"))

RATE = 20
"""Honest messages a second."""

CLIENTS = 6
"""Honest SMTP sessions at once."""

A_SESSION = 20
"""Messages of one session."""

COLD_EVERY = 10
"""Of so many messages one is for a host that was never called before, and one for a domain that
nobody has asked for but whose host is known."""

TAG_WAIT = 5.0
"""Seconds that the end of a message waits at most (``rules.tag_wait``, 2 by default): attackers,
honest clients, MTA, name servers and both ends' TLS have the cores of one machine here."""

ONE_WORLD = {
    "network_per_minute": 100_000,
    "network_per_hour": 1_000_000,
    "zone_lookups_per_minute": 100_000,
    "zone_lookups_per_hour": 1_000_000,
}
"""``[limits]``: in the lab honest servers and those of attackers are in one network and one zone,
which share a budget. The budgets of an address are as by default."""

LATE = 120.0
"""Seconds after the storm until all is delivered."""

GROWTH = 1.10
"""By what the resident memory of all processes may grow, from the first third to the end."""

SLACK = 20_000
"""Kilobytes that it may grow by in any case: allocators and pools of threads come and go."""

BODY = "".join(f"line {number} of what must arrive as it was sent\n" for number in range(40))

WARM = Scenario("storm-warm")

COLD = Scenario(
    "storm-cold",
    domains=tuple(
        Domain(suffix=f"d{number}") for number in range(int(SECONDS * RATE / COLD_EVERY) + 10)
    ),
)


class Beset(Milter):
    """The milter, whose log goes through a pipe to a reader that can be stopped."""

    reader: subprocess.Popen[bytes]

    def launch(self) -> None:
        pipe = self.directory / "pipe"
        os.mkfifo(pipe)
        with self.log_file.open("ab") as kept:
            self.reader = subprocess.Popen(["cat", pipe], stdout=kept)
        into = f'exec "$@" 2>{pipe}'
        self.program = ("/bin/sh", "-c", into, "sh", sys.executable, "-m", "requiretls_milter")
        super().launch()

    def stop(self) -> None:
        super().stop()
        self.reader.wait(20)

    def resident(self) -> int:
        """Kilobytes of all processes."""
        total = 0
        for pid in self.pids().values():
            found = re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
            assert found is not None
            total += int(found[1])
        return total


@dataclass
class Honest:
    """Mail that has to arrive, at a steady pace."""

    lab: Lab
    shared: list[str]
    """Domains that nobody has asked for, with a host that is known."""
    sent: dict[str, bool] = field(default_factory=dict)
    """Subject to whether REQUIRETLS was asked for."""
    refused: list[str] = field(default_factory=list)
    slowest: float = 0.0
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        (self._warm,) = self.lab.recipients(WARM)
        self._cold = iter(self.lab.recipients(COLD))
        self._fresh = iter(self.shared)

    def send_for(self, seconds: float) -> None:
        """Send, and return when the last message was taken or refused."""
        began = time.monotonic() - next(self._numbers) / RATE
        clients = [
            threading.Thread(target=self._client, args=(began, time.monotonic() + seconds))
            for _ in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()

    def _client(self, began: float, ends: float) -> None:
        """Send message N at *began* plus N paces."""
        while time.monotonic() < ends:
            try:
                with self.lab.session() as smtp:
                    for _ in range(A_SESSION):
                        with self._lock:
                            number = next(self._numbers)
                        at = began + number / RATE
                        if at >= ends:
                            return
                        time.sleep(max(0.0, at - time.monotonic()))
                        self._one(smtp, number)
            except (OSError, smtplib.SMTPException, Refused) as error:
                self.refused.append(repr(error))

    def _one(self, smtp: smtplib.SMTP, number: int) -> None:
        asks, subject = number % 2 == 1, f"storm-{number}"
        recipient = self._recipient(number)
        before = time.monotonic()
        try:
            text = message(subject, [recipient], body=BODY)
            transact(smtp, [recipient], text, parameters=("REQUIRETLS",) if asks else ())
        except Refused as error:
            self.refused.append(f"{subject} to {recipient}: {error}")
            smtp.rset()
            return
        with self._lock:
            self.sent[subject] = asks
            self.slowest = max(self.slowest, time.monotonic() - before)

    def _recipient(self, number: int) -> str:
        with self._lock:
            if number % COLD_EVERY == 3:
                return next(self._cold)
            if number % COLD_EVERY in (4, 7):
                return f"u@{next(self._fresh)}"
            return self._warm

    def wrong(self) -> list[str]:
        """What came otherwise than it was sent, or not."""
        got = self._arrived()
        wrong = [f"lost: {subject}" for subject in self.sent if not got[subject]]
        for subject, texts in got.items():
            wrong += [f"{subject}: came {len(texts)} times"] if len(texts) != 1 else []
            wrong += [f"{subject}: {what}" for text in texts for what in self._odd(subject, text)]
        return wrong

    def _odd(self, subject: str, text: str) -> Iterator[str]:
        header, _, body = text.partition("\n\n")
        tags = re.findall(r"^X-RequireTLS: (.*(?:\n[ \t].*)*)", header, re.M)
        if body.rstrip("\n") != BODY.rstrip("\n"):
            yield "altered"
        if not self.sent.get(subject):
            if tags:
                yield f"tagged: {tags}"
        elif len(tags) != 1 or "forecast=2.0.0; reason=ok;" not in tags[0]:
            yield f"tag: {tags}"

    def _arrived(self) -> dict[str, list[str]]:
        """Subject to messages, when all have come or none comes any more."""
        ends = time.monotonic() + LATE
        while True:
            got: dict[str, list[str]] = {subject: [] for subject in self.sent}
            for session in self.lab.sessions():
                for text in session.messages:
                    found = re.search(r"^Subject: (storm-\d+)$", text, re.M)
                    if found:
                        got.setdefault(found[1], []).append(text)
            if all(got.values()) or time.monotonic() > ends:
                return got
            time.sleep(1)


@dataclass
class Health:
    """Asks ``/healthz`` all the time."""

    answers: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    _end: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Health:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._end.wait(0.5):
            before = time.monotonic()
            try:
                with urllib.request.urlopen(f"http://{METRICS}/healthz", timeout=10) as reply:
                    self.answers[reply.read().decode()] += 1
            except OSError as error:
                self.answers[repr(error)] += 1
            self.slowest = max(self.slowest, time.monotonic() - before)


@pytest.fixture(scope="module")
def hostile(lab: Lab) -> Hostile:
    """The attackers' domains, and the honest ones."""
    one = Hostile(lab)
    one.publish()
    lab.plan.add([WARM, COLD])
    (warm,) = lab.hosts(WARM)
    for name in shared_names():
        lab.plan.transport[name] = (PROFILE, "")
        lab.plan.records[ZONE].append(f"{name}. 300 MX 10 {warm.name}.")
    lab.update()
    return one


def shared_names() -> list[str]:
    return [f"storm-shared{number}.{ZONE}" for number in range(2 * len(COLD.domains))]


@pytest.fixture
def redis() -> Iterator[tuple[RedisServer, RedisProxy]]:
    with RedisServer(ensure(REDIS), "valkey") as server, RedisProxy(server.port) as proxy:
        yield server, proxy


@pytest.fixture
def milter(lab: Lab, hostile: Hostile, redis: tuple[RedisServer, RedisProxy]) -> Iterator[Beset]:
    running_one = Beset(
        lab,
        transport=all_transports(),
        store={"url": redis[1].url},
        rules={"recipient": hostile.rules, "tag_wait": TAG_WAIT},
        limits=ONE_WORLD,
        log={"level": "info"},
    )
    with running_one:
        yield running_one


def all_attacks(
    lab: Lab, hostile: Hostile, milter: Beset, redis: tuple[RedisServer, RedisProxy]
) -> list[Attack]:
    (warm,) = lab.recipients(WARM)
    host, _, port = METRICS.rpartition(":")
    return [
        ForgedTags(lab, warm),
        MilterConnections(milter.socket_file),
        GivenUpMessages(milter.socket_file, [warm]),
        Scrapers((host, int(port))),
        UnreadLog(milter.reader),
        HostileRedis(*redis),
        *hostile.attacks(),
    ]


@pytest.mark.timeout(240 + 3 * SECONDS)
def test_under_all_attacks_together_honest_mail_goes_on(
    lab: Lab, hostile: Hostile, milter: Beset, redis: tuple[RedisServer, RedisProxy]
) -> None:
    honest = Honest(lab, shared_names())
    family = milter.pids()
    attacks = all_attacks(lab, hostile, milter, redis)
    with running(attacks), Health() as health:
        honest.send_for(SECONDS / 3)
        early = milter.resident()
        honest.send_for(2 * SECONDS / 3)
        late = milter.resident()
    print(f"{len(honest.sent)} honest messages, the slowest {honest.slowest:.2f} s; ", end="")
    print(f"health {dict(health.answers)}, the slowest {health.slowest:.2f} s; ", end="")
    print(f"{early} and {late} KiB")
    for attack in attacks:
        print(f"  {attack.name}: {attack.times} times, failed {Counter(attack.failed)}")

    assert honest.refused == []
    assert honest.wrong() == []
    assert len(honest.sent) >= 0.9 * RATE * SECONDS
    assert set(health.answers) == {"ok\n"}
    assert late < early * GROWTH + SLACK
    assert milter.pids() == family
    assert milter.metric("callback_errors_total") == 0
    assert milter.metric("process_restarts_total") == 0
    assert all(attack.times for attack in attacks), "each attack did what it does"
    assert [what for attack in attacks for what in attack.succeeded] == []
    eventually(lambda: milter.metric("store_up") == 1, "the store is taken up again", wait=60)


def test_each_attack_has_its_row(
    lab: Lab, hostile: Hostile, milter: Beset, redis: tuple[RedisServer, RedisProxy]
) -> None:
    page = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")
    table = page.partition("## All attacks at once")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", table, re.M)[1:]
    assert sorted(rows) == sorted(
        attack.name for attack in all_attacks(lab, hostile, milter, redis)
    )
