"""A peer at the milter's socket whose packets make libmilter crash: workers die, mail goes on.

libmilter 1.0.1 reads beyond the end of a list of macros with an odd number of strings when a
callback asks for a macro. The first wall is that only the MTA may connect; this is the second one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.milterclient import ACTIONS, CONTINUE, PROTOCOL, VERSION, ProtocolError
from tests.support.service import Service
from tests.support.waiting import eventually

Make = Callable[..., Service]

DEATHS = int(os.environ.get("WORKER_DEATHS", "12"))
"""Of workers, caused by a peer; ``make test-long`` causes more."""


CRASHING = """
import os, signal, sys
from requiretls_milter import cli
from requiretls_milter.milter import process
process.EngineClient = lambda *_, **__: os.kill(os.getpid(), signal.SIGSEGV)
sys.argv[0] = "requiretls-milter"
sys.exit(cli.main())
"""


def packet(command: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data) + 1) + command + data


def deadly() -> bytes:
    """A session that ends its worker: heap that is not zero, and macros without a value."""
    octets = packet(b"O", struct.pack(">III", VERSION, ACTIONS, PROTOCOL))
    for strings in (1, 3, 5):
        for stage in (b"C", b"M"):
            octets += packet(b"H", b"A" * (8 * (strings + 2) - 1) + b"\0") * 2
            octets += packet(b"D", stage + (b"{" + b"B" * 100 + b"}\0") * strings)
    octets += packet(b"C", b"host\x004" + struct.pack(">H", 25) + b"127.0.0.1\0")
    return octets + packet(b"M", b"<a@example.net>\0")


def strike(service: Service) -> None:
    """One deadly session; returns when a worker has accepted it, or none is there."""
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer,
    ):
        peer.settimeout(0.5)
        peer.connect(str(service.socket_path))
        peer.sendall(deadly())
        while peer.recv(1000):
            pass


@contextmanager
def striking(service: Service, peers: int = 2) -> Iterator[None]:
    """Peers that do nothing else, as fast as they can."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.is_set():
            strike(service)
            time.sleep(0.005)

    threads = [threading.Thread(target=go_on) for _ in range(peers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def deaths(service: Service) -> int:
    return len(service.events("died"))


def passes(service: Service) -> bool:
    """Whether a message passes; a connection that is cut is tried again by an MTA."""
    try:
        with service.client() as client:
            return client.message("<alice@example.net>", ["<bob@example.org>"]).end == CONTINUE
    except (ProtocolError, OSError):
        return False


def test_a_peer_that_kills_workers_does_not_end_the_service_and_mail_flows_again(
    make: Make,
) -> None:
    """Before: five such sessions, within a second, closed the socket."""
    service = make(environ={"WATCHDOG_USEC": "2000000"}).start()
    engine = service.children["engine"]
    began = time.monotonic()
    with striking(service):
        eventually(lambda: deaths(service) >= DEATHS, wait=20 + 2 * DEATHS)
        elapsed = time.monotonic() - began
        # Each worker is back after a second at the least: a peer causes no storm of processes.
        assert deaths(service) <= 2 * elapsed + 8
        fed = service.manager.messages.count("WATCHDOG=1")
        eventually(lambda: service.manager.messages.count("WATCHDOG=1") > fed)
    assert {line["signal"] for line in service.events("died")} == {"SIGSEGV"}
    assert service.poll() is None
    assert service.events("crash_loop") == []
    assert service.children["engine"] == engine
    eventually(lambda: set(service.children) == {"engine", "worker-1", "worker-2"})
    assert service.send(count=3)
    eventually(lambda: service.metric('process_restarts_total{process="worker"}') >= DEATHS)


def test_one_such_session_now_and_then_leaves_the_other_worker_to_serve(make: Make) -> None:
    service = make().start()
    for number in range(1, 4):
        strike(service)
        eventually(lambda number=number: deaths(service) == number)  # type: ignore[misc]
        for _ in range(5):
            assert passes(service)
        eventually(lambda: len(service.children) == 3)


def test_a_worker_that_crashes_by_itself_as_it_starts_is_a_crash_loop(make: Make) -> None:
    """A library that does not fit: nothing would ever serve, and no peer has caused it."""
    service = make(program=(sys.executable, "-c", CRASHING)).start(ready=False)
    assert service.wait() == 1
    assert {line.get("signal") for line in service.events("died")} == {"SIGSEGV"}
    assert service.events("crash_loop")
