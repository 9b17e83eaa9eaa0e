"""Several logs are read at once while they are written, and to their ends when that is told."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from requiretls_milter.reports.logs import sources, tailing
from requiretls_milter.reports.logs.sources import LogError
from requiretls_milter.reports.logs.tailing import Tail
from tests.support.waiting import eventually


class Reader:
    """Takes lines as the follower does."""

    def __init__(self, *logs: str) -> None:
        self.said: list[tuple[str, str]] = []
        self.read: list[str] = []
        self.tail = Tail(logs, lambda log, text: self.said.append((log, text)))
        self.tail.start()

    def take(self) -> list[str]:
        self.read += [line.text.decode() for line in self.tail.lines(0.05)]
        return self.read

    def has(self, *expected: str) -> None:
        eventually(lambda: len(self.take()) >= len(expected), lambda: f"only {self.read}")
        assert sorted(self.read) == sorted(expected)

    def end(self) -> list[str]:
        self.read += [line.text.decode() for line in self.tail.rest()]
        return self.read


@pytest.fixture
def follow() -> Iterator[Callable[..., Reader]]:
    started: list[Reader] = []

    def start(*logs: str) -> Reader:
        started.append(Reader(*logs))
        return started[-1]

    yield start
    for one in started:
        one.end()


Follow = Callable[..., Reader]


def test_what_is_written_after_the_start_is_read_from_every_log(
    tmp_path: Path, follow: Follow
) -> None:
    ours, theirs = tmp_path / "milter.log", tmp_path / "mail.log"
    ours.write_text("old\n")
    reader = follow(str(ours), str(theirs), str(ours))
    assert reader.said == [(str(theirs), "No such file or directory")]
    for log, text in ((ours, "a\n"), (theirs, "b\n")):
        with log.open("a") as file:
            file.write(text)
    reader.has("a", "b")
    assert reader.said[1:] == [(str(theirs), "")]


def test_at_the_end_everything_is_read_although_nobody_took_it_before(
    tmp_path: Path, follow: Follow
) -> None:
    log = tmp_path / "mail.log"
    log.touch()
    reader = follow(str(log))
    many = [f"line {number}" for number in range(5 * tailing.MAX_QUEUED)]
    log.write_text("\n".join(many) + "\n")
    assert reader.end() == many
    assert reader.tail.has_ended


def test_lines_are_not_read_faster_than_they_are_taken(
    tmp_path: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailing, "MAX_QUEUED", 20)
    log = tmp_path / "mail.log"
    log.touch()
    reader = follow(str(log))
    log.write_text(("x" * 60_000 + "\n") * 100)
    eventually(lambda: position(log) > 20 * 60_000)
    assert position(log) < 25 * 60_000
    assert len(reader.end()) == 100


def position(path: Path) -> int:
    """How far this process has read a file."""
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if entry.samefile(path):
                found = Path("/proc/self/fdinfo", entry.name).read_text()
                return int(found.partition("\n")[0].removeprefix("pos:"))
    return 0


JOURNALCTL = """\
#!/bin/sh
# Ends by itself the first time, as it does when it is killed.
echo "$@" >>{here}/arguments
printf '__CURSOR=a\\n__REALTIME_TIMESTAMP=1795860000500000\\nMESSAGE=one\\n\\n'
test -e {here}/again || {{ touch {here}/again; echo "no room" >&2; exit 3; }}
printf '__CURSOR=b\\n__REALTIME_TIMESTAMP=1795860001000000\\nMESSAGE\\n'
printf '\\003\\000\\000\\000\\000\\000\\000\\000t\\nw\\n'
printf '__REALTIME_TIMESTAMP=9\\n\\n'
exec sleep 1000
"""


def test_the_journal_is_read_anew_from_where_it_ended_when_journalctl_dies(
    tmp_path: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "journalctl"
    program.write_text(JOURNALCTL.format(here=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(tailing, "JOURNAL_PAUSE", 0.05)
    monkeypatch.setattr(tailing, "JOURNAL_START", 0.05)
    monkeypatch.setattr(sources, "MACHINE_ID", tmp_path / "nothing")
    reader = follow(sources.JOURNAL)
    reader.has("one", "one", "t w")
    assert (sources.JOURNAL, "journalctl: no room") in reader.said
    assert reader.said[-1] == (sources.JOURNAL, "")
    first, second = (tmp_path / "arguments").read_text().splitlines()
    assert first.startswith("--unit requiretls-milter --since @")
    assert first.endswith(" --follow --no-tail --output export --all --quiet")
    assert "--since @1795860000 " in second or "--since @" in first
    assert reader.end() == ["one", "one", "t w"]
    assert reader.tail.has_ended


REFUSES = """\
#!/bin/sh
echo "$@" >> {here}/arguments
case "$*" in *--merge*)
    echo "Using --boot or --list-boots with --merge is not supported." >&2; exit 1 ;;
