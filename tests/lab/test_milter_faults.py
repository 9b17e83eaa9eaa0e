"""What dies, hangs or is gone in the middle of a message: Postfix answers in time, mail is whole.

``milter_default_action`` or a rule of ours decides; nothing is lost, doubled or altered, and log
and metrics say what happened.
"""

from __future__ import annotations

import contextlib
import os
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from requiretls_milter.engine.outage import MIN_FAILED
from tests.lab import labconfig
from tests.lab.lab import Lab
from tests.lab.milter import Milter
from tests.lab.submission import SENDER, Refused, Reply, message
from tests.support.paths import REPOSITORY
from tests.support.processes import alive
from tests.support.scenario import Domain, Mx, Scenario, Server, Sts
from tests.support.waiting import eventually

pytestmark = pytest.mark.lab

IN_TIME = {
    "milter_connect_timeout": "3s",
    "milter_command_timeout": "4s",
    "milter_content_timeout": "4s",
}
"""Of Postfix; by default 30 s, 30 s and 300 s."""

DEFAULTS = {
    "milter_connect_timeout": "30s",
    "milter_command_timeout": "30s",
    "milter_content_timeout": "300s",
    "milter_default_action": "shutdown",
}

SLOWEST_REPLY = 6.5
"""Seconds that any reply of Postfix may take here: one timeout of the milter, and some work."""

TAG_WAIT = 2.0
DECIDE_WAIT = 2.0
"""Seconds that the end of a message, or RCPT, may wait for us."""

PROMPT = 1.8
"""Seconds, more than those that it may wait, that a reply takes on a busy machine."""


def place(name: str, *mx: Mx) -> Scenario:
    return Scenario(f"fault-{name}", domains=(Domain(mx=mx or (Mx(),)),))


GOOD = place("good")
ORDINARY = place("ordinary")
LACKING = place("lacking", Mx(server=Server(requiretls="none")))
SLOW = place("slow", Mx(server=Server(latency=0.4)))
HANGING = place("hanging", Mx(server=Server(banner="hang")))
HANGING_TOO = place("hangingtoo", Mx(server=Server(banner="hang")))
REQUIRED_HANGING = place("requiredhanging", Mx(server=Server(ehlo="hang")))
REQUIRED = place("required", Mx(server=Server(latency=0.8)))
RELOADED = place("reloaded", Mx(server=Server(requiretls="none")))
KNOWN = Scenario("fault-known", domains=(Domain(sts=Sts()),))
"""Nothing of it is a negative answer, which the lab's resolver lets one keep for 5 s only."""
UNRESOLVED = tuple(place(f"unresolved{number}") for number in range(6))

PLACES = (
    *(
        KNOWN,
        GOOD,
        ORDINARY,
        LACKING,
        SLOW,
        HANGING,
        HANGING_TOO,
        REQUIRED_HANGING,
        REQUIRED,
        RELOADED,
    ),
    *UNRESOLVED,
)


def domain(where: Scenario) -> str:
    return where.domain_name(where.domains[0])


def at(where: Scenario, local: str = "u") -> str:
    return f"{local}@{domain(where)}"


RULES: dict[str, Any] = {
    domain(LACKING): {"mode": "reject"},
    domain(HANGING_TOO): {"mode": "reject"},
    domain(REQUIRED): {"mode": "reject", "require": True},
    domain(REQUIRED_HANGING): {"mode": "reject", "require": True},
}
"""Where the MTA carries the requirement ``on_unknown`` accepts; where only a rule asks, defers."""

Start = Callable[..., Milter]


@pytest.fixture(scope="module", autouse=True)
def _world(lab: Lab) -> Iterator[None]:
    lab.add(PLACES)
    yield
    lab.front.reload(parameters=DEFAULTS)


@pytest.fixture
def start(lab: Lab) -> Iterator[Start]:
    """Start a milter for this test; afterwards none of its processes may be left."""
    with contextlib.ExitStack() as stack:
        seen: set[int] = set()

        def started(
            default_action: str = "tempfail", workers: int = 2, program: Sequence[str] = ()
        ) -> Milter:
            milter = Milter(
                lab,
                transport=labconfig.all_transports(),
                default_action=default_action,
                postfix=IN_TIME,
                milter={"workers": workers, "drain_timeout": 4},
                mta={"inet_protocols": ["ipv4"]},
                rules={"tag_wait": TAG_WAIT, "decide_wait": DECIDE_WAIT, "recipient": RULES},
            )
            milter.program = program or milter.program
            milter.start()
            stack.callback(milter.stop)
            seen.update(milter.pids().values())
            return milter

        yield started
        stack.close()
        assert not [pid for pid in seen if alive(pid)]


