"""What takes log lines: a descriptor of whatever kind, or a syslog daemon.

A pipe, a terminal and a socket take octets only as long as they are read. Each kind has its own way
to write without a wait; a file on a disk has none. The descriptor's file description is shared with
whatever started the service, so that O_NONBLOCK is never set on it.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable


class Target(ABC):
    """Where lines go."""

    @abstractmethod
    def writer(self) -> Writer | None:
        """What writes there without a wait; None if nothing can, as to a file on a disk."""

    @abstractmethod
    def write(self, data: bytes) -> int:
        """Write, which may wait; returns how many octets were taken.

        Raises:
            BlockingIOError: none now: :meth:`wait`.
            OSError: none at all.
        """

    @abstractmethod
    def wait(self) -> None:
        """Wait until it takes some again."""


class Writer(ABC):
    """Writes to a target without a wait."""

    @abstractmethod
    def write(self, data: bytes) -> int:
        """Write; returns how many octets were taken.

        Raises:
            BlockingIOError: none now.
            OSError: none at all.
        """

    @abstractmethod
    def close(self) -> None:
        """Close what the writer has opened."""


class Descriptor(Target):
    """A descriptor. It stays open.

    Args:
        number: of the descriptor.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def writer(self) -> Writer | None:
        """See :meth:`Target.writer`."""
        return _writer(self.number)

    def write(self, data: bytes) -> int:
        """See :meth:`Target.write`."""
        return os.write(self.number, data)

    def wait(self) -> None:
        """See :meth:`Target.wait`. Another program has made the descriptor non-blocking."""
        select.select([], [self.number], [])


class _SocketWriter(Writer):
    """Writes to a socket, such as the journal's: send(2) does not wait if it is told so."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))

    def write(self, data: bytes) -> int:
        return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        self._socket.close()


class _PipeWriter(Writer):
    """Writes to another user's pipe: splice(2) does not wait if it is told so.

    It takes two calls, since the octets come from a pipe of our own.

    Raises:
        OSError: this process may not call splice(2).
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._read, self._write = os.pipe()
        try:
            os.splice(self._read, descriptor, 0, flags=os.SPLICE_F_NONBLOCK)
        except OSError:
            self.close()
            raise

    def write(self, data: bytes) -> int:
        left = os.write(self._write, data[: select.PIPE_BUF])
        try:
            moved = os.splice(self._read, self._descriptor, left, flags=os.SPLICE_F_NONBLOCK)
            left -= moved
        finally:
            if left:
                os.read(self._read, left)
        return moved

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class _ReopenedWriter(Writer):
    """Writes to a terminal or pipe, opened once more so that O_NONBLOCK is for us alone.

    Raises:
        OSError: it belongs to another user.
    """

    def __init__(self, descriptor: int) -> None:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        self._descriptor = os.open(f"/proc/self/fd/{descriptor}", flags)

    def write(self, data: bytes) -> int:
        return os.write(self._descriptor, data)

    def close(self) -> None:
        os.close(self._descriptor)


def _writer(descriptor: int) -> Writer | None:
    """The writer for what a descriptor is; None if there is none, as for a file on a disk."""
    kinds: list[Callable[[int], Writer]] = []
    with contextlib.suppress(OSError):  # a closed one
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISSOCK(mode):
            kinds = [_SocketWriter]
        elif stat.S_ISFIFO(mode):
            kinds = [_ReopenedWriter, _PipeWriter]
        elif os.isatty(descriptor):
            kinds = [_ReopenedWriter]
    for kind in kinds:
        with contextlib.suppress(OSError):
            return kind(descriptor)
    return None
