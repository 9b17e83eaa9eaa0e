"""A log that grows is read over its rotations: each line once, whole, and in order."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from requiretls_milter.reports.logs import growing
from requiretls_milter.reports.logs.growing import GrowingLog
from requiretls_milter.reports.logs.lines import lines
from tests.support.waiting import eventually

POLL = 0.01


class Reader:
    """Reads a log in a thread, as the follower does."""

    def __init__(self, path: Path, *, linger: float = 0.05, poll: float = POLL) -> None:
        self.said: list[str] = []
        self.read: list[str] = []
        self._stop = threading.Event()
        self._log = GrowingLog(str(path), self._stop, self.said.append, poll=poll, linger=linger)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with io.BufferedReader(self._log) as stream:
            for line in lines(stream):
                self.read.append(line.text.decode())

    def has(self, *expected: str) -> None:
        """Wait until exactly these lines were read."""
        eventually(lambda: len(self.read) >= len(expected), lambda: f"only {self.read}")
        assert self.read == list(expected)

    def end(self) -> list[str]:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.read


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "mail.log"
    path.write_text("old\n")
    return path


@pytest.fixture
def follow() -> Iterator[Callable[..., Reader]]:
    started: list[Reader] = []

    def start(path: Path, *, linger: float = 0.05, poll: float = POLL) -> Reader:
        started.append(Reader(path, linger=linger, poll=poll))
        return started[-1]

    yield start
    for one in started:
        one.end()


Follow = Callable[..., Reader]


def write(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_only_what_is_written_from_now_on_is_read(log: Path, follow: Follow) -> None:
    reader = follow(log)
    write(log, "a\nb\n")
    reader.has("a", "b")
    write(log, "c\n")
    reader.has("a", "b", "c")


def test_a_line_that_is_written_in_pieces_is_one(log: Path, follow: Follow) -> None:
    write(log, "to=<u@ex")
    reader = follow(log)
    write(log, "ample.org>, rel")
    write(log, "ay=mx")
    write(log, "\nb")
    reader.has("to=<u@example.org>, relay=mx")
    write(log, "\n")
    reader.has("to=<u@example.org>, relay=mx", "b")


def test_a_log_that_is_not_there_yet_is_waited_for_and_that_is_said_once(
    tmp_path: Path, follow: Follow
) -> None:
    path = tmp_path / "mail.log"
    reader = follow(path)
    eventually(lambda: reader.said == ["No such file or directory"])
    write(path, "a\n")
    reader.has("a")
    assert reader.said == ["No such file or directory", ""]


def test_a_log_that_cannot_be_read_is_waited_for(tmp_path: Path, follow: Follow) -> None:
    path = tmp_path / "mail.log"
    path.symlink_to(path)
    reader = follow(path)
    eventually(lambda: reader.said == ["Too many levels of symbolic links"])
    path.unlink()
    write(path, "a\n")
    reader.has("a")
    assert reader.said[-1] == ""


def test_what_is_no_regular_file_is_not_opened_for_reading(tmp_path: Path, follow: Follow) -> None:
    os.mkfifo(tmp_path / "mail.log")
    reader = follow(tmp_path / "mail.log")
    eventually(lambda: reader.said == ["it is no regular file"])
    assert reader.end() == []


def test_a_reading_that_fails_is_said_once_and_tried_again(log: Path, follow: Follow) -> None:
    log.unlink()
    log.symlink_to("/proc/self/mem")  # a regular file, of which no octet can be read at its start
    reader = follow(log)
    eventually(lambda: reader.said == ["Input/output error"])
    time.sleep(0.1)  # ten more looks
    log.unlink()
    log.write_text("a\n")
    reader.has("a")
    assert reader.said == ["Input/output error", ""]


# ---------------------------------------------------------------- rename and create


def rotate(log: Path, name: str = "mail.log.1") -> Path:
    target = log.with_name(name)
    log.rename(target)
    log.touch()
    return target


def is_open(path: Path) -> bool:
    """Whether this process has it open."""
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if entry.samefile(path):
                return True
    return False


def test_a_renamed_file_is_read_to_its_end_before_the_new_one(log: Path, follow: Follow) -> None:
    reader = follow(log, linger=0.3)
    write(log, "a\n")
    old = rotate(log)
    write(log, "d\n")
    write(old, "b\n")
    reader.has("a", "b")
    write(old, "c\n")  # its writer was not told of the new file yet
    reader.has("a", "b", "c")
    reader.has("a", "b", "c", "d")


def test_a_line_that_the_rotation_cut_ends_there(log: Path, follow: Follow) -> None:
    reader = follow(log)
    write(log, "a\nhal")
    rotate(log)
    write(log, "f\n")
    reader.has("a", "hal", "f")


def test_what_becomes_of_the_old_file_does_not_matter(log: Path, follow: Follow) -> None:
    reader = follow(log, linger=0.3)
    old = log.rename(log.with_name("mail.log.1"))
    write(old, "a\n")
    old.with_name("mail.log.1.gz").write_bytes(gzip.compress(old.read_bytes()))
    old.unlink()
    write(log, "b\n")
    reader.has("a", "b")


def test_no_line_is_lost_if_rotations_follow_each_other_quickly(log: Path, follow: Follow) -> None:
    reader = follow(log, linger=5.0)
    for number in range(10):
        write(log, f"{number}\n")
        rotate(log, f"mail.log.{10 - number}")
        eventually(lambda: is_open(log), "the new file is opened")
    write(log, "last\n")
    assert reader.end() == [*map(str, range(10)), "last"]


def test_a_removed_log_is_said_once_and_a_new_one_is_read_from_its_start(
    log: Path, follow: Follow
) -> None:
    reader = follow(log)
    write(log, "a\n")
    reader.has("a")
    log.unlink()
    eventually(lambda: reader.said == ["No such file or directory"])
    write(log, "b\n")
    reader.has("a", "b")
    assert reader.said == ["No such file or directory", ""]


def test_a_file_that_is_still_written_long_after_its_rotation_is_left(
    log: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "MAX_LINGER", 0.2)
    reader = follow(log, linger=60.0)
    old = rotate(log)
    write(old, "a\n")
    write(log, "b\n")
    reader.has("a", "b")


# ---------------------------------------------------------------- copytruncate


def copy_and_truncate(log: Path, compress: Callable[[bytes], bytes], name: str) -> None:
    log.with_name(name).write_bytes(compress(log.read_bytes()))
    os.truncate(log, 0)


@pytest.mark.parametrize(
    ("name", "compress"),
    [("mail.log.1", bytes), ("mail.log-20261129.gz", gzip.compress), ("mail.log.1", bz2.compress)],
    ids=["plain", "gzip", "bzip2"],
)
def test_what_was_not_read_before_the_truncation_is_read_from_the_copy(
    name: str, compress: Callable[[bytes], bytes], log: Path, follow: Follow
) -> None:
    reader = follow(log, poll=0.5)
    write(log, "a\n")
    reader.has("a")
    write(log, "b\nc\nhal")
    copy_and_truncate(log, compress, name)
    write(log, "d\n")
    reader.has("a", "b", "c", "hal", "d")


def test_copytruncate_loses_no_line_and_repeats_none(log: Path, follow: Follow) -> None:
    reader = follow(log)
    expected: list[str] = []
    for number in range(8):
        write(log, f"{number}a\n")
        expected.append(f"{number}a")
        reader.has(*expected)
        write(log, f"{number}b\n")
        copy_and_truncate(log, bytes, "mail.log.1")
        expected.append(f"{number}b")
    reader.has(*expected)


def test_a_file_that_has_grown_again_beyond_what_was_read_is_told_by_its_octets(
    log: Path, follow: Follow
) -> None:
    reader = follow(log)
    write(log, "a\n")
    reader.has("a")
    other = log.with_name("other")
    other.write_text("".join(f"line {number}\n" for number in range(50)))
    descriptor = os.open(log, os.O_WRONLY)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, other.read_bytes(), 0)
    os.close(descriptor)
    reader.has("a", *(f"line {number}" for number in range(50)))


def test_without_a_copy_the_log_is_read_from_its_start(log: Path, follow: Follow) -> None:
    log.with_name("mail.log.1").write_text("something else, and longer than that\n")
    log.with_name("mail.log.2.gz").write_bytes(gzip.compress(b"x" * 100)[:-9])
    reader = follow(log)
    write(log, "a\nhal")
    reader.has("a")
    os.truncate(log, 0)
    write(log, "b\n")
    reader.has("a", "hal", "b")


# ---------------------------------------------------------------- the end


def test_at_the_end_all_that_was_written_is_read_over_every_rotation(
    log: Path, follow: Follow
) -> None:
    reader = follow(log, linger=60.0)
    write(log, "a\n")
    reader.has("a")
    old = rotate(log)
    write(old, "b\n")
    write(log, "c\nthe rest")
    assert reader.end() == ["a", "b", "c", "the rest"]
