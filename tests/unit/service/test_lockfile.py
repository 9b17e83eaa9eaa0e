"""The lock that keeps a second instance away, also when its file was removed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from requiretls_milter.ipc.unixsocket import SocketError
from requiretls_milter.service.lockfile import LockFile


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[LockFile]:
    with contextlib.closing(LockFile(f"{tmp_path}/e.sock")) as one:
        yield one


def test_a_second_instance_is_kept_away(lock: LockFile, tmp_path: Path) -> None:
    with pytest.raises(SocketError, match="another instance holds this lock"):
        LockFile(f"{tmp_path}/e.sock")


def test_a_file_that_was_left_behind_is_locked(tmp_path: Path) -> None:
    LockFile(f"{tmp_path}/e.sock").close()
    assert (tmp_path / "e.sock.lock").exists()
    LockFile(f"{tmp_path}/e.sock").close()


def test_a_lock_whose_file_is_removed_or_replaced_is_made_anew(
    lock: LockFile, tmp_path: Path
) -> None:
    path = Path(lock.path)
    for replaced in (False, True):
        path.unlink()
        if replaced:
            path.touch()
        lock.keep()
        with pytest.raises(SocketError, match="another instance holds this lock"):
            LockFile(f"{tmp_path}/e.sock")


def test_a_lock_that_another_instance_has_taken_meanwhile_is_left_to_it(
    lock: LockFile, tmp_path: Path
) -> None:
    Path(lock.path).unlink()
    other = LockFile(f"{tmp_path}/e.sock")
    lock.keep()
    lock.keep()
    other.close()
    lock.keep()
    with pytest.raises(SocketError):
        LockFile(f"{tmp_path}/e.sock")


def test_a_missing_directory_is_waited_for(lock: LockFile, tmp_path: Path) -> None:
    away = tmp_path.with_name(f"{tmp_path.name}.away")
    tmp_path.rename(away)
    lock.keep()
    away.rename(tmp_path)
    lock.keep()
    with pytest.raises(SocketError):
        LockFile(f"{tmp_path}/e.sock")
