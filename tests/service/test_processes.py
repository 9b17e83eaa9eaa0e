"""Death, and what comes after: real processes, really killed."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.processes import alive
from tests.support.service import Service
from tests.support.waiting import eventually

Make = Callable[..., Service]


def test_ready_is_told_when_engine_and_all_workers_answer(make: Make) -> None:
    service = make(workers=3).start()
    assert set(service.children) == {"engine", "worker-1", "worker-2", "worker-3"}
    assert service.accepts
    assert service.http("/healthz") == "ok\n"
    ready = [line["child"] for line in service.events("ready")]
    assert sorted(ready) == ["engine", "worker-1", "worker-2", "worker-3"]


def test_a_worker_that_is_killed_comes_back_within_two_seconds(make: Make) -> None:
    service = make().start()
    killed = time.monotonic()
    pid = service.kill("worker-1")
    service.replaced("worker-1", pid)
    assert time.monotonic() - killed < 2
    assert service.send()
    eventually(lambda: service.metric('process_restarts_total{process="worker"}') == 1)
    assert service.metric('process_restarts_total{process="engine"}') == 0


def test_while_a_worker_is_dead_the_other_serves(make: Make) -> None:
    service = make().start()
    service.kill("worker-1")
    for _ in range(5):
        assert service.send()


def test_an_engine_that_is_killed_comes_back_and_the_workers_find_it(make: Make) -> None:
    service = make().start()
    found = len(service.events("engine_found"))
    pid = service.kill("engine")
    service.replaced("engine", pid)
    eventually(lambda: len(service.events("engine_found")) == found + 2)
    assert service.http("/healthz") == "ok\n"
    eventually(lambda: service.metric('process_restarts_total{process="engine"}') == 1)


def test_without_an_engine_the_forecast_is_unknown_at_once(make: Make) -> None:
    service = make(workers=1).start()
    os.kill(service.children["engine"], signal.SIGKILL)
    started = time.monotonic()
    (tag,) = service.send()
    assert time.monotonic() - started < 0.5
    assert "forecast=unknown; reason=unknown" in tag


def test_an_engine_that_hangs_does_not_hold_smtp_up(make: Make) -> None:
    service = make(workers=1).start()
    pid = service.children["engine"]
    os.kill(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        (tag,) = service.send()
        assert time.monotonic() - started < 3  # tag_wait is 2 s
        assert "forecast=unknown" in tag
    finally:
        os.kill(pid, signal.SIGCONT)


def test_with_the_supervisor_killed_no_process_keeps_the_socket(make: Make) -> None:
    service = make().start()
    family = service.family
    assert len(family) == 3
    service.send_signal(signal.SIGKILL)
    service.wait()
    eventually(lambda: not any(map(alive, family)))
    eventually(lambda: not service.accepts)


def test_after_a_kill_of_all_a_new_service_starts_on_the_same_socket(make: Make) -> None:
    service = make().start()
    service.send_signal(signal.SIGKILL)
    service.wait()
    assert service.socket_path.exists()
    service.start(ready=False)
    eventually(lambda: len(service.events("serving")) == 2)
    assert service.send()


def test_no_process_holds_what_is_another_s(make: Make) -> None:
    """The engine must not keep the milter's socket, nor a child the line of another."""
    service = make().start()

    def sockets(pid: int) -> set[str]:
        links = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        return {link for link in links if link.startswith("socket:")}

    table = Path("/proc/net/unix").read_text()
    (inode,) = {
        line.split()[6]
        for line in table.splitlines()
        if line.endswith(str(service.socket_path)) and line.split()[5] == "01"  # it listens
    }
    listener = f"socket:[{inode}]"
    held = {name: sockets(pid) for name, pid in service.children.items()}
    held["supervisor"] = sockets(service.pid)
    assert listener not in held["engine"]
    for one, other in itertools.combinations(held, 2):
        expected = set() if "engine" in (one, other) else {listener}
        assert held[one] & held[other] == expected, (one, other)
