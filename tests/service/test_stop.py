"""SIGTERM drains; what cannot start says why."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service.conftest import QUIET
from tests.support.milterclient import ProtocolError
from tests.support.processes import alive
from tests.support.service import Service
from tests.support.waiting import eventually

Make = Callable[..., Service]


def test_an_idle_service_stops_within_two_seconds_and_leaves_nothing(make: Make) -> None:
    service = make().start()
    family = service.family
    started = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - started < 2
    assert not any(map(alive, family))
    left = sorted(path.name for path in service.directory.iterdir())
    assert left == ["config.toml", "e.sock.lock", "log", "notify.sock"]


def test_a_transaction_that_runs_may_finish_while_nothing_new_is_taken(make: Make) -> None:
    service = make().start()
    with service.client() as client:
        client.mail("<alice@example.net>", "REQUIRETLS")
        client.rcpt("<bob@example.org>")
        service.send_signal(signal.SIGTERM)
        eventually(lambda: not service.socket_path.exists())
        assert not service.accepts
        time.sleep(1)
        client.data()
        client.header("Subject", " test")
        client.eoh()
        assert client.eom().passed
        assert "forecast=" in client.edits[0].value
        assert service.poll() is None
    finished = time.monotonic()
    assert service.wait() == 0
    assert time.monotonic() - finished < 2
    assert service.events("connections_cut") == []


def test_over_tcp_no_process_takes_a_connection_once_we_drain(make: Make) -> None:
    service = make(inet=True).start()
    with service.client() as client:
        client.mail("<alice@example.net>", "REQUIRETLS")
        client.rcpt("<bob@example.org>")
        service.send_signal(signal.SIGTERM)
        eventually(lambda: not service.accepts, wait=3)
        client.eoh()
        assert client.eom().passed
    assert service.wait() == 0


def test_a_connection_that_outlasts_drain_timeout_is_cut(make: Make) -> None:
    service = make(workers=1)
    service.configure(QUIET, milter="drain_timeout = 1")
    service.start()
    with service.client() as client:
        client.mail("<alice@example.net>", "REQUIRETLS")
        client.rcpt("<bob@example.org>")
        started = time.monotonic()
        assert service.stop() == 0
        assert 0.9 < time.monotonic() - started < 4
        assert service.events("connections_cut")[0]["connections"] == 1
        with pytest.raises((ProtocolError, OSError)):
            client.eom()


def test_the_first_interrupt_drains_and_the_second_ends_everything_at_once(make: Make) -> None:
    service = make().start()
    family = service.family
    with service.client() as client:
        client.mail("<alice@example.net>", "REQUIRETLS")
        client.rcpt("<bob@example.org>")
        os.killpg(service.pid, signal.SIGINT)  # as a terminal sends it: to all
        eventually(lambda: service.events("stopping"))
        time.sleep(0.5)
        assert service.poll() is None
        os.killpg(service.pid, signal.SIGINT)
        assert service.wait(2) == 130
    assert not any(map(alive, family))


def test_signals_to_the_whole_group_do_not_end_children_before_their_time(make: Make) -> None:
    service = make().start()
    before = service.children
    for pid in before.values():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
    time.sleep(0.5)
    assert service.children == before
    assert service.send()


def test_sigterm_before_the_service_is_ready_stops_it(make: Make) -> None:
    service = make().start(ready=False)
    eventually(lambda: service.events("started"))
    assert service.stop() == 0
    assert not service.socket_path.exists()


def test_five_deaths_in_ten_seconds_end_the_service_and_close_the_socket(make: Make) -> None:
    service = make().start()
    family = set(service.family)
    while service.poll() is None:
        for name in service.children:
            if name.startswith("worker"):
                try:
                    family.add(service.kill(name))
                except (KeyError, ProcessLookupError):
                    continue
        time.sleep(0.05)
    assert service.poll() == 1
    (line,) = service.events("crash_loop")
    assert line["deaths"] == 5
    assert not any(map(alive, family))
    assert not service.socket_path.exists()
    assert not service.accepts


def test_a_second_instance_is_refused_and_the_first_goes_on(make: Make) -> None:
    first = make().start()
    second = make()
    for change in ("m.sock", "e.sock"):
        text = second.config_path.read_text()
        second.config_path.write_text(
            text.replace(str(second.directory / change), str(first.directory / change))
        )
        second.start(ready=False)
        assert second.wait() == 1
        assert second.events("cannot_start")
        second.config_path.write_text(text)
    assert first.send()
    assert first.http("/healthz") == "ok\n"


def test_a_bad_configuration_is_exit_status_two_with_every_mistake(make: Make) -> None:
    service = make()
    service.config_path.write_text("[milter]\nsokcet = 1\nworkers = -1\n")
    service.start(ready=False)
    assert service.wait() == 2
    assert "sokcet" in service.log_text
    assert "workers" in service.log_text


def test_a_metrics_port_that_is_taken_ends_the_start_at_once_and_says_so(make: Make) -> None:
    service = make()
    with socket.create_server(("127.0.0.1", service.metrics_port)):
        started = time.monotonic()
        service.start(ready=False)
        assert service.wait() == 1
        assert time.monotonic() - started < 5
    (line,) = service.events("cannot_start")
    assert str(service.metrics_port) in line["error"]
    assert "READY=1" not in service.manager.messages


def test_a_directory_that_is_missing_is_named(make: Make) -> None:
    service = make()
    text = service.config_path.read_text()
    service.config_path.write_text(text.replace("e.sock", "missing/e.sock"))
    service.start(ready=False)
    assert service.wait() == 1
    (line,) = service.events("cannot_start")
    assert "there is no directory" in line["error"]
    assert "/missing for the engine's socket (engine.socket)" in line["error"]


def test_the_engine_socket_is_for_our_own_user_alone(make: Make) -> None:
    service = make(workers=1).start()
    assert Path(service.engine_path).stat().st_mode & 0o777 == 0o600