esac
printf '__CURSOR=a\\n__REALTIME_TIMESTAMP=1795860000000000\\nMESSAGE=one\\n\\n'
exec sleep 1000
"""


def test_the_journal_of_this_machine_is_read_whatever_the_id_of_its_boot(
    tmp_path: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or of this boot alone, where journalctl cannot do otherwise."""
    program = tmp_path / "journalctl"
    program.write_text(REFUSES.format(here=tmp_path))
    program.chmod(0o755)
    (tmp_path / "machine-id").write_text("85c1a7e3c1f94a5f8e2f0b7a6d3e9c41\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(tailing, "JOURNAL_PAUSE", 0.05)
    monkeypatch.setattr(tailing, "JOURNAL_START", 0.05)
    monkeypatch.setattr(sources, "MACHINE_ID", tmp_path / "machine-id")
    reader = follow(sources.JOURNAL)
    reader.has("one")
    first, second = (tmp_path / "arguments").read_text().splitlines()
    assert " --merge _MACHINE_ID=85c1a7e3c1f94a5f8e2f0b7a6d3e9c41 " in first
    assert second.endswith(" --follow --no-tail --output export --all --quiet")
    assert reader.end() == ["one"]


@pytest.mark.parametrize("text", [None, "", "\xff", "a b", "a;b"])
def test_a_machine_without_an_id_has_no_match_for_it(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "machine-id"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(sources, "MACHINE_ID", path)
    assert sources.of_any_boot() == []


def test_a_journal_that_cannot_be_read_is_tried_again(
    tmp_path: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tailing, "JOURNAL_PAUSE", 0.01)
    reader = follow(sources.JOURNAL)
    error = (sources.JOURNAL, "journalctl: No such file or directory")
    eventually(lambda: reader.said[:2] == [error, error])
    assert reader.end() == []


def test_standard_input_ends_when_its_writer_does(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = os.pipe()
    with open(theirs) as stdin, open(ours, "w", buffering=1) as writer:
        monkeypatch.setattr("sys.stdin", stdin)
        reader = follow(sources.STDIN)
        writer.write("first\nsecond\n")
        reader.has("first", "second")
        assert not reader.tail.has_ended
        writer.close()
        eventually(lambda: reader.take() and reader.tail.has_ended)


def test_standard_input_whose_writer_stays_is_not_waited_for(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = os.pipe()
    with open(theirs) as stdin, open(ours, "w", buffering=1) as writer:
        monkeypatch.setattr("sys.stdin", stdin)
        reader = follow(sources.STDIN)
        writer.write("first\n")
        reader.has("first")
        assert reader.end() == ["first"]


def test_what_goes_wrong_in_a_thread_is_raised_where_lines_are_taken(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    reader = follow(sources.STDIN)
    with pytest.raises(LogError, match="standard input is closed"):
        reader.tail.lines(5.0)