# ---------------------------------------------------------------- messages that must stay whole

HEADERS = (
    "X-Folded: one",
    "\ttwo  ",
    "  three",
    "X-Empty:",
    "X-Long: " + "long " * 180,
    "x-odd-CASE:no blank",
    "Message-ID: <whole@sender.test>",
    "Date: Mon, 1 Jan 2024 00:00:00 +0000",
)
BODY = "".join(
    [
        ".a line that begins with a dot\n..\n...\n",
        "trailing blanks   \n\ttab\n\n\n",
        "eight bits: \N{LATIN SMALL LETTER E WITH ACUTE} \N{SNOWMAN}\n",
        "x" * 990 + "\n",
        *(f"line {number} of many\n" for number in range(3000)),
    ]
)
"""200 kB: several body chunks of the milter protocol, were they wanted."""


@dataclass
class Sending:
    """One message on its way, command by command; how long each reply took."""

    smtp: smtplib.SMTP
    recipient: str
    name: str
    slowest: float = 0.0
    replies: list[Reply] = field(default_factory=list)

    @property
    def text(self) -> str:
        return message(self.name, [self.recipient], headers=HEADERS, body=BODY)

    def say(self, command: str) -> Reply:
        began = time.monotonic()
        try:
            code, text = self.smtp.docmd(command)
        except smtplib.SMTPServerDisconnected:
            code, text = 421, b"closed"
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.replies.append(Reply(code, text.decode()))
        return self.replies[-1]

    def envelope(self, *parameters: str) -> None:
        assert self.say(f"MAIL FROM:<{SENDER}> {' '.join(parameters)}".rstrip()).code == 250
        self.say(f"RCPT TO:<{self.recipient}>")

    def half(self) -> None:
        """The first half of the message."""
        text = self.quoted()
        self.smtp.send(text[: len(text) // 2])
        time.sleep(0.1)  # let it arrive: Postfix does not say when it has read it

    def rest(self) -> Reply:
        text = self.quoted()
        self.smtp.send(text[len(text) // 2 :])
        return self.say(".")

    def quoted(self) -> bytes:
        return self.text.encode().replace(b"\r\n.", b"\r\n..")

    def all(self) -> Reply:
        """DATA and all that follows; the reply that decides."""
        reply = self.say("DATA")
        if reply.code != 354:
            return reply
        self.half()
        return self.rest()


@contextlib.contextmanager
def sending(lab: Lab, where: Scenario, name: str, **session: Any) -> Iterator[Sending]:
    with lab.session(**session) as smtp:
        yield Sending(smtp, at(where), name)


def again(lab: Lab, where: Scenario, name: str, *asks: str) -> Reply:
    """The same message once more, as a client's queue does after a 4xx."""
    with sending(lab, where, name) as sent:
        sent.envelope(*asks)
        return sent.all()


def turned_away(lab: Lab) -> bool:
    """Whether Postfix takes no message for the time being."""
    try:
        with lab.session() as smtp:
            code, _ = smtp.docmd("MAIL", f"FROM:<{SENDER}>")
    except Refused as refused:
        code = refused.reply.code
    return 400 <= code < 500


def whole(lab: Lab, where: Scenario, name: str, tagged: bool, asks: bool = True) -> None:
    """The server got the message once, and as it was sent."""
    (host,) = lab.hosts(where)

    def arrived() -> list[str]:
        return [
            text
            for session in lab.sessions(host.address)
            for text in session.messages
            if f"\nSubject: {name}\n" in text
        ]

    def told() -> str:
        return "\n".join([f"{name} at {domain(where)}:", *lab.front.log.grep("")][-40:])

    found = eventually(arrived, told)
    assert len(found) == 1
    head, _, body = found[0].partition("\n\n")
    assert body.rstrip("\n") == BODY.rstrip("\n")
    lines = head.split("\n")
    if tagged:
        assert lines.pop(0).startswith("X-RequireTLS: requirement=requiretls; ")
    assert lines.pop(0).startswith("Received: from ")
    while lines[0].startswith("\t"):
        lines.pop(0)
    if asks:
        assert lines.pop() == "Require-TLS-ESMTP: yes"
    sent = message(name, [at(where)], headers=HEADERS).partition("\r\n\r\n")[0]
    assert lines == sent.split("\r\n")


def back(milter: Milter, gone: list[int]) -> None:
    """What died has been replaced, and all are ready."""
    workers = {f"worker-{number + 1}" for number in range(milter.config.milter.workers)}

    def whole_again() -> bool:
        pids = milter.pids()
        ready = {item["pid"] for item in milter.events("ready")} | {pids["supervisor"]}
        now = set(pids.values())
        whole_family = pids.keys() == workers | {"supervisor", "engine"}
        return whole_family and not now & set(gone) and now <= ready

    eventually(whole_again, lambda: f"all in the place of {gone}: {milter.pids()}")


# ---------------------------------------------------------------- processes are killed

MOMENTS = ("after RCPT", "during DATA")


def _strike(sent: Sending, moment: str, strike: Callable[[], object]) -> Reply:
    """Send a message, and *strike* at a moment of it; the reply that decides."""
    sent.envelope("REQUIRETLS")
    if moment == "after RCPT":
        strike()
        return sent.all()
    assert sent.say("DATA").code == 354
    sent.half()
    strike()
    return sent.rest()


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("action", ["tempfail", "accept"])
def test_a_worker_killed_in_mid_message_leaves_it_to_milter_default_action(
    lab: Lab, start: Start, action: str, moment: str
) -> None:
    milter = start(action)
    gone: list[int] = []
    name = f"worker {action} {moment}"
    with sending(lab, GOOD, name) as sent:
        reply = _strike(
            sent, moment, lambda: gone.extend(milter.send_signal(signal.SIGKILL, "workers"))
        )
    assert len(gone) == 2
    assert sent.slowest < SLOWEST_REPLY
    if action == "tempfail":
        assert reply.code in (421, 451)
        assert again(lab, GOOD, name, "REQUIRETLS").code == 250
    else:
        assert reply.code == 250
    whole(lab, GOOD, name, tagged=action == "tempfail")
    back(milter, gone)
    died = [item for item in milter.events("died") if item["child"].startswith("worker-")]
    assert {item["pid"] for item in died} == set(gone)
    assert {item["signal"] for item in died} == {"SIGKILL"}
    milter.await_metric("process_restarts_total", 2)
    assert milter.metric("process_restarts_total", process="worker") == 2


CALLBACKS = ("negotiate", "connect", "mail", "rcpt", "header", "eom", "abort", "close")

DEADLY = """
import os, pathlib, signal, sys
from requiretls_milter import cli
from requiretls_milter.milter import adapter

name, flag = "_" + sys.argv.pop(1), pathlib.Path(sys.argv.pop(1))
callback = getattr(adapter, name)

def deadly(*arguments):
    try:
        flag.unlink()
    except FileNotFoundError:
        return callback(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(adapter, name, deadly)
sys.argv[0] = "requiretls-milter"
sys.exit(cli.main())
"""
"""The program with one callback in which its worker dies, once, where a file is."""


@pytest.mark.parametrize("callback", CALLBACKS)
def test_a_worker_killed_within_a_callback_loses_and_doubles_nothing(
    lab: Lab, start: Start, tmp_path: Path, callback: str
) -> None:
    flag = tmp_path / "die"
    milter = start(program=(sys.executable, "-c", DEADLY, callback, str(flag)))
    before = milter.pids()
    flag.touch()
    name = f"within {callback}"
    try:
        with sending(lab, GOOD, name) as sent:
            if callback == "abort":
                sent.envelope("REQUIRETLS")
                sent.say("RSET")
            reply = sent.say(f"MAIL FROM:<{SENDER}> REQUIRETLS")
            if reply.code == 250:
                reply = sent.say(f"RCPT TO:<{at(GOOD)}>")
            if reply.code == 250:
                reply = sent.all()
        assert sent.slowest < SLOWEST_REPLY
    except Refused as refused:  # there was nobody at the milter's end from the start
        reply = refused.reply
    # the end of the connection comes when Postfix has time for it
    eventually(lambda: not flag.exists(), "the callback has come", wait=10)
    # Once the message is accepted there is nothing left that could go wrong with it.
    assert reply.code == 250 if callback == "close" else 400 <= reply.code < 500, reply
    if reply.code != 250:
        assert again(lab, GOOD, name, "REQUIRETLS").code == 250
    whole(lab, GOOD, name, tagged=True)
    milter.await_metric("process_restarts_total", 1)
    (died,) = milter.events("died")
    assert (died["signal"], before[died["child"]]) == ("SIGKILL", died["pid"])
    back(milter, [died["pid"]])


def test_the_other_worker_goes_on_where_one_is_killed(lab: Lab, start: Start) -> None:
    milter = start()
    milter.send_signal(signal.SIGKILL, "worker-1")
    with ThreadPoolExecutor(8) as pool:
        names = [f"other {number}" for number in range(8)]
        replies = list(pool.map(lambda name: again(lab, GOOD, name, "REQUIRETLS"), names))
    assert {reply.code for reply in replies} == {250}
    for name in names:
        whole(lab, GOOD, name, tagged=True)


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_engine_killed_in_mid_message_makes_its_forecast_unknown(
    lab: Lab, start: Start, moment: str
) -> None:
    """The next hop is slow to answer, so the question is still under way."""
    milter = start()
    gone: list[int] = []
    name = f"engine {moment}"
    with sending(lab, SLOW, name) as sent:
        reply = _strike(
            sent, moment, lambda: gone.extend(milter.send_signal(signal.SIGKILL, "engine"))
        )
    assert (reply.code, len(gone)) == (250, 1)
    assert sent.slowest < TAG_WAIT + PROMPT
    whole(lab, SLOW, name, tagged=True)
    (line,) = milter.wait("recipient", to=f"<{at(SLOW)}>")
    assert (line["forecast"], line["reason"], line["action"]) == ("unknown", "unknown", "accept")
    assert "engine" in line["text"]
    back(milter, gone)
    milter.await_metric("process_restarts_total", 1)
    milter.await_metric("forecasts_total", 1)
    assert milter.metric("forecasts_total", status="unknown") == 1
    # and the next message is forecast again
    assert again(lab, GOOD, f"{name} again", "REQUIRETLS").code == 250
    (line,) = milter.wait("recipient", to=f"<{at(GOOD)}>")
    assert line["forecast"] == "2.0.0"


def test_an_engine_killed_while_rcpt_waits_defers_where_only_the_milter_enforces(
    lab: Lab, start: Start
) -> None:
    milter = start()
    with sending(lab, REQUIRED, "engine at rcpt") as sent:
        killer = threading.Timer(0.3, milter.send_signal, (signal.SIGKILL, "engine"))
        killer.start()
        sent.envelope()
        killer.join()
    reply = sent.replies[-1]
    assert reply.code == 451
    assert reply.text.startswith("4.7.0 REQUIRETLS cannot be honoured now for ")
    assert sent.slowest < DECIDE_WAIT + PROMPT


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("action", ["tempfail", "accept"])
def test_with_the_supervisor_killed_no_process_keeps_the_socket(
    lab: Lab, start: Start, action: str, moment: str
) -> None:
    milter = start(action)
    family = milter.pids()
    keeper = milter.server.pid
    name = f"supervisor {action} {moment}"

    def strike() -> None:
        # The lab's keeper would end what outlives the supervisor: not before we have seen it.
        os.kill(keeper, signal.SIGSTOP)
        milter.send_signal(signal.SIGKILL, "supervisor")
        eventually(lambda: not any(map(alive, family.values())), "no orphans", wait=5)

    try:
        with sending(lab, GOOD, name) as sent:
            reply = _strike(sent, moment, strike)
        assert sent.slowest < SLOWEST_REPLY
        with socket.socket(socket.AF_UNIX) as caller, pytest.raises(ConnectionRefusedError):
            caller.connect(str(milter.socket_file))
        # now Postfix does with all mail as it is told
        if action == "accept":
            assert reply.code == 250
            assert again(lab, GOOD, f"{name} next", "REQUIRETLS").code == 250
        else:
            assert reply.code in (421, 451)
            assert turned_away(lab)
    finally:
        os.kill(keeper, signal.SIGCONT)
    milter.server.stop()
    if action == "tempfail":
        milter.launch()  # as systemd does: the socket left behind is no obstacle
        assert again(lab, GOOD, name, "REQUIRETLS").code == 250
    whole(lab, GOOD, name, tagged=action == "tempfail")


def test_five_deaths_in_ten_seconds_end_the_service_and_close_its_socket(
    lab: Lab, start: Start
) -> None:
    milter = start("accept")

    def dead() -> bool:
        with contextlib.suppress(ProcessLookupError, ValueError):
            milter.send_signal(signal.SIGKILL, "worker-1")
        return not milter.server.running()

    eventually(dead)
    assert milter.events("crash_loop")
    assert len(milter.events("died")) == 5
    assert not milter.socket_file.exists()
    # the MTA sees "refused", not a hang
    began = time.monotonic()
    assert again(lab, GOOD, "crash loop", "REQUIRETLS").code == 250
    assert time.monotonic() - began < 2
    whole(lab, GOOD, "crash loop", tagged=False)


# ---------------------------------------------------------------- something hangs


@pytest.mark.parametrize("action", ["tempfail", "accept"])
def test_a_worker_that_hangs_is_given_up_after_postfix_s_own_timeout(
    lab: Lab, start: Start, action: str
) -> None:
    milter = start(action, workers=1)
    name = f"stuck worker {action}"
    with sending(lab, GOOD, name) as sent:
        reply = _strike(sent, "after RCPT", lambda: milter.send_signal(signal.SIGSTOP, "workers"))
        milter.send_signal(signal.SIGCONT, "workers")
    assert sent.slowest < SLOWEST_REPLY
    assert reply.code == {"tempfail": 451, "accept": 250}[action]
    if action == "tempfail":
        assert again(lab, GOOD, name, "REQUIRETLS").code == 250
    whole(lab, GOOD, name, tagged=action == "tempfail")


def test_an_engine_that_hangs_costs_no_more_than_the_configured_wait(
    lab: Lab, start: Start
) -> None:
    milter = start()
    milter.send_signal(signal.SIGSTOP, "engine")
    with ThreadPoolExecutor(8) as pool:
        names = [f"stuck engine {number}" for number in range(8)]

        def one(name: str) -> Sending:
            with sending(lab, GOOD, name) as sent:
                sent.envelope("REQUIRETLS")
                assert sent.all().code == 250
            return sent

        all_sent = list(pool.map(one, names))
    # all waited for the same at the same time, and no longer than they may
    assert max(sent.slowest for sent in all_sent) < TAG_WAIT + PROMPT
    lines = milter.wait("recipient", 8)
    assert {item["forecast"] for item in lines} == {"unknown"}
    assert {item["text"] for item in lines} == {"no forecast in time"}
    assert all(TAG_WAIT - 0.2 < float(item["waited"]) < TAG_WAIT + PROMPT for item in lines)
    # a rule that only we can enforce: not without a forecast
    with sending(lab, REQUIRED, "stuck engine, rule") as sent:
        sent.envelope()
    assert sent.replies[-1].code == 451
    assert sent.slowest < DECIDE_WAIT + PROMPT
    # ordinary mail does not even notice
    with sending(lab, ORDINARY, "stuck engine, ordinary") as sent:
        sent.envelope()
        assert sent.all().code == 250
    assert sent.slowest < PROMPT
    milter.send_signal(signal.SIGCONT, "engine")
    for name in names:
        whole(lab, GOOD, name, tagged=True)
    whole(lab, ORDINARY, "stuck engine, ordinary", tagged=False, asks=False)
    milter.await_metric("forecasts_total", 9)
    assert milter.metric("forecasts_total", status="unknown") == 9
    assert milter.metric("process_restarts_total") == 0


def test_a_next_hop_that_hangs_makes_no_client_wait_longer_than_configured(
    lab: Lab, start: Start
) -> None:
    milter = start()
    with ThreadPoolExecutor(4) as pool:

        def monitored(_: int) -> Sending:
            with sending(lab, HANGING, "hanging") as sent:
                sent.envelope("REQUIRETLS")
                assert sent.all().code == 250
            return sent

        def enforced(where: Scenario, *asks: str) -> Sending:
            with sending(lab, where, "hanging") as sent:
                sent.envelope(*asks)
            return sent

        carried = pool.submit(enforced, HANGING_TOO, "REQUIRETLS")
        ours = pool.submit(enforced, REQUIRED_HANGING)
        slow = list(pool.map(monitored, range(2)))
    assert max(sent.slowest for sent in slow) < TAG_WAIT + PROMPT
    # the MTA carries it: on_unknown accepts; a rule of ours alone: it defers
    assert carried.result().replies[-1].code == 250
    assert ours.result().replies[-1].code == 451
    for future in (carried, ours):
        assert future.result().slowest < DECIDE_WAIT + PROMPT
    lines = milter.wait("recipient", 2, to=f"<{at(HANGING)}>")
    assert lines[0]["forecast"] == "unknown"
    # the other may have come later, when the probe had found it out
    assert {item["forecast"] for item in lines if float(item["waited"]) >= TAG_WAIT} <= {"unknown"}
    # what the probe found out meanwhile the next message is told at once
    milter.await_metric("probes_total", 3)
    with sending(lab, HANGING, "hanging still") as sent:
        sent.envelope("REQUIRETLS")
        assert sent.all().code == 250
    assert sent.slowest < PROMPT
    assert milter.wait("recipient", 3, to=f"<{at(HANGING)}>")[-1]["forecast"] == "4.4.2"


# ---------------------------------------------------------------- no resolver


@contextlib.contextmanager
def _no_resolver(lab: Lab, how: str) -> Iterator[None]:
    if how == "gone":
        lab.dns.resolver.stop()
        try:
            yield
        finally:
            lab.dns.start_resolver()
            lab.dns.flush()
        return
    pid = lab.dns.resolver.main_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
        lab.dns.flush()


@pytest.mark.parametrize("how", ["gone", "silent"])
def test_without_a_resolver_nothing_is_forecast_that_is_not_known(
    lab: Lab, start: Start, how: str
) -> None:
    milter = start()
    here = UNRESOLVED[:3] if how == "gone" else UNRESOLVED[3:]

    def send_all(name: str) -> list[Sending]:
        def one(where: Scenario) -> Sending:
            with sending(lab, where, name) as sent:
                sent.envelope("REQUIRETLS")
                assert sent.all().code == 250
            return sent

        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(one, here))

    def said(number: int) -> set[tuple[str, str]]:
        lines = [milter.wait("recipient", number, to=f"<{at(where)}>")[-1] for where in here]
        return {(item["forecast"], item["reason"]) for item in lines}

    assert again(lab, KNOWN, f"resolver {how}, before", "REQUIRETLS").code == 250
    with _no_resolver(lab, how):
        sent = send_all(f"resolver {how}")
        assert max(item.slowest for item in sent) < TAG_WAIT + PROMPT
        # a resolver that is gone says so at once, by way of the kernel
        failed = ("4.4.3", "dns_failure")
        assert said(1) == {failed if how == "gone" else ("unknown", "unknown")}
        # what is known stays known
        assert again(lab, KNOWN, f"resolver {how}, within", "REQUIRETLS").code == 250
        known = milter.wait("recipient", 2, to=f"<{at(KNOWN)}>")
        assert [item["forecast"] for item in known] == ["2.0.0", "2.0.0"], known[-1]["text"]
        # once the lookups have failed, that is the forecast, and nobody waits for it
        milter.await_metric("assessments_total", len(here), result="defer")
        sent = send_all(f"resolver {how}, again")
        assert max(item.slowest for item in sent) < PROMPT
        assert said(2) == {failed}
    # a resolver that was away is nobody's downgrade
    assert milter.metric("downgrades_total") == 0
    assert milter.metric("callback_errors_total") == 0
    # Postfix tries again, and nothing was lost
    lab.front.flush()
    for where in here:
        whole(lab, where, f"resolver {how}", tagged=True)
        whole(lab, where, f"resolver {how}, again", tagged=True)


def test_with_port_25_blocked_no_domain_is_judged(lab: Lab) -> None:
    """Servers of five networks, to which no packet comes through; then one that is there."""
    blocked = [place(f"blocked{number}") for number in range(MIN_FAILED)]
    lab.plan.add(blocked)
    for number, where in enumerate(blocked):
        (host,) = lab.hosts(where)
        records = lab.plan.records["sig.test"]
        records[records.index(f"{host.name}. 300 A {host.address}")] = (
            f"{host.name}. 300 A 127.61.{number}.1"
        )
        lab.plan.blackholes.append(f"127.61.{number}.1")
    lab.update()

    def ask(where: Scenario) -> tuple[str, str]:
        accepted = lab.send(where)
        line = milter.recipient(accepted.queue_id)
        lab.deliveries(accepted.queue_id)
        if where is not GOOD:
            lab.front.discard(accepted.queue_id)
        return line["forecast"], line["reason"]

    # Without a rule for any domain: those that have one are looked at all the time.
    patient = {**DEFAULTS, "milter_default_action": "tempfail"}
    waiting = {"tag_wait": 10}
    with Milter(
        lab, transport=labconfig.all_transports(), postfix=patient, rules=waiting
    ) as milter:
        with ThreadPoolExecutor(MIN_FAILED) as pool:
            assert {status for status, _ in pool.map(ask, blocked)} <= {"unknown", "4.4.1"}
        (told,) = milter.wait("outbound_unreachable")
        assert (told["service"], told["level"]) == ("smtp", "error")
        milter.await_gauge("outbound_reachable", 0, service="smtp")
        assert ask(blocked[0]) == ("unknown", "unknown")
        assert milter.metric("downgrades_total") == 0
        # The first server that answers ends it.
        assert ask(GOOD) == ("2.0.0", "ok")
        milter.wait("outbound_reachable")
        milter.await_gauge("outbound_reachable", 1, service="smtp")


# ---------------------------------------------------------------- stop, reload, a second instance


def test_sigterm_lets_a_message_finish_and_takes_no_new_one(lab: Lab, start: Start) -> None:
    milter = start()
    family = milter.pids()
    with sending(lab, GOOD, "drained") as sent:
        sent.envelope("REQUIRETLS")
        os.kill(family["supervisor"], signal.SIGTERM)
        eventually(lambda: not milter.socket_file.exists(), wait=5)
        # nothing new: Postfix finds no socket
        assert turned_away(lab)
        assert sent.all().code == 250
    eventually(lambda: not any(map(alive, family.values())), wait=10)
    whole(lab, GOOD, "drained", tagged=True)
    assert milter.events("stopped")
    assert not milter.events("connections_cut")


def test_a_reload_changes_rules_between_two_messages_and_a_bad_file_changes_none(
    lab: Lab, start: Start
) -> None:
    milter = start()
    supervisor = milter.pids()["supervisor"]

    def reload(text: str, outcome: str) -> None:
        seen = len(milter.events(outcome))
        milter.config_file.write_text(text)
        os.kill(supervisor, signal.SIGHUP)
        milter.wait(outcome, seen + 1)

    good = milter.config_file.read_text()
    assert again(lab, RELOADED, "reload 1", "REQUIRETLS").code == 250
    # in the middle of a message: it ends under the rules that it began with
    with sending(lab, RELOADED, "reload 2") as sent:
        sent.envelope("REQUIRETLS")
        reload(good + f'\n[rules.recipient."{domain(RELOADED)}"]\nmode = "reject"\n', "reloaded")
        assert sent.all().code == 250
    with sending(lab, RELOADED, "reload 3") as sent:
        sent.envelope("REQUIRETLS")
    assert (sent.replies[-1].code, sent.replies[-1].text[:6]) == (550, "5.7.30")
    assert milter.metric("config_last_reload_successful") == 1

    reload(good + '\n[rules.recipient."example.org"]\nmood = "reject"\nmode = 7\n', "reload_failed")
    mistakes = [item["mistake"] for item in milter.events("reload_mistake")]
    assert len(mistakes) == 2
    assert any("mood" in mistake and "mode" in mistake for mistake in mistakes)
    with sending(lab, RELOADED, "reload 4") as sent:
        sent.envelope("REQUIRETLS")
    assert sent.replies[-1].code == 550
    milter.await_gauge("config_last_reload_successful", 0)

    reload(good, "reloaded")
    assert again(lab, RELOADED, "reload 5", "REQUIRETLS").code == 250
    assert milter.metric("config_last_reload_successful") == 1
    assert milter.metric("process_restarts_total") == 0
    assert not milter.events("died")


def test_a_second_instance_is_refused_and_the_first_one_goes_on(lab: Lab, start: Start) -> None:
    milter = start()
    second = milter.directory / "second.toml"
    text = milter.config_file.read_text()
    other = text.replace("engine.sock", "other.sock").replace(":9894", ":9895")
    for content, reason in ((text, "another instance holds this lock"), (other, "listens there")):
        second.write_text(content)
        done = subprocess.run(
            [sys.executable, "-m", "requiretls_milter", "serve", "--config", str(second)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 1
        assert "cannot_start" in done.stderr
        assert reason in done.stderr
    assert again(lab, GOOD, "first instance", "REQUIRETLS").code == 250
    whole(lab, GOOD, "first instance", tagged=True)
