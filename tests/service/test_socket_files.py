"""The files of our sockets, while others remove them, replace them or put theirs there."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from requiretls_milter.ipc import query
from tests.support.milterclient import CONTINUE, MilterClient
from tests.support.service import Service
from tests.support.waiting import eventually

Make = Callable[..., Service]

SECONDS = 5.0
"""Within which a loss is noticed and mended; libmilter may take as long again to accept."""


def identity(path: Path) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def lost(service: Service, which: str) -> float:
    return service.metric(f'sockets_lost_total{{socket="{which}"}}')


@contextmanager
def another_program(path: Path) -> Iterator[socket.socket]:
    """A program that takes the path for its own socket, as libmilter itself does it."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(8)
        yield listener


def ends(client: MilterClient) -> bool:
    """Whether the rest of a message passes whose recipient has been taken."""
    client.data()
    client.header("Subject", " test")
    client.eoh()
    return client.eom().passed


def test_a_milter_socket_that_a_cleaner_removes_is_there_again_and_no_connection_is_cut(
    make: Make,
) -> None:
    service = make().start()
    before = service.children
    with service.client() as client:
        client.mail("<alice@example.net>", "REQUIRETLS")
        assert client.rcpt("<bob@example.org>") == CONTINUE
        service.socket_path.unlink()
        eventually(service.socket_path.exists, wait=SECONDS)
        assert ends(client)
    for _ in range(8):  # each worker takes some of them
        assert service.send()
    assert service.children == before
    (line,) = service.events("socket_lost")
    assert line["socket"] == str(service.socket_path)
    assert line["found"] == "nothing"
    assert service.events("socket_restored")
    eventually(lambda: lost(service, "milter") == 1)
    assert service.stop() == 0
    assert not service.socket_path.exists()


def test_the_new_socket_has_the_mode_of_the_former_one(make: Make) -> None:
    service = make()
    service.configure(milter='socket_mode = "0606"')
    service.start()
    for _ in range(2):
        gone = identity(service.socket_path)
        service.socket_path.unlink()
        eventually(service.socket_path.exists, wait=SECONDS)
        eventually(lambda: service.socket_path.stat().st_mode & 0o777 == 0o606)
        assert identity(service.socket_path) != gone
    assert service.send()


def test_a_worker_that_is_replaced_later_has_the_new_socket_too(make: Make) -> None:
    service = make(workers=1).start()
    service.socket_path.unlink()
    eventually(lambda: service.events("socket_restored"), wait=SECONDS)
    pid = service.kill("worker-1")
    service.replaced("worker-1", pid)
    assert service.send()


def test_an_engine_socket_that_is_removed_is_there_again(make: Make) -> None:
    service = make().start()
    before = service.children
    service.engine_path.unlink()
    eventually(service.engine_path.exists, wait=SECONDS)
    assert service.engine_path.stat().st_mode & 0o777 == 0o600
    assert service.send()
    assert query.status(str(service.engine_path)).pid == before["engine"]
    pid = service.kill("worker-1")  # one that comes later finds it
    service.replaced("worker-1", pid)
    assert service.children["engine"] == before["engine"]
    eventually(lambda: lost(service, "engine") == 1)
    assert lost(service, "milter") == 0
    assert service.stop() == 0
    assert not service.engine_path.exists()


def test_a_socket_of_another_program_is_neither_used_nor_removed(make: Make) -> None:
    service = make().start()
    with another_program(service.socket_path), another_program(service.engine_path):
        theirs = [identity(service.socket_path), identity(service.engine_path)]
        eventually(lambda: len(service.events("socket_lost")) == 2, wait=SECONDS)
        eventually(lambda: len(service.events("socket_not_restored")) == 2, wait=SECONDS)
        assert all(line["found"] == "another socket" for line in service.events("socket_lost"))
        assert all(
            "another process listens there" in line["error"]
            for line in service.events("socket_not_restored")
        )
        assert service.stop() == 0
        assert [identity(service.socket_path), identity(service.engine_path)] == theirs


def test_when_the_other_program_has_ended_the_socket_is_ours_again(make: Make) -> None:
    service = make().start()
    with another_program(service.socket_path):
        eventually(lambda: service.events("socket_not_restored"), wait=SECONDS)
    eventually(lambda: service.events("socket_restored"), wait=SECONDS)
    assert service.send()
    assert len(service.events("socket_lost")) == 1
    assert len(service.events("socket_not_restored")) == 1


def test_a_service_that_is_killed_in_part_removes_only_what_is_its_own(make: Make) -> None:
    """The engine is killed while the service ends: its file is removed for it, not another one."""
    service = make().start()
    with another_program(service.engine_path):
        theirs = identity(service.engine_path)
        os.killpg(service.pid, signal.SIGINT)
        os.killpg(service.pid, signal.SIGINT)  # at once: all children are killed
        service.wait()
        assert identity(service.engine_path) == theirs
    again = make().start()
    os.killpg(again.pid, signal.SIGINT)
    eventually(lambda: again.events("stopping"))
    os.killpg(again.pid, signal.SIGINT)
    again.wait()
    assert not again.engine_path.exists()
    assert not again.socket_path.exists()


def test_a_directory_that_comes_back_has_its_sockets_again(make: Make) -> None:
    service = make()
    place = service.directory / "run"
    place.mkdir()
    service.socket_path = place / "m.sock"
    service.configure()
    service.start()
    shutil.rmtree(place)
    eventually(lambda: service.events("socket_not_restored"), wait=SECONDS)
    assert "there is no directory" in service.events("socket_not_restored")[0]["error"]
    assert service.poll() is None
    place.mkdir()
    eventually(service.socket_path.exists, wait=SECONDS)
    assert service.send()


def test_without_the_runtime_directory_the_service_ends_so_that_it_is_started_anew(
    make: Make, tmp_path: Path
) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    service = make(
        environ={"RUNTIME_DIRECTORY": str(runtime)}, limits={"service.sockets.DIRECTORY_GONE": 0.5}
    )
    service.start()
    with service.client() as client:
        client.mail("<alice@example.net>", "REQUIRETLS")
        assert client.rcpt("<bob@example.org>") == CONTINUE
        runtime.rmdir()
        eventually(lambda: service.events("runtime_directory_gone"), wait=SECONDS)
        assert ends(client), "it drains first"
    assert service.wait() == 1, "Restart=on-failure"
    assert not service.socket_path.exists()


def test_a_lock_that_is_removed_still_keeps_a_second_instance_away(make: Make) -> None:
    first = make().start()
    lock = Path(f"{first.engine_path}.lock")
    lock.unlink()
    eventually(lambda: first.events("lock_lost"), wait=SECONDS)
    eventually(lock.exists, wait=SECONDS)
    second = make()
    second.engine_path = first.engine_path
    second.configure()
    second.start(ready=False)
    assert second.wait() == 1
    (line,) = second.events("cannot_start")
    assert "another instance holds this lock" in line["error"]


@pytest.mark.parametrize("which", ["milter", "engine"])
def test_a_dead_socket_in_its_place_is_replaced(make: Make, which: str) -> None:
    service = make().start()
    path = service.socket_path if which == "milter" else service.engine_path
    with another_program(path):
        pass
    eventually(lambda: service.events("socket_restored"), wait=SECONDS)
    assert service.send()
    eventually(lambda: lost(service, which) == 1)
