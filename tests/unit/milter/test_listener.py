"""The listening socket, without libmilter: what is around it."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from requiretls_milter import config
from requiretls_milter.ipc.unixsocket import SocketError, SocketFile
from requiretls_milter.milter.listener import (
    Listener,
    check_address,
    listening,
    set_permissions,
)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket that listens at ``m.sock``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.bind(str(tmp_path / "m.sock"))
        one.listen(1)
        yield one


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(2)
        try:
            caller.connect(str(path))
        except ConnectionRefusedError:
            return False
        return True


# ---------------------------------------------------------------- address, permissions


def test_a_free_address_is_fine_and_one_that_is_taken_or_foreign_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SocketError, match=f"inet:{port}@127.0.0.1: Address already in use"):
            check_address("inet", "127.0.0.1", port)
    check_address("inet", "127.0.0.1", port)
    with pytest.raises(SocketError, match=r"cannot open inet:8894@192\.0\.2\.1: "):
        check_address("inet", "192.0.2.1", 8894)


def test_the_mode_is_set_and_unknown_names_are_told(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    path.touch()
    set_permissions(str(path), owner="", group=str(os.getegid()), mode=0o642)
    assert stat.S_IMODE(path.stat().st_mode) == 0o642
    with pytest.raises(SocketError, match="there is no user no-such-user"):
        set_permissions(str(path), owner="no-such-user", group="", mode=0o600)
    with pytest.raises(SocketError, match="there is no group no-such-group"):
        set_permissions(str(path), owner="", group="no-such-group", mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o642, "nothing was changed in part"


# ---------------------------------------------------------------- the descriptor


def test_listening_sockets_are_told_from_other_descriptors(served: socket.socket) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other,
        Path(os.devnull).open() as file,
    ):
        found = listening()
        assert served.fileno() in found
        assert not found & {other.fileno(), file.fileno()}


def test_a_process_that_stops_accepting_leaves_the_socket_to_the_others(
    tmp_path: Path, served: socket.socket
) -> None:
    """The other process is played by a duplicate of the descriptor."""
    path = tmp_path / "m.sock"
    with socket.socket(fileno=os.dup(served.fileno())) as other:
        Listener(served.fileno()).stop_accepting()
        assert connects(path)
        other.accept()[0].close()
        served.setblocking(False)
        with pytest.raises(BlockingIOError):
            served.accept()
    assert not connects(path), "no process has it any more"


def test_refused_connections_are_refused_for_all_processes_at_once(
    tmp_path: Path, served: socket.socket
) -> None:
    path = tmp_path / "m.sock"
    with socket.socket(fileno=os.dup(served.fileno())):
        Listener(served.fileno()).refuse_connections()
        assert not connects(path)
    Listener(served.fileno()).refuse_connections()


# ---------------------------------------------------------------- the file


def settings(path: Path, **more: str) -> config.Milter:
    return config.parse(
        "".join(
            ["[milter]\n", f'socket = "unix:{path}"\n']
            + [f'{key} = "{value}"\n' for key, value in more.items()]
        ).encode(),
        "config.toml",
    ).milter


def test_a_socket_opened_anew_is_reached_by_the_same_descriptor_and_has_its_mode(
    tmp_path: Path, served: socket.socket
) -> None:
    path = tmp_path / "m.sock"
    listener = Listener(served.fileno(), SocketFile.at(str(path)))
    before = listener.file
    path.unlink()
    assert not path.exists()
    listener.open_anew(settings(path, socket_mode="0606"))
    assert listener.fileno() == served.fileno()
    assert listener.file not in (None, before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o606
    assert connects(path)
    served.accept()[0].close()
    with pytest.raises(BlockingIOError):
        served.accept()


def test_a_socket_that_cannot_be_opened_anew_leaves_the_former_one(
    tmp_path: Path, served: socket.socket
) -> None:
    path = tmp_path / "m.sock"
    listener = Listener(served.fileno(), SocketFile.at(str(path)))
    before = listener.file
    for trouble in ("another process listens there", "there is no user no-such-user"):
        with pytest.raises(SocketError, match=trouble):
            listener.open_anew(settings(path, socket_owner="no-such-user"))
        path.unlink()
    assert listener.file == before


def test_a_worker_accepts_from_the_socket_that_it_is_given(
    tmp_path: Path, served: socket.socket
) -> None:
    path = tmp_path / "new.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as new:
        new.bind(str(path))
        new.listen(1)
        Listener(served.fileno()).replace(os.dup(new.fileno()))
    assert connects(path)
    served.accept()[0].close()
