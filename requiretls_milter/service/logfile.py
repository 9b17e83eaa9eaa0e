"""The log as a file, for a host without a journal: opened anew after a rotation.

The supervisor opens the file after it has given up its rights, so that what it can open at the
start it can open again. It is descriptor 2 of the supervisor: what a C library prints is there as
well. Each process has a descriptor of its own for it; :meth:`LogFile.reopen` and
:meth:`LogFile.look` give the one of the new file, which the supervisor passes to all.

logrotate(8) renames the file, makes a new one, and then has SIGUSR1 sent. Without the signal, the
new file is noticed. The service makes the file itself only some time after it is gone: if it were
faster than logrotate, that would end with an error.

If the file was deleted and no other one can be made, since its directory is gone, lines would
vanish uncounted. Then the log becomes a pipe without a reader: each line is refused and counted.

Log lines, with keys that stay as they are: ``event=log_file_opened`` (with ``path``),
``event=log_file_not_opened`` (with ``path`` and ``error``).
"""

from __future__ import annotations

import os
import stat

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.telemetry import log

MODE = 0o640
"""Of a new file: it has the addresses of senders and recipients."""

LOOK = 1.0
"""Seconds between two looks at whether the file is in its place."""

PATIENCE = 5.0
"""Seconds in which whoever has renamed the file may make another one."""

_log = log.get_logger("supervisor")


class LogFileError(RequiretlsMilterError):
    """The log file cannot be opened; the text says which and why."""


class LogFile:
    """The file; it becomes standard error, here and for all children to come.

    Args:
        path: of the file; absolute.

    Raises:
        LogFileError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._next_look = 0.0
        self._gone_since: float | None = None
        self._error = ""
        self._take(self._open())

    def reopen(self) -> int | None:
        """Open the file anew, as SIGUSR1 demands.

        Returns:
            A descriptor for the other processes, which the caller closes; None if it cannot be
            opened, and all go on with the file that they have.
        """
        try:
            descriptor = self._open()
        except LogFileError as error:
            self._say(str(error))
            return None
        self._take(os.dup(descriptor))
        self._error = ""
        _log.info("log_file_opened", path=self.path)
        return descriptor

    def look(self, now: float) -> int | None:
        """Open the file anew if it is not in its place; to be called at each turn.

        Args:
            now: on the monotonic clock.

        Returns:
            As :meth:`reopen`; None also if nothing is to be done.
        """
        if now < self._next_look:
            return None
        self._next_look = now + LOOK
        ours = os.fstat(log.STDERR)
        there = self._there()
        if there is not None and os.path.samestat(ours, there):
            self._gone_since = None
            return None
        is_deleted = ours.st_nlink == 0 or not stat.S_ISREG(ours.st_mode)
        if there is None and not is_deleted:
            if self._gone_since is None:
                self._gone_since = now
            if now - self._gone_since < PATIENCE:
                return None
        opened = self.reopen()
        if opened is None and ours.st_nlink == 0:
            opened = _without_reader()
            self._take(os.dup(opened))
        return opened

    def _there(self) -> os.stat_result | None:
        try:
            return os.stat(self.path)
        except OSError:
            return None

    def _open(self) -> int:
        # A FIFO would wait for its reader, or for ever.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        mask = os.umask(0o777 & ~MODE)
        try:
            descriptor = os.open(self.path, flags, MODE)
        except OSError as error:
            raise LogFileError(f"cannot open {self.path}: {error.strerror}") from error
        finally:
            os.umask(mask)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise LogFileError(f"cannot open {self.path}: it is not a regular file")
        return descriptor

    def _take(self, descriptor: int) -> None:
        os.dup2(descriptor, log.STDERR)
        os.close(descriptor)

    def _say(self, error: str) -> None:
        if error != self._error:
            self._error = error
            _log.error("log_file_not_opened", path=self.path, error=error)


def _without_reader() -> int:
    read, write = os.pipe()
    os.close(read)
    return write
