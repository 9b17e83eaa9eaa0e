"""Several logs are one, in order of time, whatever the order of their names is."""

from __future__ import annotations

import calendar
import gzip
import itertools
import lzma
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from requiretls_milter.reports.logs import reading, sources
from requiretls_milter.reports.logs.events import Removed
from requiretls_milter.reports.logs.reading import LogReader
from requiretls_milter.reports.logs.sources import LogError

NOW = 1_795_900_000.0
"""2026-11-28T21:06:40Z."""


def removed(queue_id: str, when: str = "") -> str:
    return f"{when}mx postfix/qmgr[1]: {queue_id}: removed\n"


def order(*logs: Path) -> list[str]:
    """The queue IDs in the order in which they are read."""
    events = LogReader([str(log) for log in logs], 7, NOW).events()
    return [event.what.queue_id for event in events if isinstance(event.what, Removed)]


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def rotated(tmp_path: Path) -> list[Path]:
    """mail.log and those that it was before, the oldest last; two are compressed."""
    contents: list[tuple[str, str, Callable[[bytes], bytes]]] = [
        ("mail.log", removed("AAAA5", "Nov 28 00:00:01 "), bytes),
        ("mail.log.1", removed("AAAA4", "2026-11-27T23:59:59.1+00:00 "), bytes),
        ("mail.log.2.gz", removed("AAAA3", "Nov 26 12:00:00 "), gzip.compress),
        ("mail.log.10.xz", removed("AAAA2", "1795000000.5 "), lzma.compress),
        ("mail.log.11", removed("AAAA1", "Dec 31 12:00:00 "), bytes),
    ]
    for name, content, compress in contents:
        (tmp_path / name).write_bytes(compress(content.encode()))
    return [tmp_path / name for name, _, _ in contents]


def test_files_are_read_by_the_time_of_their_first_line(rotated: Sequence[Path]) -> None:
    for logs in itertools.islice(itertools.permutations(rotated), 0, None, 7):
        assert order(*logs) == ["AAAA1", "AAAA2", "AAAA3", "AAAA4", "AAAA5"]


def test_a_file_is_open_only_while_its_lines_are_read(
    rotated: Sequence[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_OPEN", 1)
    assert order(*rotated) == ["AAAA1", "AAAA2", "AAAA3", "AAAA4", "AAAA5"]


def test_files_that_overlap_are_merged(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for log, seconds in ((first, (0, 2, 5)), (second, (1, 3, 4))):
        log.write_text("".join(removed(f"AAAA{n}", f"Nov 28 10:00:0{n} ") for n in seconds))
    expected = [f"AAAA{n}" for n in range(6)]
    assert order(first, second) == order(second, first) == expected


def test_a_line_without_a_time_stays_behind_the_one_before(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text(removed("AAAA1", "Nov 28 10:00:01 ") + removed("AAAA2"))
    second.write_text(removed("AAAA0", "Nov 28 10:00:00 ") + removed("AAAA3", "Nov 28 10:00:03 "))
    assert order(first, second) == ["AAAA0", "AAAA1", "AAAA2", "AAAA3"]


def test_logs_without_times_come_first_the_oldest_of_them_before_the_others(
    tmp_path: Path,
) -> None:
    names = ["mail.log", "mail.log.1", "mail.log.2", "mail.log.10"]
    for number, name in enumerate(names):
        (tmp_path / name).write_text(removed(f"AAAA{number}", "Απρ 15 12:20:28 ") * 2)
    (tmp_path / "timed").write_text(removed("AAAA9", "Nov 28 10:00:00 "))
    logs = [tmp_path / "timed", *(tmp_path / name for name in names)]
    assert order(*logs) == [f"AAAA{n}" for n in (3, 3, 2, 2, 1, 1, 0, 0, 9)]
    dated = ["m-20261128", "m-20261127.gz", "m"]
    for number, name in enumerate(dated):
        (tmp_path / name).write_text(removed(f"BBBB{number}"))
    assert order(*(tmp_path / name for name in dated)) == ["BBBB1", "BBBB0", "BBBB2"]


def test_a_year_that_one_log_tells_is_that_of_the_others(tmp_path: Path) -> None:
    """Logs of the past are read as such."""
    old = calendar.timegm((2024, 2, 29, 12, 0, 0))
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text(removed("AAAA1", "Feb 29 12:00:01 ") + removed("AAAA3", "Feb 29 12:00:03 "))
    second.write_text(removed("AAAA2", "2024-02-29T12:00:02Z "))
    assert order(first, second) == ["AAAA1", "AAAA2", "AAAA3"]
    events = LogReader([str(first), str(second)], 7, NOW).events()
    assert [event.time for event in events] == [old + 1, old + 2, old + 3]


def test_a_log_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(removed("AAAA1"))
    assert order(log, log) == ["AAAA1"]


def test_too_many_logs_that_overlap_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_OPEN", 3)
    logs = [tmp_path / str(number) for number in range(4)]
    for log in logs:
        log.write_text(removed("AAAA1", "Nov 28 10:00:00 ") * 2)
    assert order(*logs[:3]) == ["AAAA1"] * 6
    with pytest.raises(LogError, match="more than 3 logs overlap in time"):
        order(*logs)


def test_a_log_that_breaks_off_is_told_and_not_taken_for_the_whole(tmp_path: Path) -> None:
    log = tmp_path / "log.gz"
    log.write_bytes(gzip.compress(removed("AAAA1").encode() * 100_000)[:-20])
    with pytest.raises(LogError, match=r"log\.gz: "):
        order(log)


def test_a_log_of_which_nothing_was_understood_is_told_with_its_first_line(tmp_path: Path) -> None:
    good, bad, empty = (tmp_path / name for name in ("good", "bad", "empty"))
    good.write_text("Nov 28 10:00:00 mx postfix/smtpd[1]: connect from x[192.0.2.1]\n")
    bad.write_bytes(b"\n\nhello \x1b[31m\xff\nto= recipient\n")
    empty.write_bytes(b"")
    reader = LogReader([str(good), str(bad), str(empty)], 7, NOW)
    assert list(reader.events()) == []
    assert reader.is_understood
    assert reader.not_understood() == [
        f"{bad}: no line of the milter or of Postfix was found; "
        'the first line is "hello \\x1b[31m\\\\xff"'
    ]
    alone = LogReader([str(empty)], 7, NOW)
    assert list(alone.events()) == []
    assert not alone.is_understood
    assert alone.nothing_understood() == [f"{empty}: there is no line to read"]


def test_the_journal_is_asked_for_its_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "journalctl"
    program.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/arguments\necho "1795860000.5 mx x: y"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert order(Path(sources.JOURNAL)) == []
    assert (tmp_path / "arguments").read_text() == (
        "--unit requiretls-milter --since -7d --output short-unix --all --quiet\n"
    )
