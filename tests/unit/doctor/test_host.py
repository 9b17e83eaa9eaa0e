"""What ``doctor`` says of this host: the milter's socket, the MTA that runs, port 25."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from requiretls_milter.config import Config
from requiretls_milter.doctor import host
from requiretls_milter.doctor.attachment import attachments
from requiretls_milter.doctor.finding import Severity
from tests.support.postfixes import postfix, service
from tests.unit.doctor.examined import GID, OTHER, UID
from tests.unit.doctor.greeter import server_that_says


def configured(**sections: dict[str, Any]) -> Config:
    return Config.model_validate(sections)


# ---------------------------------------------------------------- the milter's socket


@contextmanager
def listening(path: Path, answer: bytes | None) -> Iterator[None]:
    """A listener that answers anything with *answer*; None: not at all."""
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(path))
        server.listen()
        done = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                if answer is None:
                    done.wait(10)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def at(path: Path) -> Config:
    return configured(milter={"socket": f"unix:{path}"})


def test_a_milter_that_negotiates_is_there(tmp_path: Path) -> None:
    with listening(tmp_path / "m", b"\0\0\0\x0dO\0\0\0\x06" + b"\0" * 8):
        assert host.milter_answers(at(tmp_path / "m")).severity is Severity.OK


def test_another_listener_on_the_socket_is_no_milter(tmp_path: Path) -> None:
    with listening(tmp_path / "m", b"220 hello\r\n"):
        assert "no milter" in host.milter_answers(at(tmp_path / "m")).found
    with listening(tmp_path / "n", b""):
        assert "no milter" in host.milter_answers(at(tmp_path / "n")).found


def test_a_milter_that_is_stuck_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "ANSWER_TIMEOUT", 0.1)
    with listening(tmp_path / "m", None):
        assert "does not answer" in host.milter_answers(at(tmp_path / "m")).found


def test_no_milter_is_an_error(tmp_path: Path) -> None:
    finding = host.milter_answers(at(tmp_path / "m"))
    assert (finding.severity, "No such file" in finding.found) == (Severity.ERROR, True)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    finding = host.milter_answers(configured(milter={"socket": f"inet:{port}@127.0.0.1"}))
    assert "refused" in finding.found


"""Of the user postfix in the root below, of its group, of a group that it was put into."""


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")
@pytest.mark.parametrize(
    ("owner", "group", "mode", "directory_mode", "closed"),
    [
        (0, GID, 0o660, 0o755, ""),
        (0, OTHER, 0o660, 0o755, ""),
        (UID, 0, 0o600, 0o755, ""),
        (0, 0, 0o666, 0o755, ""),
        (0, 0, 0o660, 0o755, "no write permission"),
        (0, GID, 0o640, 0o755, "no write permission"),
        (UID, GID, 0o060, 0o755, "no write permission"),  # the owner's bits count alone
        (0, GID, 0o660, 0o750, "no search permission"),
    ],
)
@pytest.mark.parametrize("chroot", [True, False])
def test_postfixs_user_has_to_reach_and_write_the_socket(
    root: Path,
    owner: int,
    group: int,
    mode: int,
    directory_mode: int,
    closed: str,
    chroot: bool,
) -> None:
    path = root / "var/spool/postfix/requiretls-milter/milter.sock"
    os.chown(path, owner, group)
    path.chmod(mode)
    path.parent.chmod(directory_mode)
    made = replace(postfix(service("smtpd", "smtp", "inet", chroot=chroot)), root=root)
    config = at(path)
    (finding,) = host.socket_permissions(config, made, list(attachments(config, made)))
    assert finding.severity is (Severity.ERROR if closed else Severity.OK)
    assert closed in finding.found


def test_without_a_mail_owner_nothing_is_claimed(root: Path) -> None:
    path = root / "var/spool/postfix/requiretls-milter/milter.sock"
    made = replace(postfix(mail_owner="nobody-here"), root=root)
    config = at(path)
    (finding,) = host.socket_permissions(config, made, list(attachments(config, made)))
    assert finding.severity is Severity.WARNING


# ---------------------------------------------------------------- the running MTA


def test_a_postfix_that_does_not_run_is_told(tmp_path: Path) -> None:
    """Its master(8) holds a lock on a file that stays when it has ended."""
    installed = replace(postfix(), root=tmp_path)
    lock = installed.queue / "pid" / "master.pid"
    (missing,) = host.postfix_runs(installed)
    lock.parent.mkdir(parents=True)
    lock.write_text("1\n")
    (stopped,) = host.postfix_runs(installed)
    assert {missing.check, stopped.check} == {"postfix_stopped"}
    assert "does not run" in stopped.found
    with lock.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert list(host.postfix_runs(installed)) == []


# ---------------------------------------------------------------- the world outside


def test_nothing_outside_is_tried_unasked() -> None:
    finding = host.outside("", Config())
    assert (finding.severity, "not tried" in finding.found) == (Severity.OK, True)


@pytest.mark.parametrize(
    ("greeting", "severity"),
    [
        (b"220 mx.example ESMTP\r\n", Severity.OK),
        (b"554 go away\r\n", Severity.ERROR),
        (b"", Severity.ERROR),
        (b"\xff\xfe", Severity.ERROR),
    ],
)
def test_a_server_outside_has_to_greet(greeting: bytes, severity: Severity) -> None:
    with server_that_says(greeting) as target:
        assert host.outside(target, Config()).severity is severity


@pytest.mark.parametrize("target", ["127.0.0.1:1", "a.invalid", "\udcff"])
def test_a_server_outside_that_cannot_be_reached_is_an_error(target: str) -> None:
    config = configured(probe={"connect_timeout": 2})
    assert host.outside(target, config).severity is Severity.ERROR
