"""Telling systemd the state of the service: sd_notify(3), datagrams to $NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket
import time

MAX_STATUS = 200
"""Characters of the line that ``systemctl status`` shows."""


class ServiceManager:
    """Sends states to the service manager; does nothing without one.

    Takes the socket's name out of the environment, so that no child can speak for
    the service. A message that cannot be sent is dropped: the service goes on.
    """

    def __init__(self, environ: os._Environ[str] | dict[str, str] = os.environ) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        # "@name" is an abstract socket; other transports, such as vsock, are not supported.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address.startswith(("/", "@")) and len(address) > 1:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        interval = _watchdog_interval(environ)
        self.watchdog_interval = interval if self.enabled else 0.0
        """Seconds within which the manager expects a :meth:`watchdog`; 0 if it expects none."""

    @property
    def enabled(self) -> bool:
        """Whether there is a service manager."""
        return self._socket is not None

    def ready(self, status: str) -> None:
        """Say that the service is up, or has finished a reload."""
        self._send("READY=1", _status(status))

    def reloading(self) -> None:
        """Say that the service reads its configuration; :meth:`ready` follows."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", _status("reading the configuration"))

    def stopping(self, status: str) -> None:
        """Say that the service is about to end."""
        self._send("STOPPING=1", _status(status))

    def status(self, status: str) -> None:
        """Send the line that ``systemctl status`` shows."""
        self._send(_status(status))

    def watchdog(self) -> None:
        """Say that the service is healthy."""
        self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        """Say that the present start, reload or stop may take ``seconds`` from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")

    def close(self) -> None:
        """Send no more messages: in a child, whose state is not the service's."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *assignments: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto("\n".join(assignments).encode(), self._address)
        except OSError:
            # The manager is gone or its queue is full, and there is no other way to tell it.
            return


def _status(text: str) -> str:
    line = " ".join(text.split())[:MAX_STATUS]
    return f"STATUS={line}"


def _watchdog_interval(environ: os._Environ[str] | dict[str, str]) -> float:
    """$WATCHDOG_USEC in seconds; 0 unless it is meant for this process ($WATCHDOG_PID)."""
    microseconds = environ.pop("WATCHDOG_USEC", "")
    pid = environ.pop("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(microseconds) / 1_000_000
