"""The file whose lock keeps a second instance away from the engine's socket.

The file is never removed: an instance that removes it at its end could remove the file that
the next instance has already locked. If a cleaner removes it, it is made and locked anew.

Log lines, with keys that stay as they are: ``event=lock_lost`` (with ``path``),
``event=lock_not_restored`` (with ``error``).
"""

from __future__ import annotations

import fcntl
import os

from requiretls_milter.ipc.unixsocket import SocketError
from requiretls_milter.telemetry import log

_log = log.get_logger("supervisor")


class LockFile:
    """The file, open and locked.

    Args:
        engine_socket: ``engine.socket``; the file stands beside it.

    Raises:
        SocketError: another instance holds it, or it cannot be made.
    """

    def __init__(self, engine_socket: str) -> None:
        self.path = f"{engine_socket}.lock"
        self._descriptor = _locked(self.path)
        self._lost = False

    def keep(self) -> None:
        """Lock another file if this one is gone from its path."""
        if self._in_place():
            return
        if not self._lost:
            self._lost = True
            _log.error("lock_lost", path=self.path)
        try:
            descriptor = _locked(self.path)
        except SocketError as error:
            if os.path.isdir(os.path.dirname(self.path)):
                _log.error("lock_not_restored", error=str(error))
            return
        self.close()
        self._descriptor = descriptor
        self._lost = False

    def _in_place(self) -> bool:
        try:
            there = os.lstat(self.path)
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._descriptor))

    def close(self) -> None:
        """Close it, here; the lock goes with the last process that has it open."""
        os.close(self._descriptor)


def _locked(path: str) -> int:
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise SocketError(
            f"there is no directory {directory} for the engine's socket (engine.socket): make it, "
            "with systemd's RuntimeDirectory=, with install -d, or as root with serve --user"
        )
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SocketError(f"cannot open {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise SocketError(f"{path}: another instance holds this lock") from error
    return descriptor
