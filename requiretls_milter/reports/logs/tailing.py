"""Read several logs while they are written, each in a thread of its own.

A thread waits for its log (:mod:`.growing`, journalctl, standard input), cuts it into lines, and
puts them into one bounded queue. If nobody takes them from there, the logs are read more slowly;
no line is dropped.
"""

from __future__ import annotations

import contextlib
import functools
import io
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple, cast

from requiretls_milter.reports.logs import sources
from requiretls_milter.reports.logs.growing import POLL, GrowingLog
from requiretls_milter.reports.logs.lines import Line, lines

MAX_QUEUED = 500
"""Lines that wait: each has at most 64 KiB."""

JOURNAL_PAUSE = 5.0
"""Seconds until journalctl is started again if it has ended."""

JOURNAL_START = 0.5
"""Seconds after which journalctl is taken to have started well."""

MAX_ERROR = 200
"""Octets of what journalctl says is wrong."""

END_WITHIN = 20.0
"""Seconds for what the logs still hold when the end is told."""

Say = Callable[[str, str], None]
"""Takes a log, and what is wrong with it, or "" if it can be read again."""


class _Ended(NamedTuple):
    """A log was read to its end, or its thread has failed."""

    error: Exception | None = None


class Tail:
    """Reads logs from now on, until :meth:`stop`.

    Args:
        logs: files, :data:`~.sources.STDIN`, :data:`~.sources.JOURNALS`.
        say: is called from the threads.
    """

    def __init__(self, logs: Sequence[str], say: Say) -> None:
        self._logs = tuple(dict.fromkeys(logs))
        self._say = say
        self._queue: queue.Queue[Line | _Ended] = queue.Queue(MAX_QUEUED)
        self._stop = threading.Event()
        self._journalctl: dict[str, subprocess.Popen[bytes]] = {}
        self._reading = len(self._logs)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin. What a file or the journal holds by then is not read."""
        for number, log in enumerate(self._logs):
            read = self._reader_of(log)
            thread = threading.Thread(
                target=self._read, args=(read,), name=f"log-{number}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def lines(self, seconds: float) -> list[Line]:
        """The lines that have come, or come within some seconds; none if there are none."""
        found: list[Line] = []
        with contextlib.suppress(queue.Empty):
            self._add(found, self._queue.get(timeout=seconds))
            while len(found) < MAX_QUEUED:
                self._add(found, self._queue.get_nowait())
        return found

    @property
    def has_ended(self) -> bool:
        """Whether every log was read to its end: of a file or the journal only after a stop."""
        return self._reading == 0

    def stop(self) -> None:
        """Let files and journal end where they end now."""
        self._stop.set()
        for child in list(self._journalctl.values()):
            child.terminate()

    def rest(self) -> Iterator[Line]:
        """Stop, and read what the logs still hold; what comes later than that is not waited for."""
        self.stop()
        end = time.monotonic() + END_WITHIN
        while not self.has_ended and (left := end - time.monotonic()) > 0:
            found = self.lines(min(left, POLL))
            yield from found
            if not found and not self._has_ends_to_come():
                break

    def _has_ends_to_come(self) -> bool:
        """Whether a log is read that will end: standard input does when its writer does."""
        reading = zip(self._logs, self._threads, strict=True)
        return any(log != sources.STDIN and thread.is_alive() for log, thread in reading)

    def _add(self, found: list[Line], item: Line | _Ended) -> None:
        if isinstance(item, Line):
            found.append(item)
            return
        self._reading -= 1
        if item.error is not None:
            raise item.error

    def _reader_of(self, log: str) -> Callable[[], None]:
        """What a thread does to read a log from now on."""
        if log in sources.JOURNALS:
            return functools.partial(self._read_journal, log, time.time())
        if log == sources.STDIN:
            return self._read_stdin
        growing_log = GrowingLog(log, self._stop, functools.partial(self._say, log))
        return functools.partial(self._read_file, growing_log)

    # ------------------------------------------------------------ in a thread

    def _read(self, read: Callable[[], None]) -> None:
        ended = _Ended()
        try:
            read()
        except Exception as error:  # noqa: BLE001 - raised again where the lines are taken
            ended = _Ended(error)
        self._queue.put(ended)

    def _read_stdin(self) -> None:
        with sources.opened(sources.STDIN, 0) as stream:
            self._put(stream)

    def _read_file(self, log: GrowingLog) -> None:
        with log, io.BufferedReader(log, sources.CHUNK) as stream:
            self._put(stream)

    def _put(self, stream: BinaryIO) -> None:
        for line in lines(stream):
            self._queue.put(line)

    def _read_journal(self, log: str, since: float) -> None:
        boots = sources.of_any_boot()
        while not self._stop.is_set():
            try:
                since, error = self._run_journalctl(log, since, boots)
            except OSError as failure:
                error = str(failure.strerror)
            if not self._stop.is_set():
                self._say(log, f"journalctl: {error}")
                self._stop.wait(JOURNAL_PAUSE)
                if "--merge" in error:  # some before systemd 254 refuse it with --follow
                    boots = []

    def _run_journalctl(self, log: str, since: float, boots: list[str]) -> tuple[float, str]:
        """Read what it prints; returns the time of the last line, and why it has ended."""
        # The last second is read again: what was known of it is told by its time.
        options = ("--follow", "--no-tail", *boots, "--output", "export")
        command = sources.journalctl(log, f"@{int(since)}", *options)
        # In a group of its own, so that Ctrl-C reaches this process alone.
        with (
            tempfile.TemporaryFile() as said,
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=said, process_group=0
            ) as child,
        ):
            self._journalctl[log] = child
            if self._stop.is_set():
                child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(JOURNAL_START)
            if child.returncode is None:
                self._say(log, "")
            for line in lines(cast(BinaryIO, child.stdout)):
                self._queue.put(line)
                since = max(since, min(line.time or 0.0, time.time()))
            said.seek(0)
            text = said.read(MAX_ERROR).decode("utf-8", "backslashreplace").strip()
        return since, text or f"exit status {child.returncode}"
