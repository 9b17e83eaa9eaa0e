"""A path for a listening socket: cleared if nobody listens there, refused if in use."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from requiretls_milter.ipc.unixsocket import SocketError, clear_path, listen
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
