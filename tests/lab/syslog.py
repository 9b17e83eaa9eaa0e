"""A syslogd for one program: what is sent to a ``/dev/log`` goes to a file."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from pathlib import Path

MAX_DATAGRAM = 65536

_PRIORITY = re.compile(rb"^<\d+>")


class Syslog:
    """Takes datagrams at *device* and writes them to *file*, one a line, until ``stop``."""

    def __init__(self, device: Path, file: Path) -> None:
        """Listen from now on; the directories of both exist."""
        self._file = file.open("ab", buffering=0)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # By way of a descriptor: the path of a unix socket is short, that of a cache may not be.
        directory = os.open(device.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._socket.bind(f"/proc/self/fd/{directory}/{device.name}")
        finally:
            os.close(directory)
        device.chmod(0o666)
        self._thread = threading.Thread(target=self._serve, name="syslog", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                datagram = self._socket.recv(MAX_DATAGRAM)
            except OSError:
                return
            if not datagram:
                return
            line = _PRIORITY.sub(b"", datagram).rstrip(b"\0\n").replace(b"\n", b"\\n")
            self._file.write(line + b"\n")

    def stop(self) -> None:
        """Stop listening."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()
        self._file.close()
