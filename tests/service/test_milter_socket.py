"""The milter's socket: where it stands, who may use it, and whose it is."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.milterclient import CONTINUE
from tests.support.milterprocess import MilterProcess
from tests.support.processes import free_port
from tests.support.waiting import eventually

Serve = Callable[..., MilterProcess]


def refusal(milter: MilterProcess) -> str:
    """What a milter says that did not start."""
    assert milter.process.returncode == 2
    return milter.log[-1]


def works(milter: MilterProcess) -> bool:
    with milter.client() as client:
        return client.message("<a@x.test>", ["<b@example.org>"]).end == CONTINUE


@pytest.mark.parametrize(
    ("config", "mode"),
    [("", 0o660), ('socket_mode = "0600"', 0o600), ('socket_mode = "666"', 0o666)],
)
def test_the_socket_has_the_configured_mode_whatever_the_umask(
    serve: Serve, config: str, mode: int
) -> None:
    before = os.umask(0o077)
    try:
        milter = serve(config)
    finally:
        os.umask(before)
    assert isinstance(milter.socket, str)
    assert stat.S_IMODE(os.stat(milter.socket).st_mode) == mode
    assert works(milter)


def steps(milter: MilterProcess) -> list[tuple[int, int]]:
    """Mode and group of the socket from the moment at which it is made, step by step."""
    lines = (milter.directory / "steps").read_text().splitlines()
    return [(int(mode, 8), int(group)) for mode, group in map(str.split, lines)]


def test_the_socket_is_open_to_nobody_before_it_has_its_mode(serve: Serve) -> None:
    before = os.umask(0)
    try:
        milter = serve('socket_mode = "0666"', watch_socket=True)
    finally:
        os.umask(before)
    modes = [mode for mode, _ in steps(milter)]
    assert modes[0] == 0o600
    assert set(modes) == {0o600, 0o666}
    assert modes == sorted(modes)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_the_socket_is_open_to_no_other_group_before_it_has_its_own(serve: Serve) -> None:
    group = next(entry for entry in grp.getgrall() if entry.gr_gid != os.getegid())
    user = next(entry for entry in pwd.getpwall() if entry.pw_uid != os.geteuid())
    milter = serve(
        f'socket_group = "{group.gr_name}"\nsocket_owner = "{user.pw_name}"', watch_socket=True
    )
    passed = steps(milter)
    assert passed[0] == (0o600, os.getegid())
    assert passed[-1] == (0o660, group.gr_gid)
    assert (0o660, os.getegid()) not in passed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_the_socket_belongs_to_the_configured_group(serve: Serve) -> None:
    group = next(entry for entry in grp.getgrall() if entry.gr_gid != os.getegid())
    milter = serve(f'socket_group = "{group.gr_name}"')
    assert isinstance(milter.socket, str)
    assert os.stat(milter.socket).st_gid == group.gr_gid


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
@pytest.mark.parametrize("by_number", [False, True])
def test_the_socket_belongs_to_the_configured_user(serve: Serve, by_number: bool) -> None:
    user = next(entry for entry in pwd.getpwall() if entry.pw_uid != os.geteuid())
    milter = serve(f'socket_owner = "{user.pw_uid if by_number else user.pw_name}"')
    assert isinstance(milter.socket, str)
    status = os.stat(milter.socket)
    assert (status.st_uid, status.st_gid) == (user.pw_uid, os.getegid())
    assert works(milter)


def test_a_user_that_does_not_exist_is_told(serve: Serve) -> None:
    milter = serve('socket_owner = "no-such-user"', expect_failure=True)
    assert "there is no user no-such-user" in refusal(milter)


def test_a_group_that_does_not_exist_is_told(serve: Serve) -> None:
    milter = serve('socket_group = "no-such-group"', expect_failure=True)
    assert "there is no group no-such-group" in refusal(milter)


def test_a_socket_that_a_dead_process_left_behind_is_removed(serve: Serve, tmp_path: Path) -> None:
    path = f"{tmp_path}/m.sock"
    first = serve(socket=f"unix:{path}")
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    assert stat.S_ISSOCK(os.lstat(path).st_mode)
    assert works(serve(socket=f"unix:{path}"))


def test_a_second_instance_is_refused_and_the_first_one_goes_on(
    serve: Serve, tmp_path: Path
) -> None:
    path = f"{tmp_path}/m.sock"
    first = serve(socket=f"unix:{path}")
    second = serve(socket=f"unix:{path}", expect_failure=True)
    assert f"cannot open {path}: another process listens there" in refusal(second)
    assert works(first)


def test_what_is_no_socket_is_left_alone(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    path.write_text("precious")
    milter = serve(socket=f"unix:{path}", expect_failure=True)
    assert "something that is no socket stands there" in refusal(milter)
    assert path.read_text() == "precious"


def test_a_symbolic_link_is_not_followed(serve: Serve, tmp_path: Path) -> None:
    target = tmp_path / "target"
    path = tmp_path / "m.sock"
    path.symlink_to(target)
    milter = serve(socket=f"unix:{path}", expect_failure=True)
    assert "no socket stands there" in refusal(milter)
    assert not target.exists()


def test_a_missing_directory_is_told(serve: Serve, tmp_path: Path) -> None:
    milter = serve(socket=f"unix:{tmp_path}/missing/m.sock", expect_failure=True)
    assert f"there is no directory {tmp_path}/missing" in refusal(milter)


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory with a short path."""
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("length", [106, 107])
def test_a_path_has_as_many_bytes_as_libmilter_takes(serve: Serve, base: Path, length: int) -> None:
    directory = base / ("d" * (length - len(str(base)) - len("//m.sock")))
    directory.mkdir()
    path = f"{directory}/m.sock"
    assert len(path) == length
    if length == 106:
        assert works(serve(socket=f"unix:{path}"))
    else:
        milter = serve(socket=f"unix:{path}", expect_failure=True)
        assert "a socket's path has at most 106 bytes" in refusal(milter)


def test_tcp_works_and_a_tag_costs_no_delayed_acknowledgement(serve: Serve) -> None:
    script = {"*": {"status": "2.0.0", "reason": "ok", "compliant": True}}
    milter = serve("", script, socket=f"inet:{free_port()}@127.0.0.1")
    with milter.client() as client:
        started = time.monotonic()
        for _ in range(50):
            outcome = client.message("<a@x.test>", ["<b@example.org>"], parameters=["REQUIRETLS"])
            assert len(outcome.edits) == 1
        assert (time.monotonic() - started) / 50 < 0.02  # 44 ms with Nagle's algorithm


def test_inet6_works(serve: Serve) -> None:
    milter = serve(socket=f"inet6:{free_port()}@[::1]")
    assert "listening" in (milter.directory / "log").read_text()


def test_a_port_that_is_taken_is_told(serve: Serve) -> None:
    where = f"inet:{free_port()}@127.0.0.1"
    first = serve(socket=where)
    second = serve(socket=where, expect_failure=True)
    assert f"cannot open {where}: Address already in use" in refusal(second)
    assert works(first)


def test_an_address_that_is_not_ours_is_told(serve: Serve) -> None:
    milter = serve(socket="inet:8894@192.0.2.1", expect_failure=True)
    assert "cannot open inet:8894@192.0.2.1: " in refusal(milter)


def test_a_process_that_is_told_to_stop_ends_within_seven_seconds(serve: Serve) -> None:
    milter = serve()
    with milter.client() as client:
        client.mail("<a@x.test>")
        started = time.monotonic()
        assert milter.stop() == 0
        assert time.monotonic() - started < 7
    eventually(lambda: milter.process.poll() == 0)
