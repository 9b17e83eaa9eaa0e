"""A syslog socket that nobody reads: libmilter logs there by itself, on the MTA's threads."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.support.milterclient import VERSION
from tests.support.service import Service

Make = Callable[..., Service]

PEERS = 100
"""Connections of which libmilter logs that their negotiation is too short."""

HUNG = """
import contextlib, os, socket, subprocess, sys
directory = sys.argv[1]
devices = [name for name in ("null", "zero", "full", "random", "urandom", "shm")
           if os.path.exists("/dev/" + name)]
mount = lambda *arguments: subprocess.run(["mount", *arguments], check=True)
mount("-t", "tmpfs", "dev", directory)
for name in devices:
    place = directory + "/" + name
    os.mkdir(place) if os.path.isdir("/dev/" + name) else open(place, "w").close()
    mount("--bind", "/dev/" + name, place)
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.bind(directory + "/log")
os.set_inheritable(journal.fileno(), True)
full = False
while not full:  # what one program may have sent at most does not fill the queue
    full = True
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"<13>x", directory + "/log")
                full = False
mount("--move", directory, "/dev")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Runs a program with a /dev/log of its own: one whose queue is full, and whose reader hangs."""


def logged(service: Service) -> socket.socket:
    """A connection of which libmilter logs something, and which it then ends."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(10)
    peer.connect(str(service.socket_path))
    peer.sendall(struct.pack(">IcI", 5, b"O", VERSION))
    return peer


@pytest.mark.skipif(
    os.geteuid() != 0
    or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0,
    reason="only root may have a /dev of its own",
)
def test_a_syslog_that_nobody_reads_holds_no_thread(make: Make, tmp_path: object) -> None:
    below = ["unshare", "-m", sys.executable, "-c", HUNG, str(tmp_path)]
    service = make(workers=1, below=below).start()
    assert service.send()
    with ExitStack() as stack:
        for peer in [stack.enter_context(logged(service)) for _ in range(PEERS)]:
            assert peer.recv(1) == b"", "no thread waits for the log"
    assert service.send(count=3)
    assert service.stop() == 0
