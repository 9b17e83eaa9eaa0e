"""A log is opened wherever it is and however it is compressed; what cannot be read is an error."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from requiretls_milter.reports.logs import sources
from requiretls_milter.reports.logs.sources import JOURNAL, STDIN, LogError, opened
from tests.support.compression import zstd

CONTENT = b"one \xff\ntwo\n" * 20_000

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
}
each = pytest.mark.parametrize("compress", COMPRESS.values(), ids=COMPRESS)


def read(log: object) -> bytes:
    with opened(str(log), 7) as stream:
        return stream.read()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "mail.log"


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A journalctl that prints CONTENT, in the place of the host's."""
    (tmp_path / "content").write_bytes(CONTENT)
    program = tmp_path / "journalctl"
    program.write_text(f"#!/bin/sh\n/bin/cat {tmp_path}/content\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return program


@pytest.mark.parametrize("content", [CONTENT, b"", b"\n", b"ab"])
def test_a_plain_file_is_read(log: Path, content: bytes) -> None:
    log.write_bytes(content)
    assert read(log) == content


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", [b"", b"x"])
def test_a_file_of_powershell_is_read(log: Path, encoding: str, end: bytes) -> None:
    text = "\ufeffone\r\nzwei \u00e4\U0001f600\n" * 30_000
    log.write_bytes(text.encode(encoding) + end)
    expected = text.removeprefix("\ufeff").encode() + "\ufffd".encode() * len(end)
    assert read(log) == expected


@each
@pytest.mark.parametrize("name", ["mail.log", "mail.log.gz", "mail.log-20261128"])
def test_compression_is_told_by_content_whatever_the_name_is(
    compress: Callable[[bytes], bytes], name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(compress(CONTENT))
    assert read(tmp_path / name) == CONTENT


def test_text_in_a_file_with_the_name_of_an_archive_is_text(tmp_path: Path) -> None:
    (tmp_path / "mail.log.gz").write_bytes(CONTENT)
    assert read(tmp_path / "mail.log.gz") == CONTENT


@each
def test_several_streams_one_behind_the_other_are_one_log(
    compress: Callable[[bytes], bytes], log: Path
) -> None:
    log.write_bytes(compress(CONTENT) + compress(b"three\n") + compress(b"") + compress(b"four\n"))
    assert read(log) == CONTENT + b"three\nfour\n"


@each
def test_zeros_behind_the_end_are_padding(compress: Callable[[bytes], bytes], log: Path) -> None:
    log.write_bytes(compress(CONTENT) + bytes(4096))
    assert read(log) == CONTENT


@each
@pytest.mark.parametrize("kind", ["cut", "damaged", "continued", "cut at the head"])
def test_an_archive_that_is_damaged_is_told(
    compress: Callable[[bytes], bytes], kind: str, log: Path
) -> None:
    whole = compress(os.urandom(50_000))
    middle = len(whole) // 2
    log.write_bytes(
        {
            "cut": whole[:-6],
            "damaged": whole[:middle] + bytes(64) + whole[middle + 64 :],
            "continued": whole + b"something else",
            "cut at the head": whole[:8],
        }[kind]
    )
    with pytest.raises(LogError, match=r"mail\.log: \S"):
        read(log)


@each
def test_a_bomb_is_told_before_it_has_filled_anything(
    compress: Callable[[bytes], bytes], log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Octets that are made are limited by octets that are read, beyond a free amount."""
    monkeypatch.setattr(sources, "FREE_EXPANSION", 1 << 20)
    monkeypatch.setattr(sources, "MAX_EXPANSION", 100)
    log.write_bytes(compress(bytes(8 << 20)))
    if compress is gzip.compress:
        assert len(read(log)) == 8 << 20  # gzip cannot do worse than 1,032
        return
    with pytest.raises(LogError, match="decompresses to more than 100 times its size"):
        read(log)


def test_a_dictionary_that_takes_too_much_memory_is_told(log: Path) -> None:
    large = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 512 << 20}]
    log.write_bytes(lzma.compress(CONTENT, filters=large))
    with pytest.raises(LogError, match=r"cannot be decompressed: Memory usage limit"):
        read(log)


def test_what_the_usual_programs_make_at_their_highest_setting_is_read(log: Path) -> None:
    log.write_bytes(lzma.compress(CONTENT, preset=9 | lzma.PRESET_EXTREME))
    assert read(log) == CONTENT
    log.write_bytes(zstd(CONTENT, 22))
    assert read(log) == CONTENT


@pytest.mark.parametrize("compress", [bytes, *COMPRESS.values()], ids=["plain", *COMPRESS])
def test_standard_input_is_read_however_it_is_compressed(
    compress: Callable[[bytes], bytes], log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write_bytes(compress(CONTENT))
    with log.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert read(STDIN) == CONTENT


@pytest.mark.parametrize("content", [CONTENT, lzma.compress(CONTENT)], ids=["plain", "xz"])
def test_a_pipe_is_read_even_if_its_first_octets_come_one_by_one(
    content: bytes, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write() -> None:
        with pipe.open("wb", buffering=0) as file:
            for octet in content[:20]:
                file.write(bytes((octet,)))
            rest = content[20:]
            while rest:
                rest = rest[file.write(rest) :]

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    assert read(pipe) == CONTENT
    writer.join()


@pytest.mark.usefixtures("journal")
def test_the_journal_is_read() -> None:
    assert read(JOURNAL) == CONTENT


def test_a_file_that_is_not_there_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"/none: No such file or directory$"):
        read(tmp_path / "none")
    with pytest.raises(LogError, match=r": Is a directory$"):
        read(tmp_path)


def test_a_name_with_control_characters_is_told_in_printable_ones(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"/a\\x1b\[31mb\\udcff: No such file"):
        read(tmp_path / "a\x1b[31mb\udcff")


def test_standard_input_that_is_closed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(LogError, match=r"^-: "):
        read(STDIN)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(LogError, match=r"^-: standard input is closed$"):
        read(STDIN)


def test_a_journalctl_that_fails_or_is_missing_is_told(journal: Path) -> None:
    journal.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(LogError, match=r"^journalctl: exit status 3$"):
        read(JOURNAL)
    journal.unlink()
    with pytest.raises(LogError, match=r"^journalctl: No such file or directory$"):
        read(JOURNAL)
