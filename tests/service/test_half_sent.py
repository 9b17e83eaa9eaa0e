"""Events of which the MTA sends only the beginning: each holds a thread of libmilter's."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.milterclient import ACTIONS, CONTINUE, PROTOCOL, VERSION
from tests.support.milterprocess import MilterProcess
from tests.support.service import Service
from tests.support.waiting import eventually

Make = Callable[..., Service]
Serve = Callable[..., MilterProcess]

NEGOTIATION = struct.pack(">IcIII", 13, b"O", VERSION, ACTIONS, PROTOCOL)

HALVES = {"length": b"\0\0", "event": struct.pack(">Ic", 500, b"M") + b"<alice@"}


@contextmanager
def half_sent(path: str, octets: bytes) -> Iterator[socket.socket]:
    """A connection that has negotiated, and sent the beginning of an event."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as mta:
        mta.settimeout(20)
        mta.connect(path)
        mta.sendall(NEGOTIATION)
        assert mta.recv(1000)
        mta.sendall(octets)
        yield mta


@pytest.mark.parametrize("octets", HALVES.values(), ids=HALVES)
def test_an_event_that_is_half_sent_ends_its_connection_after_the_configured_time(
    serve: Serve, octets: bytes
) -> None:
    milter = serve("[milter]\n[limits]\nmta_silence = 1\n")
    assert isinstance(milter.socket, str)
    with half_sent(milter.socket, octets) as mta:
        started = time.monotonic()
        assert mta.recv(1) == b""
        assert 0.9 < time.monotonic() - started < 5
    eventually(lambda: milter.totals().get("saturated_total{mta_silence}") == 1)


def test_a_connection_that_is_silent_between_events_outlasts_it(serve: Serve) -> None:
    """A client that sends its message slowly: the MTA says nothing meanwhile.

    libmilter looks for silent connections every ten minutes only.
    """
    milter = serve("[milter]\n[limits]\nmta_silence = 1\n")
    with milter.client() as client:
        client.mail("<a@x.test>")
        assert client.rcpt("<b@example.org>") == CONTINUE
        time.sleep(3)
        client.header("Subject", " test")
        client.eoh()
        assert client.eom() == CONTINUE


def test_a_worker_whose_threads_are_held_is_replaced_and_mail_goes_on(make: Make) -> None:
    """The attack: a peer at the socket holds threads until none is left."""
    # Long enough that all of them are there before the worker is replaced.
    service = make(workers=2, limits={"service.spawn.HEARTBEAT_LOST": 5.0}).start()
    before = service.children
    with ExitStack() as stack:
        for _ in range(120):
            stack.enter_context(half_sent(str(service.socket_path), HALVES["event"]))
        eventually(lambda: service.metric("milter_connections") > 100)
        assert service.metric("milter_threads") > 100
        assert service.send(), "and so it does before"
        killed = eventually(lambda: service.events("killed"))
        assert "threads stand still" in killed[0]["reason"]
        eventually(lambda: service.metric("milter_threads") < 60)
        assert service.send(count=4)
    assert service.poll() is None
    assert service.children["engine"] == before["engine"]


def test_many_connections_that_are_silent_or_busy_hold_no_thread(make: Make) -> None:
    service = make(workers=1, limits={"service.spawn.HEARTBEAT_LOST": 2.0}).start()
    before = service.children
    with ExitStack() as stack:
        clients = [stack.enter_context(service.client()) for _ in range(120)]
        eventually(lambda: service.metric("milter_connections") == 120)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            for client in clients:
                assert client.message("<alice@example.net>", ["<bob@example.org>"]).end == CONTINUE
    assert service.children == before
    eventually(lambda: service.metric("milter_connections") == 0)
