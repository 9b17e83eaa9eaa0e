"""A log that is not read stops nothing: not mail, not the metrics, not a signal, not a restart."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import QUIET
from tests.support.service import Service
from tests.support.waiting import eventually

Make = Callable[..., Service]

MESSAGES = 5_000

IN_TIME = 2.0
"""Seconds for one message: it waits for nothing, on a machine that is busy."""


class Log:
    """Standard error of a service, and a reader of it that can be stopped."""

    def __init__(self, kind: str, kept: Path) -> None:
        if kind == "pipe":
            self.read, self.write = os.pipe()
        else:  # as systemd makes it: a stream to the journal
            ours, theirs = socket.socketpair()
            self.read, self.write = ours.detach(), theirs.detach()
        self.journal = kind == "journal"
        self._kept = kept
        self._reader: subprocess.Popen[bytes] | None = None

    @property
    def environ(self) -> dict[str, str]:
        status = os.fstat(self.write)
        return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"} if self.journal else {}

    def resume(self) -> None:
        """Begin to read, or go on."""
        if self._reader is None:
            with self._kept.open("ab") as kept:
                self._reader = subprocess.Popen(["cat"], stdin=self.read, stdout=kept)
        self._reader.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        assert self._reader is not None
        self._reader.send_signal(signal.SIGSTOP)

    @property
    def text(self) -> str:
        return self._kept.read_text()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What was read, each line a whole object, after its priority if it is for the journal."""
        whole = self.text.rpartition("\n")[0].splitlines()
        if self.journal:
            assert all(line[0] == "<" and line[1] in "23467" and line[2] == ">" for line in whole)
            whole = [line[3:] for line in whole]
        return [json.loads(line) for line in whole]

    def close(self) -> None:
        for descriptor in (self.read, self.write):
            with suppress(OSError):
                os.close(descriptor)
        if self._reader is not None:
            self._reader.kill()
            self._reader.wait()


@pytest.fixture(params=["pipe", "journal"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    one = Log(request.param, tmp_path / "kept")
    yield one
    one.close()


def serve(make: Make, log: Log) -> Service:
    return make(QUIET, stderr=log.write, environ=log.environ).start()


def send(service: Service, count: int) -> float:
    """Messages one after the other over one connection; the seconds that the slowest took."""
    slowest = 0.0
    with service.client() as client:
        for _ in range(count):
            started = time.monotonic()
            outcome = client.message(
                "<alice@example.net>", ["<bob@example.org>"], parameters=["REQUIRETLS"]
            )
            assert outcome.end is not None
            assert outcome.end.passed
            assert len(outcome.edits) == 1
            slowest = max(slowest, time.monotonic() - started)
    return slowest


def replaced(service: Service, name: str, number: int = signal.SIGKILL) -> None:
    """Kill a child, and wait for another one."""
    before = service.kill(name, number)
    eventually(lambda: service.children.get(name, before) != before, what=f"another {name}")


def replace_engine(service: Service) -> None:
    """Kill the engine, and wait for the next one to answer."""
    replaced(service, "engine")
    eventually(lambda: healthy(service), what="an engine that serves")


def healthy(service: Service) -> bool:
    try:
        return service.http("/healthz") == "ok\n"
    except OSError:
        return False


def reload(service: Service) -> None:
    ready = service.manager.messages.count("READY=1")
    service.send_signal(signal.SIGHUP)
    eventually(lambda: service.manager.messages.count("READY=1") > ready, what="reloaded")
    assert "configuration" in service.manager.messages[-1]


def test_with_a_log_that_is_never_read_all_goes_on(make: Make, log: Log) -> None:
    """Both kinds of child log more than queue and pipe hold; the supervisor, less."""
    service = serve(make, log)
    assert send(service, MESSAGES) < IN_TIME
    assert healthy(service)
    eventually(lambda: service.metric("log_lines_dropped_total") > 0)
    reload(service)
    replace_engine(service)
    replaced(service, "worker-1")
    assert send(service, 100) < IN_TIME
    started = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - started < 8
    assert not service.socket_path.exists()


def test_when_the_reader_comes_back_lines_flow_and_what_was_dropped_is_told(
    make: Make, log: Log
) -> None:
    service = serve(make, log)
    log.resume()
    send(service, 10)
    eventually(lambda: len(events(log, "recipient")) == 10)
    log.stop()
    sent = 10 + MESSAGES
    assert send(service, MESSAGES) < IN_TIME
    assert healthy(service)
    replace_engine(service)
    log.resume()
    eventually(lambda: events(log, "log_lines_dropped"), what="the lines that were dropped")
    eventually(lambda: len(events(log, "ready")) == 4, what="the supervisor's lines")
    dropped = sum(line["lines"] for line in events(log, "log_lines_dropped"))
    assert dropped > 0
    eventually(lambda: service.metric("log_lines_dropped_total") == dropped)
    send(service, 10)
    # Each message has one line, and no line is missing that was not counted.
    eventually(lambda: len(events(log, "recipient")) + dropped >= sent + 10, what="all lines")
    assert service.stop() == 0
    eventually(lambda: events(log, "stopped"), what="last words")


def test_the_traceback_of_a_child_that_crashes_comes_to_the_log(make: Make, log: Log) -> None:
    """faulthandler writes past Python, in a process that is about to end."""
    service = serve(make, log)
    log.resume()
    for name in ("worker-1", "engine"):
        replaced(service, name, signal.SIGSEGV)
    eventually(lambda: log.text.count("Fatal Python error: Segmentation fault\n") == 2)
    assert service.stop() == 0


def events(log: Log, event: str) -> list[dict[str, Any]]:
    return [line for line in log.lines if line["event"] == event]
