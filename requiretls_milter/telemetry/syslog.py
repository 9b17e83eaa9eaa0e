"""Log lines to the syslog daemon of this host, without a wait and without :mod:`syslog`.

syslog(3) and the handler of Python's library wait for a daemon that stands still. Here a line is a
datagram to :data:`SOCKET` as the C library writes it: ``<PRIORITY>Mmm dd hh:mm:ss TAG[PID]: LINE``.
The address is told anew with each line, so that a daemon that was started again gets the next one.
A line begins with its severity in angle brackets, as for the journal; what has none, such as the
last words of a process that crashed, is an error.

A line has at most :data:`MAX_LINE` octets and loses its end: what reports need stands before that.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import time
from collections.abc import Mapping

from requiretls_milter.telemetry.targets import Target, Writer

SOCKET = "/dev/log"
"""Where the daemon listens, under Linux always."""

TAG = "requiretls-milter"
"""The program's name in each line."""

MAX_LINE = 8000
"""Octets of a datagram: rsyslog takes 8 KiB (``maxMessageSize``). A daemon that takes less, such as
the 1,024 of RFC 3164, cuts by itself; the journal takes more."""

FACILITIES: Mapping[str, int] = {
    "mail": 2,
    "daemon": 3,
    "user": 1,
    **{f"local{number}": 16 + number for number in range(8)},
}
"""RFC 5424 section 6.2.1; those that are for other programs are left out."""

_ERROR = 3
_PRIORITY = re.compile(rb"<([0-7])>")


class Syslog(Target):
    """The syslog daemon; it need not be there.

    Args:
        facility: one of :data:`FACILITIES`.
        path: of its socket.
    """

    def __init__(self, facility: str, path: str = SOCKET) -> None:
        self._facility = FACILITIES[facility]
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def problem(self) -> str:
        """Why no line would arrive now; "" if a daemon listens."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
            caller.setblocking(False)
            try:
                caller.connect(self._path)
            except OSError as error:
                if error.errno == errno.EPROTOTYPE:
                    return f"{self._path} takes a stream; a syslog daemon has to take datagrams"
                return f"no syslog daemon listens at {self._path}: {error.strerror}"
        return ""

    def close(self) -> None:
        """Close the socket, when nothing is to be written any more."""
        self._socket.close()

    def writer(self) -> Writer:
        """See :meth:`.Target.writer`."""
        return _Datagrams(self)

    def write(self, data: bytes) -> int:
        """See :meth:`.Target.write`; one line is taken, once the daemon's queue has room."""
        return self.send(data, 0)

    def wait(self) -> None:
        """See :meth:`.Target.wait`; :meth:`write` has waited."""

    def send(self, data: bytes, flags: int) -> int:
        """Send the first of the lines in *data*; returns how many octets that was.

        Args:
            data: whole lines.
            flags: of send(2).

        Raises:
            OSError: no daemon listens, or it cannot take the line now.
        """
        line = data[: data.index(b"\n") + 1]
        self._socket.sendto(self._datagram(line), flags, self._path)
        return len(line)

    def _datagram(self, line: bytes) -> bytes:
        priority = _PRIORITY.match(line)
        severity = _ERROR if priority is None else int(priority[1])
        text = line if priority is None else line[priority.end() :]
        now = time.strftime("%b %e %H:%M:%S")
        head = f"<{self._facility * 8 + severity}>{now} {TAG}[{os.getpid()}]: "
        return (head.encode() + text.rstrip())[:MAX_LINE]


class _Datagrams(Writer):
    """Writes to a syslog daemon, whose socket is the target's."""

    def __init__(self, target: Syslog) -> None:
        self._target = target

    def write(self, data: bytes) -> int:
        return self._target.send(data, socket.MSG_DONTWAIT)

    def close(self) -> None:
        """Close nothing: the socket is the target's."""
