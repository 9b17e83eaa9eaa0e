"""Attacks that go on beside honest mail, each of them started and stopped.

An attack is a name, which is its row in docs/security.md, and what it does again and again in a
thread of its own until it is stopped. It knows the lab and the milter, and nothing of the others.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import smtplib
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.lab import Lab
from tests.lab.submission import SENDER
from tests.support.milterclient import MilterClient
from tests.support.redisproxy import Answer, RedisProxy
from tests.support.redisserver import RedisServer
from tests.support.scenario import Domain, Mx, Scenario, Server, Sts

PROFILE = "dane/enforce"

ZONE = "sig.test"


class Attack:
    """Does something again and again from ``start`` to ``stop``.

    Attributes:
        name: its row in docs/security.md.
        pause: seconds after each time.
        threads: how many do it at once.
    """

    name = ""
    pause = 0.1
    threads = 1

    def __init__(self) -> None:
        self.times = 0
        """How often it was done."""
        self.failed: list[str] = []
        """What went wrong with the attack itself: a closed connection is part of many."""
        self.succeeded: list[str] = []
        """What it got and should not have got."""
        self._end = threading.Event()
        self._running = [
            threading.Thread(target=self._run, daemon=True) for _ in range(self.threads)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._running:
            thread.start()

    def stop(self) -> None:
        """End it, and leave nothing behind."""
        self._end.set()
        for thread in self._running:
            thread.join(60)
        self.clean_up()

    def once(self) -> None:
        """Do it one time."""
        raise NotImplementedError

    def clean_up(self) -> None:
        """Let go of what it holds."""

    def _run(self) -> None:
        while not self._end.wait(self.pause):
            try:
                self.once()
                self.times += 1
            except (OSError, smtplib.SMTPException, LabError, EOFError) as error:
                self.failed.append(repr(error))


# ---------------------------------------------------------------- senders of mail


class ForgedTags(Attack):
    """Messages with thousands of copies of the tag's field."""

    name = "forged tags"
    pause = 0.5
    copies = 5_000

    def __init__(self, lab: Lab, recipient: str) -> None:
        super().__init__()
        self._lab = lab
        self._recipient = recipient

    def once(self) -> None:
        with self._lab.session() as smtp:
            smtp.docmd("MAIL", f"FROM:<{SENDER}> REQUIRETLS")
            smtp.docmd("RCPT", f"TO:<{self._recipient}>")
            smtp.docmd("DATA")
            smtp.send(b"X-RequireTLS: forecast=2.0.0\r\n" * self.copies + b"\r\nbody\r\n.\r\n")
            code, text = smtp.getreply()
            if code != 550:
                self.succeeded.append(f"forged tags were not refused: {code} {text!r}")


class HostileDomains(Attack):
    """Mail for recipients whose domains are the attacker's.

    A user's account sends it, and a rule refuses it: so that it is the milter that has to do with
    these domains, and Postfix's queue has not.
    """

    recipients = 10
    """Of one message."""

    def __init__(self, name: str, lab: Lab, domains: Sequence[str]) -> None:
        super().__init__()
        self.name = name
        self._lab = lab
        self._names = itertools.cycle(domains)

    def once(self) -> None:
        with self._lab.session(authenticated=True) as smtp:
            smtp.docmd("MAIL", f"FROM:<{SENDER}> REQUIRETLS")
            for name in itertools.islice(self._names, self.recipients):
                smtp.docmd("RCPT", f"TO:<u@{name}>")
                if self._end.is_set():
                    return


# ---------------------------------------------------------------- clients of our sockets


class MilterConnections(Attack):
    """Connections to the milter's socket that say nothing, half a packet, or nonsense."""

    name = "idle and half-sent milter packets"
    pause = 0.05
    held = 60
    words = (
        b"",
        b"\0\0\0\x0d",
        b"\0\0\0\x0dO\0\0",
        b"\0\0\1\0D",
        b"\xff" * 64,
        b"GET / HTTP/1.0\r\n",
    )

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = str(path)
        self._open: list[socket.socket] = []

    def once(self) -> None:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._open.append(client)
        client.settimeout(1)
        client.connect(self._path)
        client.sendall(self.words[self.times % len(self.words)])
        while len(self._open) > self.held:
            self._open.pop(0).close()

    def clean_up(self) -> None:
        for client in self._open:
            client.close()


class GivenUpMessages(Attack):
    """Messages that are broken off, by the packets of an MTA."""

    name = "messages that are broken off"

    def __init__(self, path: Path, recipients: Iterable[str]) -> None:
        super().__init__()
        self._path = str(path)
        self._recipients = itertools.cycle(recipients)

    def once(self) -> None:
        client = MilterClient(self._path, {"j": "mta.sender.test", "v": "Postfix 3.11.7"})
        try:
            client.connect()
            client.mail("<a@sender.test>", "REQUIRETLS")
            client.rcpt(f"<{next(self._recipients)}>")
            if self.times % 2:
                client.abort()
        finally:
            client.close()


class Scrapers(Attack):
    """Connections to the metrics endpoint that never ask, and ones that ask for half."""

    name = "idle scrapers"
    pause = 0.02
    held = 100

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__()
        self._address = address
        self._open: list[socket.socket] = []

    def once(self) -> None:
        client = socket.create_connection(self._address, 1)
        self._open.append(client)
        if self.times % 2:
            client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        while len(self._open) > self.held:
            self._open.pop(0).close()

    def clean_up(self) -> None:
        for client in self._open:
            client.close()


# ---------------------------------------------------------------- what we depend on


