"""Each child of the supervisor, at its end of the channel."""

from __future__ import annotations

import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from requiretls_milter import config
from requiretls_milter.ipc import control
from requiretls_milter.ipc.child import EXIT_ORPHAN
from tests.service.conftest import QUIET
from tests.support.service import Service
from tests.support.waiting import PATIENCE, eventually

Make = Callable[..., Service]


class Lonely:
    """A child that runs alone, and our end of its line."""

    def __init__(self, kind: str, service: Service, *limits: str) -> None:
        self.channel, theirs = control.pair()
        with (service.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.service.lonely",
                    kind,
                    str(service.config_path),
                    str(theirs.fileno()),
                    *limits,
                ],
                pass_fds=[theirs.fileno()],
                stderr=log,
            )
        theirs.close()
        self.heard: list[Any] = []

    def hear(self, op: str, wait: float = PATIENCE) -> Any:
        """The next message of that kind."""
        end = time.monotonic() + wait
        with selectors.DefaultSelector() as selector:
            selector.register(self.channel, selectors.EVENT_READ)
            while True:
                for message in self.heard:
                    if message["op"] == op:
                        self.heard.remove(message)
                        return message
                assert selector.select(end - time.monotonic()), f"no {op}: {self.heard}"
                self.heard += self.channel.receive()

    def end(self) -> None:
        self.channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture
def lonely(make: Make) -> Iterator[Callable[..., Lonely]]:
    started: list[Lonely] = []

    def start(kind: str, service: Service, *limits: str) -> Lonely:
        started.append(Lonely(kind, service, *limits))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.mark.parametrize("kind", ["engine", "worker-1"])
def test_a_child_ends_with_the_line_whatever_the_kernel_does(
    make: Make, lonely: Callable[..., Lonely], kind: str
) -> None:
    service = make(workers=1)
    child = lonely(kind, service)
    child.hear("ready" if kind == "engine" else "heartbeat")
    child.channel.close()
    assert child.process.wait(5) == EXIT_ORPHAN
    assert service.events("supervisor_lost")


def test_a_worker_is_ready_once_the_engine_answers(
    make: Make, lonely: Callable[..., Lonely]
) -> None:
    service = make(workers=1)
    worker = lonely("worker-1", service)
    worker.hear("heartbeat")
    worker.hear("heartbeat")
    assert "ready" not in [message["op"] for message in worker.heard]
    engine = lonely("engine", service)
    engine.hear("ready")
    worker.hear("ready")


def test_a_worker_tells_of_connections_and_of_a_callback_that_takes_too_long(
    make: Make, lonely: Callable[..., Lonely]
) -> None:
    service = make(workers=1)
    service.configure(QUIET + "[rules]\ndecide_wait = 0.1\ntag_wait = 3\n")
    # An engine's socket that takes questions and answers none.
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(service.engine_path))
        silent.listen()
        worker = lonely("worker-1", service, "CALLBACK_MARGIN=-2.5")
        worker.hear("ready")
        beat = worker.hear("heartbeat")
        assert beat["threads"] > 1
        assert {**beat, "threads": 0} == {
            "op": "heartbeat",
            "well": True,
            "problem": "",
            "connections": 0,
            "threads": 0,
        }
        with service.client() as client, ThreadPoolExecutor() as mta:
            mta.submit(
                client.message, "<a@example.net>", ["<b@example.org>"], parameters=["REQUIRETLS"]
            )
            beat = eventually(lambda: (now := worker.hear("heartbeat")) and now["problem"] and now)
        assert not beat["well"]
        assert beat["connections"] == 1
        assert beat["problem"].startswith("a callback takes")
        eventually(lambda: worker.hear("heartbeat")["well"])


def test_an_engine_that_cannot_start_says_why_and_ends(
    make: Make, lonely: Callable[..., Lonely]
) -> None:
    service = make()
    with socket.create_server(("127.0.0.1", service.metrics_port)):
        engine = lonely("engine", service)
        assert str(service.metrics_port) in engine.hear("failed")["error"]
        assert engine.process.wait(5) == 1


def test_an_engine_refuses_a_socket_at_which_another_one_listens(
    make: Make, lonely: Callable[..., Lonely]
) -> None:
    service = make()
    lonely("engine", service).hear("ready")
    second = make()
    second.config_path.write_text(
        second.config_path.read_text().replace(str(second.engine_path), str(service.engine_path))
    )
    assert "another process listens there" in lonely("engine", second).hear("failed")["error"]


def test_an_engine_acknowledges_a_configuration_and_refuses_one_that_it_cannot_use(
    make: Make, lonely: Callable[..., Lonely]
) -> None:
    service = make()
    engine = lonely("engine", service)
    engine.hear("ready")
    settings = config.load(service.config_path).model_dump(mode="json")
    settings["probe"]["ca_file"] = "/nowhere/ca.pem"
    engine.channel.send("config", generation=2, config=settings)
    answer = engine.hear("ack")
    assert answer["generation"] == 2
    assert "/nowhere/ca.pem" in answer["error"]
    settings["probe"]["ca_file"] = ""
    engine.channel.send("config", generation=3, config=settings)
    assert engine.hear("ack") == {"op": "ack", "generation": 3, "error": ""}


def test_an_engine_told_to_stop_ends_well_and_takes_its_socket_along(
    make: Make, lonely: Callable[..., Lonely]
) -> None:
    service = make()
    engine = lonely("engine", service)
    engine.hear("ready")
    engine.channel.send("stop")
    assert engine.process.wait(5) == 0
    assert not service.engine_path.exists()


def test_a_worker_does_not_know_the_network() -> None:
    """What reads hostile SMTP needs none of it, and libmilter's threads could not bear it."""
    program = (
        "import sys; import requiretls_milter.service.supervisor, requiretls_milter.milter.process;"
        "print(*sys.modules)"
    )
    modules = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    unwanted = (
        "dns",
        "aiohttp",
        "OpenSSL",
        "cryptography",
        "prometheus_client",
        "sqlite3",
        "redis",
    )
    assert [name for name in modules if name.partition(".")[0] in unwanted] == []
