"""Lines become datagrams of a syslog daemon, which may stand still, be missing or come back."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from requiretls_milter.telemetry.output import Output, ThreadOutput, TurnOutput
from requiretls_milter.telemetry.syslog import FACILITIES, MAX_LINE, Syslog
from tests.support.waiting import eventually


class Daemon:
    """Reads what is sent to a path, when the test wants."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(20)

    def read(self) -> str:
        return self._socket.recv(1 << 16).decode()

    def close(self) -> None:
        self._socket.close()
        self.path.unlink()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def daemon(path: Path) -> Iterator[Daemon]:
    daemon = Daemon(path)
    yield daemon
    if path.exists():
        daemon.close()


def tell(lines: int) -> str:
    return f"<4>dropped={lines}"


def outputs(path: Path, facility: str = "mail") -> Iterator[Output]:
    """One of a child, and then one of the supervisor."""
    for kind in (ThreadOutput, TurnOutput):
        with contextlib.closing(Syslog(facility, str(path))) as target:
            output = kind(target, tell)
            yield output


def _dropped_one(output: Output) -> bool:
    return output.take_dropped() == 1


def problem(path: Path) -> str:
    with contextlib.closing(Syslog("mail", str(path))) as target:
        return target.problem()


@pytest.mark.parametrize("facility", FACILITIES)
def test_a_line_has_facility_severity_time_program_and_process(
    facility: str, daemon: Daemon, path: Path
) -> None:
    for output in outputs(path, facility):
        output.put("<6>level=info event=one")
        said = re.fullmatch(
            r"<(\d+)>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d requiretls-milter\[(\d+)\]: "
            "level=info event=one",
            daemon.read(),
        )
        assert said is not None
        assert divmod(int(said[1]), 8) == (FACILITIES[facility], 6)
        assert int(said[2]) == os.getpid()


def test_a_line_without_a_severity_is_an_error(daemon: Daemon, path: Path) -> None:
    for output in outputs(path):
        output.put("Fatal Python error: Segmentation fault")
        assert daemon.read().startswith("<19>")


def test_a_long_line_loses_its_end(daemon: Daemon, path: Path) -> None:
    for output in outputs(path):
        output.put("<6>begin " + "x" * 20_000)
        said = daemon.read()
        assert len(said) == MAX_LINE
        assert ": begin xxx" in said


def test_lines_that_are_put_together_are_a_datagram_each(daemon: Daemon, path: Path) -> None:
    for output in outputs(path):
        output.put_all([f"<6>line {number}" for number in range(5)])
        assert [daemon.read()[-6:] for _ in range(5)] == [f"line {n}" for n in range(5)]


def test_a_daemon_that_stands_still_holds_nothing_up_and_is_told_what_it_missed(
    daemon: Daemon, path: Path
) -> None:
    for output in outputs(path):
        for number in range(20_000):
            output.put(f"<6>{number} " + "x" * 100)
        expected = 0
        while "dropped=" not in (said := daemon.read()):
            assert f": {expected} " in said
            expected += 1
            if isinstance(output, TurnOutput):
                output.flush()
        assert said.endswith(f"dropped={20_000 - expected}")
        assert output.take_dropped() == 20_000 - expected


def test_a_daemon_that_is_missing_counts_and_one_that_comes_back_gets_the_next_line(
    path: Path,
) -> None:
    for output in outputs(path):
        output.put("<6>lost")
        eventually(functools.partial(_dropped_one, output))
        for _ in range(2):
            daemon = Daemon(path)
            output.put("<6>kept")
            assert daemon.read().endswith("kept")
            daemon.close()


def test_what_keeps_lines_from_arriving_is_told(path: Path, daemon: Daemon) -> None:
    assert problem(path) == ""
    daemon.close()
    assert "No such file or directory" in problem(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.bind(str(path))
        stream.listen()
        assert "has to take datagrams" in problem(path)
