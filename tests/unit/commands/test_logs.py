"""Logs of every kind are read by one function, and what cannot be read is an error."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import pytest

from requiretls_milter.commands.logs import JOURNAL, STDIN, LogError, log_lines

LINES = ["one \N{REPLACEMENT CHARACTER}\n", "two\n"]
CONTENT = b"one \xff\ntwo\n"


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A journalctl that prints CONTENT, in the place of the host's."""
    (tmp_path / "content").write_bytes(CONTENT)
    program = tmp_path / "journalctl"
    program.write_text(f"#!/bin/sh\n/bin/cat {tmp_path}/content\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return program


def test_a_plain_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    path.write_bytes(CONTENT)
    assert list(log_lines([str(path)], 7)) == LINES


def test_a_gzip_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mail.log.1.gz"
    path.write_bytes(gzip.compress(CONTENT))
    assert list(log_lines([str(path)], 7)) == LINES


def test_standard_input_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mail.log"
    path.write_bytes(CONTENT)
    with path.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert list(log_lines([STDIN], 7)) == LINES


@pytest.mark.usefixtures("journal")
def test_the_journal_is_read() -> None:
    assert list(log_lines([JOURNAL], 7)) == LINES


@pytest.mark.usefixtures("journal")
def test_several_logs_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    path.write_bytes(b"three\n")
    assert list(log_lines([str(path), JOURNAL], 7)) == ["three\n", *LINES]


def test_a_file_that_is_not_there_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"/none: No such file or directory$"):
        list(log_lines([str(tmp_path / "none")], 7))


COMPRESSED = gzip.compress(bytes(range(256)) * 100)


@pytest.mark.parametrize(
    "content",
    [b"no gzip at all", COMPRESSED[:-10], COMPRESSED[:20] + b"\xff" * 50 + COMPRESSED[70:]],
    ids=["another file", "cut", "damaged"],
)
def test_a_gzip_file_that_cannot_be_decompressed_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mail.log.gz"
    path.write_bytes(content)
    with pytest.raises(LogError, match=r"mail\.log\.gz: "):
        list(log_lines([str(path)], 7))


def test_standard_input_that_is_closed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(LogError, match=r"^-: "):
        list(log_lines([STDIN], 7))


def test_a_journalctl_that_fails_or_is_missing_is_told(journal: Path) -> None:
    journal.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(LogError, match=r"^journalctl: exit status 3$"):
        list(log_lines([JOURNAL], 7))
    journal.unlink()
    with pytest.raises(LogError, match=r"^journalctl: No such file or directory$"):
        list(log_lines([JOURNAL], 7))
