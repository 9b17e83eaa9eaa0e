"""What systemd hears, and what the supervisor does with children that are of no use."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.processes import alive
from tests.support.service import Service
from tests.support.waiting import eventually

Make = Callable[..., Service]

WATCHDOG = {"WATCHDOG_USEC": "400000"}
"""0.4 s: fed every 0.1 s."""


def fed(service: Service, seconds: float) -> int:
    before = service.manager.messages.count("WATCHDOG=1")
    time.sleep(seconds)
    return service.manager.messages.count("WATCHDOG=1") - before


def test_the_order_of_a_life_is_ready_then_stopping(make: Make) -> None:
    service = make(workers=1).start()
    service.stop()
    states = [line for line in service.manager.messages if line in ("READY=1", "STOPPING=1")]
    assert states == ["READY=1", "STOPPING=1"]
    assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in service.manager.messages)


def test_the_status_line_tells_processes_connections_and_configuration(make: Make) -> None:
    service = make(workers=1).start()
    assert "STATUS=2 of 2 processes ready, 0 connections, configuration 1" in (
        service.manager.messages
    )
    with service.client():
        eventually(
            lambda: any("1 connections" in line for line in service.manager.messages), wait=5
        )


def test_the_watchdog_is_fed_while_all_are_well(make: Make) -> None:
    service = make(workers=1, environ=WATCHDOG).start()
    assert 5 <= fed(service, 1) <= 15


QUICK = {"ipc.child.HEARTBEAT": 0.1, "service.spawn.HEARTBEAT_FRESH": 0.3}


def test_the_watchdog_is_not_fed_while_a_child_gives_no_sign_of_life(make: Make) -> None:
    service = make(workers=1, environ=WATCHDOG, limits=QUICK).start()
    for pid in service.children.values():
        eventually(lambda: fed(service, 0.2) > 0)
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: fed(service, 0.2) == 0)
        assert fed(service, 0.5) == 0
        os.kill(pid, signal.SIGCONT)


def test_a_child_without_a_sign_of_life_is_killed_and_replaced(make: Make) -> None:
    service = make(workers=1, limits={**QUICK, "service.spawn.HEARTBEAT_LOST": 1.0}).start()
    for name, pid in service.children.items():
        os.kill(pid, signal.SIGSTOP)
        service.replaced(name, pid)
        assert not alive(pid)
        assert service.events("killed")[-1]["child"] == name
    assert service.send()


def test_a_child_that_does_not_become_ready_is_killed(make: Make) -> None:
    service = make(workers=1, limits={"service.spawn.START_TIMEOUT": 0.01})
    service.start(ready=False)
    eventually(lambda: service.events("killed"))
    assert "not ready" in service.events("killed")[0]["reason"]


def test_children_do_not_speak_to_systemd(make: Make) -> None:
    service = make(workers=1).start()
    for pid in (service.pid, *service.family):
        environ = Path(f"/proc/{pid}/environ").read_bytes()  # what it was started with
        assert b"NOTIFY_SOCKET" in environ
    family = service.family
    os.kill(service.pid, signal.SIGKILL)
    service.wait()
    said = len(service.manager.messages)
    eventually(lambda: not any(map(alive, family)))
    assert service.manager.messages[said:] == []
