"""Open a log, wherever it is and however it is compressed.

Compression is told by the first octets, never by the name. Python's own modules decompress (zstd
is one of them from Python 3.14 on; before, it is the package ``backports.zstd``, the same code).
What a decompressor may take is bounded in memory, and so is how much it may make of how little.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.syntax.text import visible
from requiretls_milter.telemetry.syslog import FACILITIES

STDIN = "-"
"""The log that stands for standard input."""

JOURNAL = "journal:"
"""The log that stands for the journal of :data:`UNIT`."""

MAIL_JOURNAL = "journal:mail"
"""The log that stands for what the journal has of mail, of whatever program."""

JOURNALS = (JOURNAL, MAIL_JOURNAL)
"""Both of the journal."""

UNIT = "requiretls-milter"
"""The service's systemd unit."""

MACHINE_ID = Path("/etc/machine-id")
"""Says by which ID the journal has what this host logs."""

CHUNK = 65_536
"""Octets that are read at once."""

MAX_DICTIONARY = 128 * 1024 * 1024
"""Octets of memory of a decompressor. What ``xz -9`` and ``zstd --ultra -22`` make needs that."""

_MAX_WINDOW_LOG = 27
"""The same for zstd, as a power of two."""

MAX_EXPANSION = 2_000
"""How many times larger than its file a decompressed log may be; gzip cannot exceed 1,032."""

FREE_EXPANSION = 256 * 1024 * 1024
"""Octets that may be decompressed whatever the ratio is: a small log of equal lines."""

_HEAD = 6
"""Octets that tell a compression."""


class LogError(RequiretlsMilterError):
    """A log cannot be read, or not to its end: what was made of it so far is no result."""


@contextlib.contextmanager
def opened(log: str, days: int) -> Iterator[BinaryIO]:
    """Open *log* as a stream of decompressed octets.

    Args:
        log: a file, :data:`STDIN`, :data:`JOURNAL` or :data:`MAIL_JOURNAL`.
        days: how far back to read the journal.

    Raises:
        LogError: it cannot be opened or read; also from within the body.
    """
    try:
        with _raw(log, days) as raw:
            yield _decompressed(raw)
    except (OSError, EOFError, zlib.error) as error:
        name = getattr(error, "filename", None) or log
        text = getattr(error, "strerror", None) or error
        raise LogError(visible(f"{name}: {text}")) from error


def can_reopen(log: str) -> bool:
    """Whether *log* can be read twice: it is a regular file, or none that can be read."""
    return log not in (STDIN, *JOURNALS) and (os.path.isfile(log) or not os.path.exists(log))


@contextlib.contextmanager
def _raw(log: str, days: int) -> Iterator[BinaryIO]:
    if log in JOURNALS:
        with _journal(log, days) as stream:
            yield stream
    elif log == STDIN:
        if sys.stdin is None:
            raise OSError(0, "standard input is closed", STDIN)
        with open(sys.stdin.fileno(), "rb", buffering=CHUNK, closefd=False) as stream:
            yield stream
    else:
        with open(log, "rb", buffering=CHUNK) as stream:
            yield stream


def journalctl(log: str, since: str, *further: str) -> list[str]:
    """The command line that prints what :data:`JOURNAL` or :data:`MAIL_JOURNAL` stands for.

    Args:
        log: one of the two.
        since: from when on, as journalctl reads it.
        further: options.
    """
    which = ["--unit", UNIT] if log == JOURNAL else [f"SYSLOG_FACILITY={FACILITIES['mail']}"]
    # --all: no "blob data".
    return ["journalctl", *which, "--since", since, *further, "--all", "--quiet"]


def of_any_boot() -> list[str]:
    """Options with which ``journalctl --follow`` shows what this host logs, whichever boot it is.

    That of systemd 252 shows the current boot alone, by an ID that it takes from /proc. In a
    container a unit with a /proc of its own finds the machine's there, and the journal has that of
    the container: then nothing would be shown.
    """
    try:
        machine = MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return []
    return ["--merge", f"_MACHINE_ID={machine}"] if machine.isalnum() else []


