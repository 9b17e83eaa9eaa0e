"""Many messages over many connections, faults switched on and off: nothing grows, nobody waits.

The real service in processes of its own, spoken to as an MTA does. ``SOAK_MESSAGES`` is how many
messages there are, ten a connection: 10,000 if nothing is said, 200,000 in ``make test-long``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.dnsserver import SILENT, Scripted, failure, found
from tests.support.internet import Internet, loopback_internet
from tests.support.milterclient import MilterClient
from tests.support.service import MACROS, Service
from tests.support.smtpserver import Close, Hang, SmtpServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.alone

MESSAGES = int(os.environ.get("SOAK_MESSAGES", "10000"))

A_CONNECTION = 10
"""Messages over one connection: the MTA's next session is a new one."""

CLIENTS = 4
"""Connections at once."""

DOMAINS = 100
"""Next hops of either kind: all are known after the first tenth, so that caches are full then."""

GROWTH = 1.10
"""By what the resident memory of all processes may grow from the first tenth to the end."""

PATIENCE = 5.0
"""Seconds for any answer: tag_wait is two, and this machine has other things to do."""

PAUSE = 0.3
"""Seconds that a fault stays, and that all is well before the next one."""

THREADS = 8
"""Of libmilter's pool, which comes and goes."""

OVERLAPPING = min(32, (os.cpu_count() or 1) + 4)
"""Of asyncio's own pool in the engine at most: it makes one when two things overlap, and keeps it.
All else has as many threads as ever."""

TAG = r"requirement=requiretls; source=esmtp; forecast=(\S+);"

GARBAGE = (b"\0\0\0\1", b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 64, b"\0\0\0\5Oxxxx", b"")

LIMITS = {
    # Else what failed once would be held for longer than the faults last.
    "engine.cache.attempts.MAX_RETRY_AFTER": 0.5,
    "evidence.probe.FRESH": 1.0,
}


@dataclass
class Faults:
    """Switches on one fault after the other, each for a moment."""

    internet: Internet
    seen: Counter[str] = field(default_factory=Counter)

    def one(self, name: str) -> contextlib.AbstractContextManager[None]:
        return getattr(self, name)()  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def dns(self, answer: Scripted) -> Iterator[None]:
        script = self.internet.dns.script
        before = dict(script)
        for name, rdtype in before:
            if rdtype in ("MX", "TLSA"):
                script[name, rdtype] = answer
        try:
            yield
        finally:
            script.update(before)

    def servfail(self) -> contextlib.AbstractContextManager[None]:
        return self.dns(failure())

    def silence(self) -> contextlib.AbstractContextManager[None]:
        return self.dns(SILENT)

    @contextlib.contextmanager
    def server(self, **replies: object) -> Iterator[None]:
        servers: tuple[SmtpServer, ...] = (self.internet.good, self.internet.lacking)
        before = [{name: getattr(server, name) for name in replies} for server in servers]
        for server in servers:
            for name, value in replies.items():
                setattr(server, name, value)
        try:
            yield
        finally:
            for server, values in zip(servers, before, strict=True):
                for name, value in values.items():
                    setattr(server, name, value)

    def banner(self) -> contextlib.AbstractContextManager[None]:
        return self.server(banner=Close)

    def hang(self) -> contextlib.AbstractContextManager[None]:
        return self.server(ehlo=Hang)

    def starttls(self) -> contextlib.AbstractContextManager[None]:
        return self.server(starttls=b"454 4.7.0 not now\r\n")

    def flood(self) -> contextlib.AbstractContextManager[None]:
        return self.server(ehlo=itertools.repeat(b"250-" + b"x" * 10_000, 1_000))

    def run(self, end: threading.Event) -> None:
        for name in itertools.cycle(FAULTS):
            if end.wait(PAUSE):
                return
            with self.one(name):
                end.wait(PAUSE)
            self.seen[name] += 1


FAULTS = ("servfail", "banner", "silence", "starttls", "hang", "flood")