class UnreadLog(Attack):
    """The reader of standard error stands still, all the time but for a moment now and then."""

    name = "a log that is not read"
    pause = 5.0

    def __init__(self, reader: subprocess.Popen[bytes]) -> None:
        super().__init__()
        self._reader = reader

    def start(self) -> None:
        self._reader.send_signal(signal.SIGSTOP)
        super().start()

    def once(self) -> None:
        self._reader.send_signal(signal.SIGCONT)
        self._end.wait(0.05)
        self._reader.send_signal(signal.SIGSTOP)

    def clean_up(self) -> None:
        self._reader.send_signal(signal.SIGCONT)


class HostileRedis(Attack):
    """Whatever a store can do: late, lying, endless, flushed, forged, cut off, gone."""

    name = "a hostile Redis"
    pause = 0.5

    def __init__(self, server: RedisServer, proxy: RedisProxy) -> None:
        super().__init__()
        self._server = server
        self._proxy = proxy
        self._tricks = itertools.cycle(
            (self._late, self._flushed, self._endless, self._forged, self._cut, self._loading)
        )

    def once(self) -> None:
        self.clean_up()
        next(self._tricks)()

    def clean_up(self) -> None:
        self._proxy.delay = 0.0
        self._proxy.answers.clear()

    def _late(self) -> None:
        self._proxy.delay = 0.4

    def _flushed(self) -> None:
        self._server.command("FLUSHALL")

    def _endless(self) -> None:
        def endless(words: list[bytes], reply: bytes) -> Iterator[bytes]:
            return itertools.chain([b"$4000000000\r\n"], itertools.repeat(b"x" * 100_000, 1_000))

        self._proxy.answers["GETRANGE"] = endless

    def _forged(self) -> None:
        for key in sorted(self._server.keys()):
            self._server.command("SET", key, b"RTLS2 1 2 forged\n" + os.urandom(100))

    def _cut(self) -> None:
        def cut(words: list[bytes], reply: bytes) -> Iterator[bytes]:
            yield reply[:3]

        self._proxy.answers["SET"] = cut

    def _loading(self) -> None:
        answer: Answer = lambda *_: [b"-LOADING Redis is loading the dataset in memory\r\n"]  # noqa: E731
        self._proxy.answers["GETRANGE"] = answer


# ---------------------------------------------------------------- their domains


@dataclass
class Hostile:
    """The attackers' domains, in a lab."""

    lab: Lab
    names: dict[str, list[str]] = field(default_factory=dict)
    """What they do, and the names of the domains that do it."""

    def publish(self) -> None:
        """Have all of them in the plan; the lab is to be updated."""
        scenarios = {
            "cut-short policies": Scenario(
                "storm-cut",
                domains=tuple(
                    Domain(suffix=f"{https}{number}", sts=Sts(https=https))
                    for https in ("cut", "close", "endless", "slow-body", "big")
                    for number in range(4)
                ),
            ),
            "odd servers": Scenario(
                "storm-odd",
                domains=tuple(
                    Domain(suffix=f"d{number}", mx=(Mx(server=server),))
                    for number, server in enumerate(
                        [
                            Server(banner="close"),
                            Server(ehlo="close"),
                            Server(handshake="garbage"),
                            Server(handshake="close"),
                            Server(ehlo_tls="close"),
                            Server(requiretls="none"),
                            Server(cert="untrusted"),
                        ]
                        * 3
                    )
                ),
            ),
            "one address behind many names": Scenario("storm-target"),
        }
        self.lab.plan.add(scenarios.values())
        for name, scenario in scenarios.items():
            self.names[name] = [scenario.domain_name(domain) for domain in scenario.domains]
        (target,) = self.lab.hosts(scenarios["one address behind many names"])
        self.names["one address behind many names"] = [
            self._named(f"storm-n{number}", target.address) for number in range(200)
        ]
        self.names["huge zones"] = [self._huge(f"storm-huge{number}") for number in range(10)]

    def _domain(self, label: str, *records: str) -> str:
        name = f"{label}.{ZONE}"
        self.lab.plan.transport[name] = (PROFILE, "")
        self.lab.plan.records[ZONE] += [f"{name}. 300 {record}" for record in records]
        return name

    def _named(self, label: str, address: str) -> str:
        """A domain with a host's name of its own for an address that all have."""
        name = self._domain(label, f"MX 10 mx.{label}.{ZONE}.")
        self.lab.plan.records[ZONE].append(f"mx.{label}.{ZONE}. 300 A {address}")
        return name

    def _huge(self, label: str) -> str:
        """A domain with a hundred MX records of long names, the best of them with addresses."""
        long = ".".join(["x" * 60] * 3)
        hosts = [f"{number:03}.{long}.{label}.{ZONE}" for number in range(100)]
        name = self._domain(label, *(f"MX {number} {host}." for number, host in enumerate(hosts)))
        self.lab.plan.records[ZONE] += [
            f"{host}. 300 A 127.9.{number}.{last}"
            for number, host in enumerate(hosts[:2])
            for last in range(1, 102)
        ]
        return name

    @property
    def rules(self) -> dict[str, dict[str, object]]:
        """``[rules.recipient]``: mail for them is refused, so that no queue has it.

        It is soon refused: the attackers do not wait, and what they set off goes on meanwhile.
        """
        defer = {
            "mode": "reject",
            "on_temporary": "defer",
            "on_unknown": "defer",
            "decide_wait": 1.0,
        }
        return {name: defer for names in self.names.values() for name in names}

    def attacks(self) -> list[Attack]:
        """One for each of the things that they do."""
        return [HostileDomains(what, self.lab, names) for what, names in self.names.items()]


def running(attacks: Iterable[Attack]) -> contextlib.AbstractContextManager[None]:
    """Have all of them go on at once."""

    @contextlib.contextmanager
    def together() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for attack in attacks:
                stack.callback(attack.stop)
                attack.start()
            yield

    return together()
