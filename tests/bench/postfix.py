"""Row ``postfix``: mail through a real Postfix to its discard(8), with one milter or another.

Each milter has an smtpd(8) of its own, so that all take turns in one Postfix. The load is
Postfix's own smtp-source(1), a message for each connection; a run begins with an empty queue.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.beside import Contender, Found, in_turn, table
from tests.bench.load import FIELDS
from tests.bench.machine import cpu_seconds
from tests.bench.mail import baseline, nothing
from tests.bench.rows import Effort, Row
from tests.lab import roots
from tests.lab.errors import LabUnavailable
from tests.lab.lab import Lab
from tests.support import addresses
from tests.support.service import Service
from tests.support.waiting import eventually

TITLE = "mail through Postfix to its discard(8)"

SESSIONS = (1, 8)
"""Of smtp-source at once."""

FIRST_PORT = 2501

PATIENCE = 120.0
"""Seconds that a run may take."""

TO_DISCARD = {
    "default_transport": "discard:",
    "transport_maps": "",
    "smtpd_peername_lookup": "no",
    "smtpd_tls_security_level": "none",
}

SMTPD = """
{address}:{port} inet n - n - - smtpd
    -o smtpd_milters={milter}
"""


@dataclass(frozen=True)
class Milter:
    """A milter that Postfix asks: its socket as Postfix sees it, and its processes."""

    name: str
    socket: str
    pids: Callable[[], Sequence[int]]


def postfix(effort: Effort) -> Row:
    """Measure, or say why the lab cannot run here."""
    try:
        with Lab() as lab, _milters(lab, effort.tree) as milters:
            services = "".join(
                SMTPD.format(address=addresses.FRONT, port=FIRST_PORT + n, milter=one.socket)
                for n, one in enumerate(milters)
            )
            lab.front.configure(TO_DISCARD, services)
            lab.front.reload(parameters={})
            (lab.front.directory / "message").write_text(_message())

            def run(number: int, sessions: int) -> Callable[[], Found]:
                return lambda: _run(lab, FIRST_PORT + number, milters[number], sessions, effort)

            cases = [
                in_turn(
                    f"{sessions} at once",
                    [Contender(one.name, run(n, sessions)) for n, one in enumerate(milters)],
                    effort.runs,
                )
                for sessions in SESSIONS
            ]
    except LabUnavailable as reason:
        return Row("postfix", TITLE, skipped=str(reason))
    return table(
        "postfix",
        TITLE,
        cases,
        f"{effort.mails} messages in each run, a connection for each; processor time of the milter",
        first="sessions",
    )


@contextlib.contextmanager
def _milters(lab: Lab, tree: Path) -> Iterator[list[Milter]]:
    """All of them; ours first, and none at all last."""
    shared = lab.front.milter
    with contextlib.ExitStack() as stack:
        ours = Service(workers=0, log_format="logfmt", tree=tree)
        stack.callback(ours.destroy)
        ours.socket_path = shared.outside / "ours.sock"
        ours.configure(f'[dns]\nnameservers = ["{lab.resolver}"]', milter='socket_mode = "0666"')
        ours.start()
        found = [Milter("ours", "ours.sock", lambda: [ours.pid, *ours.family])]
        for one in (nothing, baseline):
            subject = stack.enter_context(one(shared.outside))
            Path(subject.socket).chmod(0o666)
            found.append(Milter(subject.name, Path(subject.socket).name, subject.pids))
        yield [
            *(Milter(one.name, f"unix:{shared.inside}/{one.socket}", one.pids) for one in found),
            Milter("no milter", "", lambda: ()),
        ]


def _message() -> str:
    header = "".join(f"{name}:{value}\n" for name, value in FIELDS).replace("\r", "")
    return f"{header}\n" + "Hello Bob,\n\nhere they are.\n" * 20


def _run(lab: Lab, port: int, milter: Milter, sessions: int, effort: Effort) -> Found:
    pids = list(milter.pids())
    before, began = cpu_seconds(pids), time.perf_counter()
    subprocess.run(
        [
            *("chroot", roots.ensure(roots.POSTFIX_3_11), "/usr/sbin/smtp-source", "-4"),
            *("-s", str(sessions), "-m", str(effort.mails), "-F", lab.front.inside("message")),
            *("-f", "alice@example.net", "-t", "bob@example.org", f"{addresses.FRONT}:{port}"),
        ],
        check=True,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE,
    )
    accepted = time.perf_counter() - began
    spent = cpu_seconds(pids) - before
    eventually(lambda: not _queued(lab), "an empty queue", wait=PATIENCE)
    return {"messages/s": effort.mails / accepted, "CPU µs": 1e6 * spent / effort.mails}


def _queued(lab: Lab) -> bool:
    queue = lab.front.queue_directory
    return any(
        any(path.is_file() for path in (queue / name).rglob("*")) for name in ("incoming", "active")
    )