@dataclass
class Figures:
    """What was sent and what became of it."""

    messages: int = 0
    connections: int = 0
    forecasts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(Kind of domain, forecast)."""
    longest: float = 0.0
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def send(service: Service, figures: Figures, count: int) -> None:
    """*count* connections from several clients, and the visitors whom nobody wants."""
    numbers = iter(range(figures.connections, figures.connections + count))

    def client() -> None:
        while True:
            with figures.lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                connection(service, figures, number)
                if number % 10 == 0:
                    unwanted(service, number)
            except Exception as error:  # noqa: BLE001 - told by the test, not by a thread
                with figures.lock:
                    figures.wrong.append(repr(error))

    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    figures.connections += count


def connection(service: Service, figures: Figures, number: int) -> None:
    with service.client() as client:
        for position in range(A_CONNECTION):
            kind = "good" if (number + position) % 2 else "lacking"
            recipient = f"<bob@{kind}-{(number * A_CONNECTION + position) % DOMAINS}.test>"
            started = time.monotonic()
            outcome = client.message("<alice@example.net>", [recipient], parameters=["REQUIRETLS"])
            took = time.monotonic() - started
            passed = outcome.end is not None and outcome.end.passed
            tags = [edit.value for edit in outcome.edits]
            found = re.match(
                r"requirement=requiretls; source=esmtp; forecast=(\S+);", "".join(tags)
            )
            with figures.lock:
                figures.messages += 1
                figures.longest = max(figures.longest, took)
                if not passed or len(tags) != 1 or found is None:
                    figures.wrong.append(f"{recipient}: {outcome}")
                else:
                    figures.forecasts[kind, found[1]] += 1


def unwanted(service: Service, number: int) -> None:
    """Garbage, a message that is broken off, and one that is given up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.connect(str(service.socket_path))
        stranger.sendall(GARBAGE[number // 10 % len(GARBAGE)])
    broken = MilterClient(str(service.socket_path), MACROS)
    broken.connect()
    broken.mail("<alice@example.net>", "REQUIRETLS")
    broken.rcpt("<bob@good-1.test>")
    if number % 20:
        broken.abort()
    broken.close()


@dataclass(frozen=True)
class Size:
    """Of all processes: kilobytes resident, descriptors and threads."""

    memory: int
    descriptors: dict[str, int]
    threads: dict[str, int]


def size(service: Service) -> Size:
    pids = {"supervisor": service.pid, **service.children}
    status = {name: Path(f"/proc/{pid}/status").read_text() for name, pid in pids.items()}

    def number(name: str, key: str) -> int:
        found = re.search(rf"^{key}:\s+(\d+)", status[name], re.M)
        assert found is not None
        return int(found[1])

    return Size(
        sum(number(name, "VmRSS") for name in pids),
        {name: len(list(Path(f"/proc/{pid}/fd").iterdir())) for name, pid in pids.items()},
        {name: number(name, "Threads") for name in pids},
    )


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with loopback_internet(tmp_path_factory.mktemp("world")) as one:
        for kind in ("good", "lacking"):
            for number in range(DOMAINS):
                name = f"{kind}-{number}.test"
                one.dns.set(name, "MX", found(f"{name}. 2 IN MX 10 mx.{kind}.test."))
        yield one


@pytest.mark.timeout(300 + MESSAGES // 50)
def test_nothing_grows_however_much_mail_comes_and_whatever_fails(internet: Internet) -> None:
    config = f'{internet.config}command_timeout = 1\nretry_after = 1\n[rules]\nmode = "monitor"\n'
    service = Service(config, limits=LIMITS)
    try:
        soak(service.start(), internet)
    finally:
        service.destroy()


def soak(service: Service, internet: Internet) -> None:
    figures, faults, end = Figures(), Faults(internet), threading.Event()
    switching = threading.Thread(target=faults.run, args=(end,))
    switching.start()
    connections = MESSAGES // A_CONNECTION
    pids = service.children
    started = time.monotonic()
    try:
        send(service, figures, connections // 10)
        early = idle(service)
        send(service, figures, connections - connections // 10)
    finally:
        end.set()
        switching.join()
    took = time.monotonic() - started
    late = idle(service)
    print(f"{figures.messages} messages in {took:.0f} s, longest {figures.longest:.2f} s")
    print(f"{dict(figures.forecasts)}; {dict(faults.seen)}; {early}; {late}")

    assert figures.wrong == []
    assert figures.messages == MESSAGES
    assert figures.longest < PATIENCE
    assert service.children == pids, "nobody died"
    assert set(faults.seen) == set(FAULTS)
    # Each kind was forecast as it is when all was well, and never as what it is not.
    assert figures.forecasts["good", "2.0.0"] > 0
    assert figures.forecasts["lacking", "5.7.30"] > 0
    assert figures.forecasts["lacking", "2.0.0"] == 0
    assert figures.forecasts["good", "5.7.30"] == 0

    assert late.memory < early.memory * GROWTH
    assert late.descriptors == early.descriptors
    for name, threads in late.threads.items():
        spare = THREADS if name.startswith("worker") else OVERLAPPING if name == "engine" else 0
        assert threads <= early.threads[name] + spare, name
    assert eventually(lambda: counted(service) == MESSAGES)
    assert service.metric('callback_errors_total{stage="eom"}') == 0


def idle(service: Service) -> Size:
    """The size when no connection and no probe is open any more."""
    smallest = size(service)
    deadline = time.monotonic() + 15
    calm = 0
    while calm < 5 and time.monotonic() < deadline:
        time.sleep(0.3)
        now = size(service)
        calm = calm + 1 if now.descriptors == smallest.descriptors else 0
        smallest = now
    return smallest


def counted(service: Service) -> float:
    series = 'messages_total{action="accept",requirement="requiretls"}'
    return service.metric(series)
