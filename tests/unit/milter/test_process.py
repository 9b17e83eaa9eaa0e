"""The worker's main thread, with the test as its supervisor and without libmilter."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from requiretls_milter.config import Config
from requiretls_milter.ipc import control
from requiretls_milter.ipc.child import EXIT_FAILURE, EXIT_OK, EXIT_ORPHAN, Start
from requiretls_milter.ipc.control import Channel
from requiretls_milter.milter import adapter, process, serving, threads
from requiretls_milter.milter.listener import Listener
from requiretls_milter.milter.process import CALLBACK_MARGIN
from tests.support.waiting import eventually


class Socket(Listener):
    """Notes that nothing is accepted any more."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.accepting = True

    def stop_accepting(self) -> None:
        self.accepting = False


class Worker:
    """A worker in a thread; what it says, and how it ends."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.line, theirs = control.pair()
        self.listener = Socket()
        self.libmilter_ends = threading.Event()
        self.connections = 0
        self.longest = 0.0
        self.heard: list[Mapping[str, Any]] = []
        self.status: int | None = None
        self.context: serving.WorkerContext | None = None
        self.config = Config.model_validate({"engine": {"socket": str(directory / "e.sock")}})
        monkeypatch.setattr(adapter, "serve", self._serve)
        monkeypatch.setattr(serving, "connections_open", lambda: self.connections)
        monkeypatch.setattr(serving, "longest_callback", lambda: self.longest)
        monkeypatch.setattr(process, "HEARTBEAT", 0.02)
        monkeypatch.setattr(process, "POLL", 0.01)
        monkeypatch.setattr(process, "take_log_settings", lambda _: None)
        start = Start("worker-1", self.config, 1, 7, Channel(theirs))
        self._ends = [theirs]
        self._thread = threading.Thread(target=self._run, args=(start,))
        self._thread.start()

    def _serve(self, context: serving.WorkerContext) -> None:
        self.context = context
        self.libmilter_ends.wait()

    def _run(self, start: Start) -> None:
        self.status = process.run(start, self.listener)

    def said(self, op: str, condition: Callable[[Mapping[str, Any]], bool] = bool) -> bool:
        self.heard += self.line.receive()
        return any(message["op"] == op and condition(message) for message in self.heard)

    def ended(self) -> int:
        self._thread.join(20)
        assert self.status is not None
        return self.status

    def close(self) -> None:
        self.libmilter_ends.set()
        self.line.close()
        self._thread.join(20)
        for end in self._ends:
            end.close()


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    one = Worker(tmp_path, monkeypatch)
    yield one
    one.close()


def test_heartbeats_tell_connections_and_health(worker: Worker) -> None:
    eventually(lambda: worker.said("heartbeat", lambda it: it["well"] and not it["problem"]))
    worker.connections = 3
    eventually(lambda: worker.said("heartbeat", lambda it: it["connections"] == 3))


def test_a_callback_beyond_the_longest_configured_wait_is_a_problem(worker: Worker) -> None:
    rules = worker.config.rules
    longest = max(rules.longest_decide_wait, rules.tag_wait) + CALLBACK_MARGIN
    worker.longest = longest - 0.1
    eventually(lambda: worker.said("heartbeat"))
    assert not worker.said("heartbeat", lambda it: not it["well"])
    worker.longest = longest + 0.1
    eventually(lambda: worker.said("heartbeat", lambda it: not it["well"]))
    assert worker.said("heartbeat", lambda it: it["problem"] == "a callback takes 15 s")


def test_a_worker_without_an_engine_is_not_ready(worker: Worker) -> None:
    eventually(lambda: worker.said("heartbeat"))
    assert not worker.said("ready")


def test_a_new_configuration_is_taken_and_acknowledged(worker: Worker) -> None:
    new = worker.config.model_copy(
        update={"milter": worker.config.milter.model_copy(update={"by": "new.example"})}
    )
    worker.line.send("config", generation=2, config=new.model_dump(mode="json"))
    eventually(lambda: worker.said("ack", lambda it: it["generation"] == 2 and not it["error"]))
    assert worker.context is not None
    assert worker.context.config.milter.by == "new.example"


def test_a_worker_that_drains_stops_to_accept_and_ends_with_its_last_connection(
    worker: Worker,
) -> None:
    worker.connections = 1
    worker.line.send("drain", seconds=60)
    eventually(lambda: worker.said("draining"))
    assert not worker.listener.accepting
    assert worker.status is None
    worker.connections = 0
    assert worker.ended() == EXIT_OK


def test_a_worker_that_drains_ends_when_its_time_is_over(worker: Worker) -> None:
    worker.connections = 1
    worker.line.send("drain", seconds=0.05)
    assert worker.ended() == EXIT_OK


def test_a_worker_ends_when_it_is_told_to(worker: Worker) -> None:
    worker.line.send("stop")
    assert worker.ended() == EXIT_OK


def test_a_worker_that_has_lost_its_supervisor_ends(worker: Worker) -> None:
    worker.line.close()
    assert worker.ended() == EXIT_ORPHAN


def test_a_worker_whose_libmilter_has_ended_is_a_failure(worker: Worker) -> None:
    worker.libmilter_ends.set()
    assert worker.ended() == EXIT_FAILURE


def test_threads_that_stand_still_beyond_those_that_wait_are_a_problem(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    eventually(lambda: worker.said("heartbeat", lambda it: it["threads"] > 1 and it["well"]))
    waiting = [100]
    monkeypatch.setattr(serving, "callbacks_waiting", lambda: waiting[0])
    monkeypatch.setattr(threads.Threads, "look", lambda self: setattr(self, "still", 141))
    eventually(lambda: worker.said("heartbeat", lambda it: not it["well"]))
    assert worker.said("heartbeat", lambda it: it["problem"].startswith("41 threads stand still"))
    worker.heard.clear()
    waiting[0] = 101
    eventually(lambda: worker.said("heartbeat", lambda it: it["well"]))
