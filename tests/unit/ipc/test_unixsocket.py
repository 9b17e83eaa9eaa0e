"""A path for a listening socket: cleared if nobody listens there, refused if in use."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from requiretls_milter.ipc.unixsocket import (
    SocketError,
    SocketFile,
    SocketGuard,
    clear_path,
    listen,
)
from requiretls_milter.syntax.endpoint import MAX_UNIX_PATH


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rtls-") as directory:
        yield Path(directory) / "e.sock"


def test_a_socket_that_a_dead_process_left_behind_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listen(str(path), 1), socket.socket(socket.AF_UNIX) as caller:
        assert caller.connect_ex(str(path)) == 0


def test_a_socket_on_which_a_process_listens_is_not_taken_over(path: Path) -> None:
    with listen(str(path), 1), pytest.raises(SocketError, match="another process listens there"):
        listen(str(path), 1)


def test_a_socket_whose_queue_is_full_is_in_use(path: Path) -> None:
    with listen(str(path), 0), socket.socket(socket.AF_UNIX) as first:
        first.connect(str(path))
        with pytest.raises(SocketError, match="another process listens there"):
            clear_path(str(path))


def test_a_file_is_never_removed(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(SocketError, match="no socket"):
        listen(str(path), 1)
    assert path.read_text() == "precious"


def test_a_symbolic_link_is_never_removed(path: Path) -> None:
    path.symlink_to("/nowhere")
    with pytest.raises(SocketError, match="no socket"):
        listen(str(path), 1)
    assert path.is_symlink()


def test_a_directory_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(SocketError, match=r"there is no directory .*/missing"):
        listen(str(path.parent / "missing" / "e.sock"), 1)


def test_a_path_that_is_too_long_is_refused(path: Path) -> None:
    long = str(path.parent / "x").ljust(MAX_UNIX_PATH, "x")
    clear_path(long)
    with pytest.raises(SocketError, match=f"at most {MAX_UNIX_PATH} bytes"):
        clear_path(long + "x")
    with pytest.raises(SocketError, match="at most 20 bytes"):
        clear_path(long, 20)


def test_the_socket_is_for_our_user_alone_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        with listen(str(path), 1):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert os.umask(0) == 0
    finally:
        os.umask(before)


# ---------------------------------------------------------------- the file, and its loss


class Log:
    """Notes events."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def error(self, event: str, **_: object) -> None:
        self.events.append(event)

    warning = error


@pytest.fixture
def guarded(path: Path) -> Iterator[tuple[SocketGuard, Log, list[int]]]:
    """A socket with its guard, what was logged, and the losses."""
    log, lost, listeners = Log(), [0], [listen(str(path), 1)]

    def make() -> SocketFile:
        listeners.append(listen(str(path), 1))
        return SocketFile.at(str(path))

    def count() -> None:
        lost[0] += 1

    yield SocketGuard(SocketFile.at(str(path)), make, count, log), log, lost
    for listener in listeners:
        listener.close()


def test_a_file_is_known_by_its_inode(path: Path) -> None:
    with listen(str(path), 1):
        file = SocketFile.at(str(path))
        assert file.found() == ""
        path.unlink()
        assert file.found() == "nothing"
        path.touch()
        assert file.found() == "no socket"
        path.unlink()
        with listen(str(path), 1):
            assert file.found() == "another socket"
            file.remove()
            assert path.exists(), "it is another one's"
            SocketFile.at(str(path)).remove()
            assert not path.exists()
            file.remove()


def test_a_file_that_is_gone_at_once_cannot_be_watched(path: Path) -> None:
    with pytest.raises(SocketError, match="No such file"):
        SocketFile.at(str(path))


def test_a_guard_makes_a_lost_socket_anew_and_tells_each_loss_once(
    path: Path, guarded: tuple[SocketGuard, Log, list[int]]
) -> None:
    guard, log, lost = guarded
    guard.look()
    assert (guard.in_place, log.events) == (True, [])
    for losses in (1, 2):
        path.unlink()
        guard.look()
        guard.look()
        assert guard.in_place
        assert lost == [losses]
        with socket.socket(socket.AF_UNIX) as caller:
            assert caller.connect_ex(str(path)) == 0
    assert log.events == ["socket_lost", "socket_restored"] * 2


def test_a_guard_waits_for_the_end_of_another_program(
    path: Path, guarded: tuple[SocketGuard, Log, list[int]]
) -> None:
    guard, log, lost = guarded
    path.unlink()
    in_place = []
    with listen(str(path), 1):
        for _ in range(3):
            guard.look()
            in_place.append(guard.in_place)
    guard.look()
    assert [*in_place, guard.in_place] == [False, False, False, True]
    assert lost == [1]
    assert log.events == ["socket_lost", "socket_not_restored", "socket_restored"]


def test_a_guard_tells_another_reason_why_it_cannot(
    path: Path, guarded: tuple[SocketGuard, Log, list[int]]
) -> None:
    guard, log, _ = guarded
    path.unlink()
    path.write_text("precious")
    guard.look()
    path.unlink()
    path.parent.rename(f"{path.parent}.away")
    guard.look()
    guard.look()
    assert log.events == ["socket_lost", "socket_not_restored", "socket_not_restored"]
    Path(f"{path.parent}.away").rename(path.parent)


def test_a_file_that_comes_back_by_itself_is_in_place(
    path: Path, guarded: tuple[SocketGuard, Log, list[int]]
) -> None:
    guard, log, _ = guarded
    path.rename(f"{path}.away")
    path.write_text("in its place")
    guard.look()
    in_place = [guard.in_place]
    Path(f"{path}.away").rename(path)
    guard.look()
    assert [*in_place, guard.in_place] == [False, True]
    assert log.events == ["socket_lost", "socket_not_restored"]
