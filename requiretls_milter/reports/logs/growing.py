"""A log file that is written while it is read, as one stream over all its rotations.

What a rotation looks like, and what is done:

- *rename and create*: the path leads to another file. Programs write to the old one until they are
  told to open the new one, so the old one is read on until nothing has come for :data:`LINGER`. A
  further rotation meanwhile is noted by opening each new file as soon as it is seen. What becomes
  of the old file (it is compressed, removed) does not matter to a file that is open.
- *copytruncate*: the file is copied, and then cut to nothing. It is shorter than what was read, or
  other octets stand where the last ones were read. What was written between the last reading and
  the copy is read from the copy, compressed or not, if it is found beside the log.
- *removed*, or not there yet: the path is looked at until there is a file.

The stream ends when the caller's event is set and all that was written has been read. Until then a
read waits. A line that a rotation has cut ends there.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

from requiretls_milter.reports.logs import sources
from requiretls_milter.reports.logs.lines import MAX_LINE
from requiretls_milter.reports.logs.sources import LogError

POLL = 0.5
"""Seconds between two looks at a file at whose end nothing new stood."""

LINGER = 10.0
"""Seconds without a new octet after which nothing more is expected in a file that was renamed."""

MAX_LINGER = 120.0
"""Seconds after which a renamed file is left although something still writes to it."""

MAX_OPEN = 20
"""Files of one log that are open: those between two rotations, of which no line was read yet."""

MAX_COPIES = 20
"""Files beside the log that are looked at for the copy of what was truncated, newest first."""

_REMEMBERED = 256
"""Octets before the place that was read last: if others stand there, the file is another one."""

Say = Callable[[str], None]
"""Takes what is wrong with a log, or "" if it can be read again."""


class GrowingLog(io.RawIOBase):
    """The stream. A file that is there at first is read from its end, any later one from its start.

    Args:
        path: of the log.
        stop: ends the stream once it is set and all is read.
        say: is called when the log cannot be read, and when it can be read again.
        poll: see :data:`POLL`.
        linger: see :data:`LINGER`.
    """

    def __init__(
        self,
        path: str,
        stop: threading.Event,
        say: Say,
        *,
        poll: float = POLL,
        linger: float = LINGER,
    ) -> None:
        self._path = path
        self._stop = stop
        self._say = say
        self._poll = poll
        self._linger = linger
        self._said = ""
        self._failed = ""
        """Why the last reading failed."""
        self._files: deque[_Part] = deque()
        """What is read now, and what will be read behind it; the last one is the log itself."""
        self._last = b"\n"
        """The last octet that was read."""
        self._look(begins_at_its_end=True)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what is there, or wait; 0 only at the end."""
        while True:
            now = time.monotonic()
            self._look()  # first: a file that was truncated may have grown again since
            data = self._read(len(buffer), now)
            if data:
                buffer[: len(data)] = data
                self._last = data[-1:]
                return len(data)
            if self._has_left(now):
                continue
            if not self._stop.is_set():
                self._stop.wait(self._poll)
                continue
            self._look()  # the end was told perhaps since the last look
            if not self._has_more():
                return 0

    def close(self) -> None:
        """Close all files."""
        while self._files:
            self._files.popleft().close()
        super().close()

    # ------------------------------------------------------------ reading

    def _read(self, size: int, now: float) -> bytes:
        """What the first file has; b"" if there is nothing now."""
        if not self._files:
            return b""
        first = self._files[0]
        try:
            data = first.read(size)
        except (OSError, EOFError, zlib.error) as error:
            # Of a copy the rest is lost; the log itself may be read again later.
            self._failed = _text(error)
            self._tell(self._failed)
            return b""
        self._failed = ""
        if data:
            first.read_at = now
        return data

    def _has_left(self, now: float) -> bool:
        """Leave the first file, at whose end nothing stood, if nothing more is expected there."""
        if len(self._files) < 2:
            return False
        first, following = self._files[0], self._files[1]
        quiet = now - max(first.read_at, following.seen_at)
        if not (
            first.is_complete
            or len(self._files) > 2
            or self._stop.is_set()
            or quiet >= self._linger
            or now - following.seen_at >= MAX_LINGER
        ):
            return False
        self._files.popleft().close()
        if self._last != b"\n":
            self._files.appendleft(_line_end())  # no line goes on in another file
            self._last = b"\n"
        return True

    def _has_more(self) -> bool:
        """Whether a file has octets that were not read, when all is to be read."""
        if len(self._files) > 1:
            return True
        return bool(self._files) and not self._failed and self._files[0].has_more()

    # ------------------------------------------------------------ rotations

    def _look(self, *, begins_at_its_end: bool = False) -> None:
        """Open the file to which the path leads if it is not the one that was read last."""
        last = self._files[-1] if self._files else None
        try:
            found = os.stat(self._path)
            if last is not None and last.is_file(found):
                if last.was_truncated(found.st_size):
                    self._begin_anew(last)
                self._tell(self._failed)
                return
            if len(self._files) >= MAX_OPEN:
                return  # one is read after the other: later
            part = _Part.of_log(self._path)
        except OSError as error:
            self._tell(_text(error))
            return
        if begins_at_its_end:
            part.go_to_last_line()
        self._files.append(part)
        self._tell(self._failed)

    def _begin_anew(self, truncated: _Part) -> None:
        """Read on in the copy of a file that was truncated, and then the file from its start."""
        self._files.pop()
        if (copy := self._copy_of(truncated)) is not None:
            self._files.append(copy)
        elif self._last != b"\n":
            self._files.append(_line_end())
        self._files.append(truncated.from_its_start())

    def _copy_of(self, truncated: _Part) -> _Part | None:
        """The copy from which nothing more was read than from the file itself."""
        candidates = []
        path = Path(self._path)
        for name in _names_beside(path):
            with contextlib.suppress(OSError):  # it was compressed or removed just now
                found = path.with_name(name).stat()
                if stat.S_ISREG(found.st_mode):
                    # A copy that is being compressed is better read as it is.
                    is_whole = found.st_size >= truncated.position
                    candidates.append((is_whole, found.st_mtime, str(path.with_name(name))))
        for _, _, candidate in sorted(candidates, reverse=True)[:MAX_COPIES]:
            with contextlib.suppress(OSError, LogError):
                if (copy := _Part.of_copy(candidate, truncated)) is not None:
                    return copy
        return None

    def _tell(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._say(text)


class _Part:
    """A file of the log, or the rest of its copy."""

    def __init__(self, stream: BinaryIO, close: Callable[[], object] | None = None) -> None:
        self._stream = stream
        self._close = stream.close if close is None else close
        self._before = b""
        """The octets before :attr:`position`, at most :data:`_REMEMBERED`."""
        self.position = 0
        self.is_complete = True
        """Whether it no longer grows."""
        self.read_at = 0.0
        self.seen_at = time.monotonic()

    @classmethod
    def of_log(cls, path: str) -> _Part:
        """Open a regular file, which grows.

        Raises:
            OSError: it cannot be opened, or is something else, such as a pipe.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(0, "it is no regular file")
        part = cls(cast(BinaryIO, io.FileIO(descriptor)))
        part.is_complete = False
        return part

    @classmethod
    def of_copy(cls, path: str, log: _Part) -> _Part | None:
        """Open the copy of a log behind what was read of the log; None if it is no copy.

        Raises:
            OSError, LogError: it cannot be read so far.
        """
        with contextlib.ExitStack() as stack:
            stream = stack.enter_context(sources.opened(path, 0))
            if not _skipped(stream, log.position - len(log._before)):
                return None
            if _exactly(stream, len(log._before)) != log._before:
                return None
            return cls(stream, stack.pop_all().close)

    def read(self, size: int) -> bytes:
        """What stands behind the last reading; b"" if there is nothing."""
        data = self._stream.read(size)
        if data:
            self.position += len(data)
            self._before = (self._before + data)[-_REMEMBERED:]
        return data or b""

    def close(self) -> None:
        """Close it."""
        with contextlib.suppress(OSError, LogError):
            self._close()

    def is_file(self, found: os.stat_result) -> bool:
        """Whether it is open here."""
        own = os.fstat(self._stream.fileno())
        return (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino)

    def has_more(self) -> bool:
        """Whether the file is longer than what was read of it."""
        return os.fstat(self._stream.fileno()).st_size > self.position

    def was_truncated(self, size: int) -> bool:
        """Whether what was read is no longer there."""
        if size < self.position:
            return True
        start = self.position - len(self._before)
        there = os.pread(self._stream.fileno(), len(self._before), start)
        # Less: it is truncated in this moment, as the next look will tell.
        return len(there) == len(self._before) and there != self._before

    def from_its_start(self) -> _Part:
        """The same file, to be read anew."""
        self._stream.seek(0)
        part = _Part(self._stream)
        part.is_complete = False
        return part

    def go_to_last_line(self) -> None:
        """Go to the start of the line that is being written: the half of a line is no line."""
        size = os.fstat(self._stream.fileno()).st_size
        start = max(0, size - MAX_LINE)
        end = os.pread(self._stream.fileno(), size - start, start)
        self.position = start + end.rfind(b"\n") + 1
        self._before = end[: self.position - start][-_REMEMBERED:]
        self._stream.seek(self.position)


def _names_beside(log: Path) -> list[str]:
    """Names of what can be a rotation of the log."""
    with contextlib.suppress(OSError):
        return [
            one
            for one in os.listdir(log.parent)
            if one.startswith((f"{log.name}.", f"{log.name}-"))
        ]
    return []


def _line_end() -> _Part:
    return _Part(io.BytesIO(b"\n"))


def _skipped(stream: BinaryIO, octets: int) -> bool:
    """Whether so many octets could be read and dropped."""
    while octets > 0 and (data := stream.read(min(octets, sources.CHUNK))):
        octets -= len(data)
    return octets == 0


def _exactly(stream: BinaryIO, octets: int) -> bytes:
    """So many octets, or what there is if it is less."""
    found = b""
    while len(found) < octets and (data := stream.read(octets - len(found))):
        found += data
    return found


def _text(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
