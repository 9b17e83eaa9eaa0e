"""What systemd is told."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from requiretls_milter.service.sdnotify import MAX_STATUS, ServiceManager


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
    notifier = ServiceManager(environ)
    assert environ == {"OTHER": "x"}
    assert notifier.enabled
    assert notifier.watchdog_interval == 30
    notifier.close()


def test_an_abstract_notify_socket_is_spoken_to() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0requiretls-milter-test")
        notifier = ServiceManager({"NOTIFY_SOCKET": "@requiretls-milter-test"})
        notifier.ready("serving")
        assert listener.recv(100) == b"READY=1\nSTATUS=serving"
        notifier.close()


def test_a_status_stays_one_line_of_bounded_length(manager: tuple[socket.socket, str]) -> None:
    notifier = ServiceManager({"NOTIFY_SOCKET": manager[1]})
    notifier.status("bad\nREADY=1 " + "x" * 1000)
    (line,) = manager[0].recv(4096).decode().splitlines()
    assert line.startswith("STATUS=bad READY=1 xxx")
    assert len(line) == len("STATUS=") + MAX_STATUS
    notifier.close()


def test_a_reload_carries_the_monotonic_clock(manager: tuple[socket.socket, str]) -> None:
    notifier = ServiceManager({"NOTIFY_SOCKET": manager[1]})
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    message = dict(line.split("=", 1) for line in manager[0].recv(4096).decode().splitlines())
    assert before <= int(message["MONOTONIC_USEC"]) <= before + 5_000_000
    notifier.close()


@pytest.mark.parametrize("address", ["", "relative", "@", "/nowhere/at/all"])
def test_without_a_manager_nothing_is_sent_and_nothing_fails(address: str) -> None:
    notifier = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "junk"})
    notifier.ready("x")
    notifier.watchdog()
    assert notifier.watchdog_interval == 0
    notifier.close()


def test_a_watchdog_that_is_meant_for_another_process_is_not_ours(
    manager: tuple[socket.socket, str],
) -> None:
    environ = {"NOTIFY_SOCKET": manager[1], "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    notifier = ServiceManager(environ)
    assert notifier.watchdog_interval == 0
    notifier.close()


def test_a_manager_that_does_not_read_does_not_hold_us_up(
    manager: tuple[socket.socket, str],
) -> None:
    notifier = ServiceManager({"NOTIFY_SOCKET": manager[1]})
    started = time.monotonic()
    for _ in range(10_000):
        notifier.status("x" * 200)
    assert time.monotonic() - started < 5
    notifier.close()
