"""How log lines reach a :mod:`target <.targets>`: no process waits for the target's reader.

A pipe, a terminal or the journal's socket takes octets only as long as they are read. A process
that wrote to it by itself would stand still with its reader: the worker's callbacks, the engine's
loop, the supervisor with its signals. So a line is put into a queue of at most :data:`MAX_QUEUED`
octets, and

- in a child, :class:`ThreadOutput` has one thread that writes them, and may wait;
- the supervisor, which forks and therefore has no threads, writes only what is taken at once
  (:class:`TurnOutput`), and tries again at each turn of its loop.

If the queue is full, lines are dropped until half of it is free again; then the log says how many.
A line is written whole or not at all, and the order stays. What is written at once is a number of
whole lines of at most PIPE_BUF octets, which no line of another process can tear (pipe(7)).
"""

from __future__ import annotations

import io
import select
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence

from requiretls_milter.telemetry.targets import Target

MAX_QUEUED = 1 << 20
"""Octets of lines that wait for the reader: some 3,000 lines, seconds of a busy server."""

LINE_OVERHEAD = 64
"""Octets that a queued line takes besides its text."""

LAST_WORDS = 1.0
"""Seconds for the lines that are left when a process ends; a reader takes milliseconds."""

MAX_PARTIAL = 1 << 16
"""Octets without an end of line that are kept; a line of ours is shorter."""

_GATHER = 0.02
"""Seconds in which the thread lets lines gather if only it may write: a wake-up costs more than
a write, and none is needed for each of the lines of a busy second."""

_POLL = 0.02
"""Seconds between two attempts to write the last lines."""

Tell = Callable[[int], str | None]
"""Renders the line that says how many lines were dropped; None if the log's level is above it."""


class Output(ABC):
    """A bounded queue of lines before a target; :meth:`put` never waits.

    Args:
        target: where the lines go. It stays open when the output is closed.
        tell: renders the line that says how many were dropped.
    """

    def __init__(self, target: Target, tell: Tell) -> None:
        self.target = target
        self._tell = tell
        # Reentrant: a finalizer that runs while a line is put may log another one.
        self._lock = threading.RLock()
        self._queue: deque[bytes] = deque()
        self._octets = 0
        self._dropping = False
        self._untold = 0
        self._uncounted = 0
        self._torn = False

    def take_dropped(self) -> int:
        """How many lines were dropped since the last call."""
        with self._lock:
            lines, self._uncounted = self._uncounted, 0
        return lines

    @abstractmethod
    def put(self, line: str) -> None:
        """Write a line, or several with the ends between them, soon or never."""

    def put_all(self, lines: Sequence[str]) -> None:
        """Write lines, each given without its end, as many as fit into one write(2)."""
        piece = ""
        for line in lines:
            if piece and len(piece) + len(line) + 2 > select.PIPE_BUF:
                self.put(piece)
                piece = ""
            piece = f"{piece}\n{line}" if piece else line
        if piece:
            self.put(piece)

    @abstractmethod
    def close(self, seconds: float) -> None:
        """Write what is left, within ``seconds``; the output takes no line after that."""

    def _enqueue(self, data: bytes) -> None:
        size = len(data) + LINE_OVERHEAD
        with self._lock:
            if not self._dropping and self._octets + size <= MAX_QUEUED:
                self._queue.append(data)
                self._octets += size
                return
            self._dropping = True
            self._lost(data.count(b"\n"))

    def _lost(self, lines: int) -> None:
        with self._lock:
            self._untold += lines
            self._uncounted += lines

    def _failed(self, left: bytes, *, begun: bool) -> None:
        """Note lines that could not be written; the next ones are tried all the same.

        Args:
            left: what was not taken.
            begun: whether the first of these lines was written in part, so that it has to be ended.
        """
        with self._lock:
            self._torn = self._torn or begun
            self._lost(left.count(b"\n"))
            if self._octets <= MAX_QUEUED // 2:
                self._dropping = False

    def _take(self) -> bytes:
        """Whole lines of at most PIPE_BUF octets, or one longer line; b"" if there is none."""
        with self._lock:
            lines: list[bytes] = []
            length = 0
            while self._queue and (not lines or length + len(self._queue[0]) <= select.PIPE_BUF):
                line = self._queue.popleft()
                lines.append(line)
                length += len(line)
            self._octets -= length + LINE_OVERHEAD * len(lines)
            return b"".join(lines)

    def _say_what_was_lost(self) -> None:
        """Put the number of dropped lines where they are missing, once there is room again."""
        if not self._untold:
            return
        with self._lock:
            if self._octets > MAX_QUEUED // 2:
                return
            lines, self._untold = self._untold, 0
            self._dropping = False
            told = self._tell(lines)
            if told is not None:
                self._enqueue(_encoded(told))


