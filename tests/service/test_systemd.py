"""What systemd hears, and what the supervisor does with children that are of no use."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from requiretls_milter.service.sdnotify import MAX_STATUS, Notifier
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
        time.sleep(0.5)
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
    os.kill(service.pid, signal.SIGKILL)
    said = len(service.manager.messages)
    service.wait()
    time.sleep(0.5)
    assert service.manager.messages[said:] == []


# ---------------------------------------------------------------- the notifier itself


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "n"))
        listener.settimeout(2)
        yield listener, str(tmp_path / "n")


def test_the_notify_socket_is_taken_out_of_the_environment(
    manager: tuple[socket.socket, str],
) -> None:
    environ = {"NOTIFY_SOCKET": manager[1], "WATCHDOG_USEC": "30000000", "OTHER": "x"}
    notifier = Notifier(environ)
    assert environ == {"OTHER": "x"}
    assert notifier.enabled
    assert notifier.watchdog_interval == 30
    notifier.close()


def test_an_abstract_notify_socket_is_spoken_to() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0requiretls-milter-test")
        notifier = Notifier({"NOTIFY_SOCKET": "@requiretls-milter-test"})
        notifier.ready("serving")
        assert listener.recv(100) == b"READY=1\nSTATUS=serving"
        notifier.close()


def test_a_status_stays_one_line_of_bounded_length(manager: tuple[socket.socket, str]) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager[1]})
    notifier.status("bad\nREADY=1 " + "x" * 1000)
    (line,) = manager[0].recv(4096).decode().splitlines()
    assert line.startswith("STATUS=bad READY=1 xxx")
    assert len(line) == len("STATUS=") + MAX_STATUS
    notifier.close()


def test_a_reload_carries_the_monotonic_clock(manager: tuple[socket.socket, str]) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager[1]})
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    message = dict(line.split("=", 1) for line in manager[0].recv(4096).decode().splitlines())
    assert before <= int(message["MONOTONIC_USEC"]) <= before + 5_000_000
    notifier.close()


@pytest.mark.parametrize("address", ["", "relative", "@", "/nowhere/at/all"])
def test_without_a_manager_nothing_is_sent_and_nothing_fails(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "junk"})
    notifier.ready("x")
    notifier.watchdog()
    assert notifier.watchdog_interval == 0
    notifier.close()


def test_a_watchdog_that_is_meant_for_another_process_is_not_ours(
    manager: tuple[socket.socket, str],
) -> None:
    environ = {"NOTIFY_SOCKET": manager[1], "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    notifier = Notifier(environ)
    assert notifier.watchdog_interval == 0
    notifier.close()


def test_a_manager_that_does_not_read_does_not_hold_us_up(
    manager: tuple[socket.socket, str],
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager[1]})
    started = time.monotonic()
    for _ in range(10_000):
        notifier.status("x" * 200)
    assert time.monotonic() - started < 5
    notifier.close()
