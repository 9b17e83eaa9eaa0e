"""What a child prints outside of its log: the last words of a process that crashes.

The interpreter's fatal errors, the tracebacks of faulthandler and the messages of C libraries go
to descriptor 2 past Python. In a child this is a pipe of its own, which never blocks: what finds
no room in it is lost. The supervisor reads it and writes it to the log as it is, so that the words
of a child that has died are not lost with its threads.
"""

from __future__ import annotations

import contextlib
import os
import selectors

from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.output import LineBuffer

_CHUNK = 1 << 16
"""Octets read at once: what a pipe holds (pipe(7))."""


class Printed:
    """The pipe, made before the fork.

    Args:
        selector: on which the supervisor waits.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._selector: selectors.BaseSelector | None = selector
        self._buffer = LineBuffer(log.write_raw)
        selector.register(self._read, selectors.EVENT_READ, self)

    def take_over(self) -> int:
        """Make it this process' descriptor 2; returns where that led to before. In the child."""
        before = os.dup(log.STDERR)
        os.dup2(self._write, log.STDERR)
        self.close_child_end()
        return before

    def close_child_end(self) -> None:
        """Leave the writing to the child."""
        os.close(self._write)

    def read(self) -> None:
        """Log what the child has printed by now; does not wait."""
        if self._selector is None:
            return
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._read, _CHUNK)
            self._buffer.feed(data.decode("utf-8", "backslashreplace"))
            if not data:
                self.end()

    def end(self) -> None:
        """Read no more. In the supervisor."""
        if self._selector is not None:
            self._buffer.end()
            self._selector.unregister(self._read)
            self._selector = None
            os.close(self._read)

    def close(self) -> None:
        """Close the inherited end: in a child, which has no selector."""
        if self._selector is not None:
            os.close(self._read)
