"""Lines on their way to a reader that may stop: no call waits, no line is torn."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from requiretls_milter.telemetry import targets
from requiretls_milter.telemetry.output import (
    MAX_PARTIAL,
    MAX_QUEUED,
    LineBuffer,
    Output,
    StandardError,
    ThreadOutput,
    TurnOutput,
)
from requiretls_milter.telemetry.targets import Descriptor, Target
from tests.support.waiting import eventually

Kind = Callable[[Target, Callable[[int], str | None]], Output]

KINDS = [ThreadOutput, TurnOutput]

IN_NO_TIME = 2.0
"""Seconds for thousands of calls of which none waits, on a machine that is busy."""


def tell(lines: int) -> str:
    return f"dropped={lines}"


class Ends:
    """Where an output writes, and where a test reads it."""

    def __init__(self, read: int, write: int) -> None:
        self.read, self.write = read, write
        self.flags = fcntl.fcntl(write, fcntl.F_GETFL)

    def whole(self, output: Output, until: Callable[[bytes], bool]) -> list[str]:
        """Read, as the log's reader does, until it has all."""
        found = b""
        deadline = time.monotonic() + 20
        while not until(found):
            assert time.monotonic() < deadline, found[-200:]
            if isinstance(output, TurnOutput):
                output.flush()
            if select.select([self.read], [], [], 0.01)[0]:
                found += os.read(self.read, 1 << 16)
        return found.decode().replace("\r\n", "\n").splitlines()


def refused(descriptor: int) -> None:
    raise PermissionError(descriptor)


@pytest.fixture(params=["pipe", "pipe of another user", "socket", "terminal"])
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    if request.param == "pipe of another user":
        monkeypatch.setattr(targets, "_ReopenedWriter", refused)
    if request.param.startswith("pipe"):
        read, write = os.pipe()
    elif request.param == "socket":
        one, other = socket.socketpair()
        read, write = one.detach(), other.detach()
    else:
        read, write = pty.openpty()
    yield Ends(read, write)
    for descriptor in (write, read):
        with suppress(OSError):
            os.close(descriptor)


