"""When the supervisor looks for the files of its sockets, and what it does if they are gone."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from requiretls_milter import config
from requiretls_milter.ipc.unixsocket import LOOK, SocketFile
from requiretls_milter.milter.listener import Listener
from requiretls_milter.service.lockfile import LockFile
from requiretls_milter.service.sockets import DIRECTORY_GONE, Sockets
from tests.unit.service.conftest import Family

Make = Callable[..., Family]


class Place:
    """A milter's socket and a lock in a directory, and the workers that are told of it."""

    def __init__(self, directory: Path, family: Family, lock: LockFile) -> None:
        self.path = directory / "m.sock"
        self.family = family
        self.lost = 0
        self.lock = lock
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(self.path))
        self._socket.listen(1)
        self._listener = Listener(self._socket.fileno(), SocketFile.at(str(self.path)))

    def sockets(self, environ: Mapping[str, str] | None = None) -> Sockets:
        text = f'[milter]\nsocket = "unix:{self.path}"\n'
        settings = config.parse(text.encode(), "config.toml").milter
        return Sockets(
            self._listener,
            self.lock,
            self.family.children,
            lambda: settings,
            self.count,
            environ or {},
        )

    def count(self) -> None:
        self.lost += 1

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def place(tmp_path: Path, family: Make) -> Iterator[Place]:
    with (
        contextlib.closing(LockFile(f"{tmp_path}/e.sock")) as lock,
        contextlib.closing(Place(tmp_path, family(workers=2), lock)) as one,
    ):
        yield one


def test_a_lost_socket_is_opened_anew_at_the_next_look_and_all_workers_get_it(place: Place) -> None:
    sockets = place.sockets()
    assert not sockets.step(100.0)
    place.path.unlink()
    assert not sockets.step(100.0 + LOOK - 0.1)
    assert not place.path.exists(), "it is not yet time to look"
    assert not sockets.step(100.0 + LOOK)
    assert place.path.exists()
    assert sockets.in_place
    assert place.lost == 1
    for worker in ("worker-1", "worker-2"):
        assert place.family.told(worker) == [{"op": "socket"}]
    assert place.family.told("engine") == []
    sockets.remove()
    assert not place.path.exists()


def test_while_another_program_listens_the_service_says_so_and_goes_on(place: Place) -> None:
    sockets = place.sockets()
    place.path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(place.path))
        other.listen(1)
        for turn in range(10):
            assert not sockets.step(100.0 + turn)
        in_place = [sockets.in_place]
        sockets.remove()
        assert place.path.exists(), "it is the other program's"
    assert not sockets.step(110.0)
    assert [*in_place, sockets.in_place] == [False, True]
    assert place.lost == 1


def test_only_without_a_runtime_directory_is_a_new_start_needed(
    place: Place, tmp_path: Path
) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    sockets = place.sockets({"RUNTIME_DIRECTORY": f"{tmp_path}:{runtime}"})
    assert not sockets.step(100.0)
    runtime.rmdir()
    assert not sockets.step(110.0)
    assert not sockets.step(110.0 + DIRECTORY_GONE - 0.5)
    runtime.mkdir()
    assert not sockets.step(120.0)
    runtime.rmdir()
    assert not sockets.step(130.0)
    assert sockets.step(130.0 + DIRECTORY_GONE)


def test_over_tcp_there_is_no_file_to_be_lost(place: Place) -> None:
    sockets = Sockets(Listener(-1), place.lock, place.family.children, config.Milter, place.count)
    assert not sockets.step(100.0)
    assert sockets.in_place
    sockets.remove()
    assert place.lost == 0
