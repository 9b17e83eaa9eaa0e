"""Signals, turned into something that the supervisor's loop can wait for.

How to handle signals in a program that is one loop around select(2):

- Act in the handler. Python runs it between any two instructions of the main
  thread. A reload could then begin in the middle of a drain, or between the moment
  at which a child was found dead and the one at which it is replaced; every
  data structure of the supervisor would have to bear that.

- ``signal.set_wakeup_fd`` alone, and read the numbers of the signals from the
  socket. Python's C handler writes a byte for each signal, and loses the byte if
  the socket is full. A socket pair holds 278 of them: behind a storm of SIGHUP,
  while a large configuration is being read, a SIGTERM would be lost, and with it the
  order to stop.

- Block the signals and use sigtimedwait(2) or signalfd(2). The first cannot wait
  for sockets at the same time, the second is not in Python's library, and the mask
  would be inherited by every child.

What is done here: the handler notes the number and does nothing else, and the
wakeup socket only ends the wait. That a full socket loses bytes does not matter, for
a full socket wakes the loop, and the numbers are in the notes. A signal that comes
after the loop has taken its notes and before it waits leaves a byte, so that the
wait ends at once. The notes are bounded: of each kind, as many as could make a
difference.
"""

from __future__ import annotations

import contextlib
import signal
import socket

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)

MAX_NOTED = 2
"""Signals of one kind between two turns of the loop: a second SIGINT has a meaning, no third."""

_CHUNK = 4096
"""Bytes that are read from the wakeup socket at once; more would only wake the loop again."""


class Signals:
    """The signals of this process, from :meth:`install` on; main thread only."""

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._noted: list[int] = []

    def install(self) -> None:
        """Note signals from now on, in place of what they did before."""
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, self._note)

    def fileno(self) -> int:
        """For a selector: readable when a signal has come."""
        return self._read.fileno()

    def take(self) -> list[int]:
        """The signals since the last call, oldest first."""
        with contextlib.suppress(BlockingIOError):  # nothing there: another thing woke the loop
            self._read.recv(_CHUNK)
        numbers, self._noted = self._noted, []
        return numbers

    def uninstall(self) -> None:
        """Wake no loop any more."""
        signal.set_wakeup_fd(-1)

    def close(self) -> None:
        """Close the sockets: in a child, which has signals of its own."""
        self._read.close()
        self._write.close()

    def _note(self, number: int, _frame: object) -> None:
        if self._noted.count(number) < MAX_NOTED:
            self._noted.append(number)