@pytest.mark.parametrize("kind", KINDS)
def test_lines_come_whole_and_in_order(kind: Kind, ends: Ends) -> None:
    output = kind(Descriptor(ends.write), tell)
    for number in range(20):
        output.put(f"line {number} " + "x" * number)
    expected = [f"line {number} " + "x" * number for number in range(20)]
    assert ends.whole(output, lambda found: found.count(b"\n") == 20) == expected
    output.close(5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_that_stops_holds_nothing_up_and_what_was_dropped_is_told(
    kind: Kind, ends: Ends
) -> None:
    output = kind(Descriptor(ends.write), tell)
    started = time.monotonic()
    for number in range(20_000):
        output.put(f"{number} " + "x" * 100)
    assert time.monotonic() - started < IN_NO_TIME
    lines = ends.whole(output, lambda found: b"dropped=" in found and found.endswith(b"\n"))
    dropped = output.take_dropped()
    assert dropped > 0
    assert output.take_dropped() == 0
    assert lines[-1] == tell(dropped)
    assert lines[:-1] == [f"{number} " + "x" * 100 for number in range(20_000 - dropped)]
    output.put("again")
    assert ends.whole(output, lambda found: found.endswith(b"\n")) == ["again"]
    # What started the service has the same file description, and writes as before.
    assert fcntl.fcntl(ends.write, fcntl.F_GETFL) == ends.flags
    output.close(5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_queue_is_bounded_in_octets(kind: Kind, ends: Ends) -> None:
    output = kind(Descriptor(ends.write), tell)
    for _ in range(200):
        output.put("x" * 60_000)
    assert output._octets <= MAX_QUEUED
    assert output.take_dropped() >= 200 - 2 * MAX_QUEUED // 60_000
    output.close(0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_end_waits_for_the_reader_no_longer_than_it_may(kind: Kind, ends: Ends) -> None:
    output = kind(Descriptor(ends.write), tell)
    for _ in range(5_000):
        output.put("x" * 100)
    started = time.monotonic()
    output.close(0.2)
    assert 0.1 < time.monotonic() - started < IN_NO_TIME


@pytest.mark.parametrize("kind", KINDS)
def test_last_words_are_written_before_the_end(kind: Kind, tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as file:
        output = kind(Descriptor(file.fileno()), tell)
        for number in range(2_000):
            output.put(str(number))
        output.close(5)
    assert (tmp_path / "log").read_text().splitlines() == [str(n) for n in range(2_000)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_that_is_gone_is_counted_and_ends_nothing(kind: Kind) -> None:
    read, write = os.pipe()
    os.close(read)
    output = kind(Descriptor(write), tell)
    output.put("into the void")
    eventually(lambda: output.take_dropped() >= 1)
    output.put("into the void")
    eventually(lambda: output.take_dropped() >= 1)
    output.close(5)
    os.close(write)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_disk_refused_is_told_when_it_takes_lines_again(
    kind: Kind, tmp_path: Path
) -> None:
    """A descriptor for reading stands for a full disk: each write fails."""
    path = tmp_path / "log"
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    output = kind(Descriptor(descriptor), tell)
    output.put("lost")
    eventually(lambda: output.take_dropped() == 1)
    writable = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.dup2(writable, descriptor)
    output.put("kept")
    output.close(5)
    assert path.read_text().splitlines() == ["kept", "dropped=1"]
    os.close(descriptor)
    os.close(writable)


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_fills_while_lines_are_dropped_is_written_again_when_it_has_room(
    kind: Kind, tmp_path: Path
) -> None:
    read, write = os.pipe()
    output = kind(Descriptor(write), tell)
    for _ in range(20_000):
        output.put("x" * 100)
    os.close(read)  # each write fails from now on
    output.put("lost")
    eventually(lambda: not output._octets)
    path = tmp_path / "log"
    with path.open("ab") as file:
        os.dup2(file.fileno(), write)
        if isinstance(output, TurnOutput):
            output._writer = None
        output.put("kept")
        output.close(5)
    assert path.read_text().splitlines()[0].endswith("kept")
    os.close(write)


def test_a_descriptor_that_another_program_made_non_blocking_loses_nothing() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    output = ThreadOutput(Descriptor(write), tell)
    for number in range(2_000):
        output.put(f"{number} " + "x" * 100)
    lines = Ends(read, write).whole(output, lambda found: found.count(b"\n") == 2_000)
    assert lines == [f"{number} " + "x" * 100 for number in range(2_000)]
    output.close(5)
    os.close(read)
    os.close(write)


def test_lines_of_several_processes_in_one_pipe_are_not_torn() -> None:
    read, write = os.pipe()
    threaded = [ThreadOutput(Descriptor(write), tell), ThreadOutput(Descriptor(write), tell)]
    at_turns = TurnOutput(Descriptor(write), tell)

    def talk(output: Output, letter: str) -> None:
        for _ in range(1_000):
            output.put(letter * 300)
            time.sleep(0)

    threads = [
        threading.Thread(target=talk, args=pair) for pair in zip(threaded, "ab", strict=True)
    ]
    for thread in threads:
        thread.start()
    found, left = b"", 1_000
    while found.count(b"\n") < 3_000:
        if left:
            left -= 1
            at_turns.put("c" * 300)
        at_turns.flush()
        if select.select([read], [], [], 0.01)[0]:
            found += os.read(read, 1 << 12)
    for thread in threads:
        thread.join()
    lines = found.decode().splitlines()
    assert sorted(set(lines)) == ["a" * 300, "b" * 300, "c" * 300]
    for output in [*threaded, at_turns]:
        output.close(5)
    os.close(read)
    os.close(write)


def test_a_line_that_is_logged_while_one_is_put_does_not_wait_for_itself(tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as file:
        output = ThreadOutput(Descriptor(file.fileno()), tell)
        with output._lock:  # as a finalizer finds it, in the midst of put()
            output.put("from a finalizer")
        output.close(5)
    assert (tmp_path / "log").read_text() == "from a finalizer\n"


def test_what_comes_in_pieces_is_put_together_and_a_line_without_end_is_cut() -> None:
    lines: list[str] = []
    buffer = LineBuffer(lines.append)
    buffer.feed("one\ntw")
    buffer.feed("o\nthree")
    assert lines == ["one", "two"]
    buffer.end()
    buffer.end()
    assert lines == ["one", "two", "three"]
    buffer.feed("x" * (MAX_PARTIAL + 1))
    assert lines[3:] == ["x" * (MAX_PARTIAL + 1)]


def test_pythons_own_words_become_lines() -> None:
    lines: list[str] = []
    error = StandardError(lines.append)
    print("Traceback", "of 1", file=error)
    print("the end", file=error, flush=True)
    assert lines == ["Traceback of 1", "the end"]
    assert error.fileno() == 2
    assert error.writable()


@pytest.mark.parametrize("kind", KINDS)
def test_lines_that_are_put_together_are_written_as_many_as_fit_at_once(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[str] = []
    with (tmp_path / "log").open("wb") as file:
        output = kind(Descriptor(file.fileno()), tell)
        put = output.put

        def noted(line: str) -> None:
            pieces.append(line)
            put(line)

        monkeypatch.setattr(output, "put", noted)
        lines = [f"{number:04}" + "x" * 300 for number in range(40)] + ["y" * 5000, "end"]
        output.put_all(lines)
        output.put_all([])
        output.close(5)
    assert (tmp_path / "log").read_text().splitlines() == lines
    assert [len(piece) for piece in pieces if len(piece) >= select.PIPE_BUF] == [5000]
    assert len(pieces) == 6


def test_of_lines_that_are_put_together_each_that_is_dropped_counts(tmp_path: Path) -> None:
    read, write = os.pipe()
    output = TurnOutput(Descriptor(write), tell)
    lines = ["x" * 1000] * 3
    while not output.take_dropped():
        output.put_all(lines)
    output.put_all(lines)
    assert output.take_dropped() == 3
    output.forget()
    os.close(read)
    os.close(write)


IN_A_FILE_OF_50_OCTETS = """
import resource, signal, sys, time
from requiretls_milter.telemetry import output
from requiretls_milter.telemetry.targets import Descriptor
file = open(sys.argv[1], "ab")
made = getattr(output, sys.argv[2])(Descriptor(file.fileno()), lambda lines: f"dropped={lines}")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
made.put("a" * 30)
made.put("b" * 30)
while not made.take_dropped():
    time.sleep(0.01)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
made.put("c" * 30)
made.close(5)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_of_which_the_disk_took_a_part_does_not_run_into_the_next_one(
    kind: Kind, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", IN_A_FILE_OF_50_OCTETS, str(tmp_path / "log"), kind.__name__]
    subprocess.run(command, check=True)
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines == ["a" * 30, "b" * 19, "c" * 30, "dropped=1"]