class ThreadOutput(Output):
    """The output of a child, in which any thread may put lines. To be made after the fork.

    A line is written at once if nothing waits before it and the descriptor takes it, which costs
    less than to wake another thread, and is not lost with a process that is killed. A file on a
    disk may always make its writer wait: the thread writes what has gathered.
    """

    def __init__(self, target: Target, tell: Tell) -> None:
        super().__init__(target, tell)
        self._writer = target.writer()
        self._ended = threading.Event()
        self._closing = False
        self._idle = False
        self._work = threading.Semaphore(0)
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def put(self, line: str) -> None:
        """See :meth:`Output.put`."""
        data = _encoded(line)
        with self._lock:
            if self._idle and self._writer is not None and not self._queue and not self._untold:
                try:
                    taken = self._writer.write(data)
                except OSError:
                    taken = 0  # the thread may wait, and finds out whether that is of any use
                if taken == len(data):
                    return
                data = data[taken:]
            self._enqueue(data)
            idle = self._idle
        if idle:
            self._wake()

    def _wake(self) -> None:
        with self._lock:
            wake, self._idle = self._idle, False
        if wake:
            self._work.release()

    def _run(self) -> None:
        while True:
            data = self._take()
            if data:
                self._write(data)
                continue
            with self._lock:
                if self._queue:
                    continue
                if self._closing:
                    break
                self._idle = True
            self._work.acquire()
            if self._writer is None and not self._closing:
                time.sleep(_GATHER)
        self._ended.set()

    def _write(self, data: bytes) -> None:
        """Write everything, however long it takes, unless it cannot be written at all."""
        left = data
        try:
            if self._torn:
                self.target.write(b"\n")
                self._torn = False
            while left:
                try:
                    left = left[self.target.write(left) :]
                except BlockingIOError:
                    self.target.wait()
        except (OSError, ValueError):
            # Its reader is gone, or the disk is full, and there is no other place to report that.
            self._failed(left, begun=_is_within_line(data, left))
        else:
            self._say_what_was_lost()

    def close(self, seconds: float) -> None:
        """See :meth:`Output.close`."""
        self._closing = True
        self._wake()
        self._ended.wait(seconds)
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


class TurnOutput(Output):
    """The output of a process with a loop and without threads; :meth:`flush` at each turn."""

    def __init__(self, target: Target, tell: Tell) -> None:
        super().__init__(target, tell)
        self._taken = self._rest = b""
        self._flushing = False
        self._writer = target.writer()

    def put(self, line: str) -> None:
        """See :meth:`Output.put`."""
        self._enqueue(_encoded(line))
        self.flush()

    def flush(self) -> bool:
        """Write what is taken without a wait; returns whether nothing is left."""
        if self._flushing:  # a finalizer logs while a line is being written
            return False
        self._flushing = True
        try:
            return self._flush()
        finally:
            self._flushing = False

    def _flush(self) -> bool:
        while True:
            if not self._rest:
                self._taken = self._rest = self._take()
            if not self._rest:
                return True
            try:
                if self._torn:
                    self._write(b"\n")
                    self._torn = False
                self._rest = self._rest[self._write(self._rest) :]
            except BlockingIOError:
                return False
            except OSError:
                self._failed(self._rest, begun=_is_within_line(self._taken, self._rest))
                self._rest = b""
            else:
                self._say_what_was_lost()

    def _write(self, data: bytes) -> int:
        if self._writer is not None:
            return self._writer.write(data)
        return self.target.write(data)

    def close(self, seconds: float) -> None:
        """See :meth:`Output.close`."""
        deadline = time.monotonic() + seconds
        while not self.flush() and time.monotonic() < deadline:
            time.sleep(_POLL)
        self.forget()

    def forget(self) -> None:
        """Let go of it without another word: in a child, whose parent writes what is left."""
        if self._writer is not None:
            self._writer.close()


def _encoded(line: str) -> bytes:
    return (line + "\n").encode("utf-8", "backslashreplace")


def _is_within_line(data: bytes, left: bytes) -> bool:
    """Whether *left*, the end of *data*, begins in the middle of a line."""
    written = data[: len(data) - len(left)]
    return bool(written) and not written.endswith(b"\n")


class LineBuffer:
    """Cuts what comes in pieces into lines.

    Args:
        put: takes each line, without its end.
    """

    def __init__(self, put: Callable[[str], None]) -> None:
        self._put = put
        self._partial = ""

    def feed(self, text: str) -> None:
        """Take a piece, which may end in the middle of a line."""
        *lines, partial = (self._partial + text).split("\n")
        self._partial = partial
        for line in lines:
            self._put(line)
        if len(self._partial) > MAX_PARTIAL:
            self.end()

    def end(self) -> None:
        """Take what is there as a line."""
        if self._partial:
            line, self._partial = self._partial, ""
            self._put(line)


class StandardError(io.TextIOBase):
    """Stands in for ``sys.stderr``, to which Python itself writes: tracebacks and warnings.

    Args:
        put: takes each line, without its end.
    """

    def __init__(self, put: Callable[[str], None]) -> None:
        self._buffer = LineBuffer(put)
        self._lock = threading.RLock()

    def writable(self) -> bool:
        """See :meth:`io.IOBase.writable`."""
        return True

    def fileno(self) -> int:
        """The descriptor of standard error, for what cannot do without, such as faulthandler."""
        return 2

    def write(self, text: str) -> int:
        """See :meth:`io.TextIOBase.write`."""
        with self._lock:
            self._buffer.feed(text)
        return len(text)
