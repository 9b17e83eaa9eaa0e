"""``audit --follow`` as a process beside logs that are written and rotated."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest

from tests.support.auditfollower import RESULTS, Follower, metrics, results
from tests.support.mailtraffic import MILTER, POSTFIX, Traffic
from tests.support.milterlogs import QUEUE_ID, delivery_line, forecast_line
from tests.support.processes import free_port
from tests.support.waiting import eventually

RECIPIENTS = int(os.environ.get("FOLLOWED_RECIPIENTS", "10000"))
"""``make test-long`` takes more."""

CHUNK = 250
"""Lines that are written at once."""

ROTATED_AFTER = 20
"""Chunks of lines between two rotations of each log."""


Follow = Callable[..., Follower]


@pytest.fixture
def follow(tmp_path: Path) -> Iterator[Follow]:
    started: list[Follower] = []

    def start(*arguments: str | Path, **limits: float) -> Follower:
        started.append(Follower(tmp_path, *arguments, **limits))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


class Logs:
    """Two logs, each with a way of rotation of its own."""

    def __init__(self, directory: Path) -> None:
        self.paths = {MILTER: directory / "milter.log", POSTFIX: directory / "mail.log"}
        for path in self.paths.values():
            path.touch()
        self._open = {log: path.open("ab", 0) for log, path in self.paths.items()}
        self.rotations = 0

    def write(self, lines: list[tuple[str, str]]) -> None:
        """Write lines; what one log gets at once ends within a line, and the rest follows."""
        for log, file in self._open.items():
            text = "".join(text for name, text in lines if name == log)
            octets = text.encode("utf-8", "surrogateescape")
            middle = len(octets) - 30
            file.write(octets[:middle])
            file.write(octets[middle:])

    def rename_and_compress(self) -> None:
        """As logrotate does: the program opens the new file only when it is told to."""
        self.rotations += 1
        path, old = self.paths[POSTFIX], self._open[POSTFIX]
        first = path.with_name(f"{path.name}.{self.rotations}")
        path.rename(first)
        path.touch()
        old.close()
        self._open[POSTFIX] = path.open("ab", 0)
        with first.open("rb") as plain, gzip.open(f"{first}.gz", "wb") as compressed:
            shutil.copyfileobj(plain, compressed)
        first.unlink()

    def copy_and_truncate(self) -> None:
        path = self.paths[MILTER]
        shutil.copyfile(path, path.with_name(f"{path.name}-2026{self.rotations:04}"))
        os.truncate(path, 0)

    def close(self) -> None:
        for file in self._open.values():
            file.close()

    def all(self) -> list[Path]:
        return [file for path in self.paths.values() for file in path.parent.glob(f"{path.name}*")]


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Logs]:
    with closing(Logs(tmp_path)) as made:
        yield made


def test_ten_thousand_deliveries_over_rotations_are_counted_as_they_were_made(
    logs: Logs, follow: Follow
) -> None:
    traffic = Traffic(RECIPIENTS, seed=8689, start=time.time())
    follower = follow(*logs.paths.values(), following__SETTLED_AFTER=1.0)
    lines = traffic.lines()
    number = 0
    while chunk := list(islice(lines, CHUNK)):
        number += 1
        rotates = number % ROTATED_AFTER == 0
        if rotates:
            # What comes now is in the copy before it is read, and further back it was read: a log
            # that is truncated twice between two looks is rotated more often than any is.
            eventually(lambda: follower.has_read(logs.paths[MILTER]))
        logs.write(chunk)
        if rotates:
            logs.copy_and_truncate()
            logs.rename_and_compress()
            eventually(lambda: follower.position(logs.paths[POSTFIX]) is not None)
    assert logs.rotations >= 3
    assert follower.events("forecast_differs"), "differences are logged while mail goes on"
    assert follower.end() == 0

    expected = traffic.expected
    found = follower.metrics()
    assert follower.results() == expected.results
    assert sum(expected.results.values()) == RECIPIENTS
    assert set(expected.results) == set(RESULTS)
    reasons = {
        reason: found[f'audit_differences_total{{reason="{reason}"}}']
        for reason in expected.reasons
    }
    assert reasons == expected.reasons
    told = follower.events("forecast_differs")
    assert len(told) == expected.results["different"]
    assert {re.findall(r"queue_id=(\S+)", one)[0] for one in told} == expected.different
    assert found["audit_recipients_in_flight"] == found["audit_logs_unreadable"] == 0
    assert found["audit_lines_total"] == expected.lines

    at_once = subprocess.run(
        [sys.executable, "-m", "requiretls_milter", "audit", "--format=json", *logs.all()],
        capture_output=True,
        timeout=100,
    )
    assert at_once.stderr == b""
    read = json.loads(at_once.stdout)
    assert Counter({name: read[name] for name in RESULTS}) == expected.results


def test_a_difference_is_logged_and_counted_while_the_command_runs(
    tmp_path: Path, follow: Follow
) -> None:
    log = tmp_path / "mail.log"
    log.touch()
    port = free_port()
    listen = f"--listen=127.0.0.1:{port}"
    follower = follow(log, listen, following__SETTLED_AFTER=0.1, audit_follow__WRITE_EVERY=0.1)
    log.write_text(
        f"{forecast_line('5.7.30', 'requiretls_not_offered')}\n{delivery_line('2.0.0')}\n"
    )
    (told,) = eventually(lambda: follower.events("forecast_differs"))
    assert f" queue_id={QUEUE_ID} to=<u@example.org> forecast=5.7.30 " in told
    assert " level=warning " in told
    assert " was=2.0.0 " in told
    eventually(lambda: follower.results() == {"different": 1})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        served = reply.read().decode()
    assert results(metrics(served)) == {"different": 1}
    assert served.count("# HELP requiretls_milter_audit_") == 6


def test_the_file_is_there_from_the_start_and_readable_for_all(
    tmp_path: Path, follow: Follow
) -> None:
    follower = follow(tmp_path / "mail.log")
    mode = follower.textfile.stat().st_mode
    assert stat.S_IMODE(mode) == 0o644
    assert follower.results() == {}
    assert follower.end() == 0
    assert {path.name for path in tmp_path.iterdir()} == {"audit.prom", "stderr"}


def test_a_log_that_is_not_there_is_said_once_and_counted_and_waited_for(
    tmp_path: Path, follow: Follow
) -> None:
    log = tmp_path / "mail.log"
    follower = follow(log, audit_follow__WRITE_EVERY=0.1)
    eventually(lambda: follower.metrics()["audit_logs_unreadable"] == 1)
    log.write_text(f"{forecast_line('2.0.0')}\n{delivery_line('2.0.0')}\n")
    eventually(lambda: follower.metrics()["audit_logs_unreadable"] == 0)
    assert follower.end(signal.SIGINT) == 0
    assert follower.results() == {"equal": 1}
    assert len(follower.events("audit_log_unreadable")) == 1
    assert len(follower.events("audit_log_readable")) == 1


def test_what_stands_in_a_log_does_not_end_it(tmp_path: Path, follow: Follow) -> None:
    log = tmp_path / "mail.log"
    log.touch()
    follower = follow(log)
    hostile = [
        bytes(range(256)) * 500,
        b"\n{\n" * 3,
        b"__CURSOR=a\nMESSAGE\n\xff\xff\xff\xff\xff\xff\xff\x7fshort\n\n",
        b'{"event": "recipient", "queue_id": [1], "to": {"a": 1}}\n' * 3,
        b"event=recipient queue_id=" + b"A" * 200_000 + b"\n",
        b'{"a":' * 100_000 + b"\n",
        b"Feb 30 99:99:99 mx postfix/smtp[1]: ABCDEF: to=<, relay=, dsn=9.9.9, status= (\n",
    ]
    with log.open("ab") as file:
        for octets in hostile:
            file.write(octets)
    eventually(lambda: follower.has_read(log))
    with log.open("a") as text:
        text.write("}\n" + "\n" * 1100)  # whatever was begun ends
        text.write(f"{forecast_line('2.0.0')}\n{delivery_line('2.0.0')}\n")
    assert follower.end() == 0
    assert follower.results() == {"equal": 1}


def test_a_file_that_can_no_longer_be_written_is_said_once_and_does_not_end_it(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "textfiles"
    directory.mkdir()
    follower = Follower(directory, tmp_path / "mail.log", audit_follow__WRITE_EVERY=0.05)
    try:
        directory.rename(tmp_path / "away")
        log = tmp_path / "away/stderr"
        eventually(lambda: "event=audit_not_written" in log.read_text())
        (tmp_path / "away").rename(directory)
        follower.textfile.unlink()
        eventually(follower.textfile.exists)
        assert follower.end() == 0
        assert len(follower.events("audit_not_written")) == 1
    finally:
        follower.process.kill()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("mail.log", "--textfile=/nowhere/a.prom"), "error: /nowhere/"),
        (("mail.log", "--listen=192.0.2.1:9"), "error: 192.0.2.1:9: Cannot assign"),
        (("mail.log", "--listen=9"), "error: --listen: expected ADDRESS:PORT"),
        (("mail.log", "--textfile=a.txt"), "files that end in .prom"),
        (("mail.log", "mail.log.1"), "mail.log.1 is a rotated log"),
    ],
)
def test_a_mistake_of_the_command_line_is_told_at_once(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "requiretls_milter", "audit", "--follow", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_standard_input_is_followed_to_its_end(tmp_path: Path) -> None:
    """Such as that of ``journalctl -f -o export``, on this host or on another one."""
    done = subprocess.run(
        [sys.executable, "-m", "requiretls_milter", "audit", "--follow", "--format=json", "-"],
        input=f"{forecast_line('2.0.0')}\n{delivery_line('5.7.30')}\n",
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [one["event"] for one in events] == [
        "audit_following",
        "forecast_differs",
        "audit_ended",
    ]
    assert events[1]["queue_id"] == QUEUE_ID