@contextlib.contextmanager
def _journal(log: str, days: int) -> Iterator[BinaryIO]:
    """Lines of the journal; raises OSError if journalctl is missing or fails."""
    # With times, so that the journal can be read beside files.
    command = journalctl(log, f"-{days}d", "--output", "short-unix")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as journal:
        yield cast(BinaryIO, journal.stdout)
        if journal.wait() != 0:
            raise OSError(0, f"exit status {journal.returncode}", "journalctl")


# ---------------------------------------------------------------- compression


class _Decompressor(Protocol):
    """What :mod:`bz2`, :mod:`lzma` and zstd have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


def _xz() -> _Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_DICTIONARY)


def _zstd() -> _Decompressor:
    zstd = _zstd_module()
    options = {zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG}
    return cast(_Decompressor, zstd.ZstdDecompressor(options=options))


def _zstd_module() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


_GZIP = b"\x1f\x8b"

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_MAGIC: tuple[tuple[bytes, Callable[[], _Decompressor]], ...] = (
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\x00", _xz),
    (b"\x28\xb5\x2f\xfd", _zstd),
)


def _decompressed(raw: BinaryIO) -> BinaryIO:
    head = raw.read(_HEAD)
    whole = io.BufferedReader(_Rewound(head, raw), CHUNK)
    if head.startswith(_GZIP):
        return cast(BinaryIO, gzip.GzipFile(fileobj=whole, mode="rb"))
    for magic, decompressor in _MAGIC:
        if head.startswith(magic):
            return io.BufferedReader(_Decompressed(whole, magic, decompressor), CHUNK)
    if head.startswith(_UTF_16):
        return io.BufferedReader(_FromUtf16(whole), CHUNK)
    return whole


class _FromUtf16(io.RawIOBase):
    """A text in UTF-16, as PowerShell writes it, in UTF-8."""

    def __init__(self, file: io.BufferedReader[_Rewound]) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-16")("replace")
        self._pending = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._pending:
            data = self._file.read1(CHUNK)
            self._pending = self._decoder.decode(data, final=not data).encode("utf-8", "replace")
            if not data and not self._pending:
                return 0
        taken = self._pending[: len(buffer)]
        self._pending = self._pending[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)


class _Rewound(io.RawIOBase):
    """A stream, which may be a pipe, with the octets before it that were read already."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head or self._rest.read1(len(buffer))  # type: ignore[attr-defined]
        taken = data[: len(buffer)]
        self._head = self._head[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)


class _Decompressed(io.RawIOBase):
    """A file of one or more compressed streams, one behind the other.

    Raises OSError or EOFError from its reads if the file is damaged, cut, or a bomb.
    """

    def __init__(
        self,
        file: io.BufferedReader[_Rewound],
        magic: bytes,
        decompressor: Callable[[], _Decompressor],
    ) -> None:
        self._file = file
        self._magic = magic
        self._new = decompressor
        self._current = decompressor()
        self._pending = b""
        self._read = 0
        self._made = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._current.eof or self._next_stream():
            data = b""
            if self._current.needs_input:
                data = self._more()
                if not data:
                    raise EOFError("the compressed file was cut: its end is missing")
            made = self._decompress(data, len(buffer))
            if made:
                buffer[: len(made)] = made
                return len(made)
        return 0

    def _decompress(self, data: bytes, size: int) -> bytes:
        try:
            made = self._current.decompress(data, size)
        except OSError:
            raise
        except Exception as error:
            text = str(error) or type(error).__name__
            raise OSError(0, f"cannot be decompressed: {text}") from error
        self._made += len(made)
        if self._made > FREE_EXPANSION and self._made > self._read * MAX_EXPANSION:
            raise OSError(0, f"decompresses to more than {MAX_EXPANSION} times its size: no log")
        return made

    def _more(self) -> bytes:
        data, self._pending = self._pending, b""
        if not data:
            data = self._file.read1(CHUNK)
            self._read += len(data)
        return data

    def _next_stream(self) -> bool:
        """Begin the stream behind the one that has ended; False at the end of the file."""
        self._pending = self._current.unused_data
        while data := self._more():
            data = data.lstrip(b"\0")  # padding of xz, or of a tape
            if data:
                break
        else:
            return False
        while len(data) < len(self._magic) and (more := self._more()):
            data += more
        if not data.startswith(self._magic):
            raise OSError(0, "something else follows the compressed data")
        self._current = self._new()
        self._pending = data
        return True
