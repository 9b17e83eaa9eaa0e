"""The files by which others find the service: looked at every second, made anew if they are gone.

A cleaner of temporary directories, or an administrator, may remove the file of the milter's socket.
The socket goes on to listen, and no MTA finds it any more. So the supervisor looks whether
the file is there, opens another socket if it is not, and passes that to the workers: open
connections go on. The engine does the same with its own socket (:mod:`.engine.server`).

If the whole directory is gone and the service manager makes it at each start
(``RuntimeDirectory=`` of systemd.exec(5)), only a new start of the service helps.

Log line, with keys that stay as they are: ``event=runtime_directory_gone`` (with ``path``);
:mod:`requiretls_milter.ipc.unixsocket` has the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from requiretls_milter.ipc.unixsocket import LOOK, SocketFile, SocketGuard
from requiretls_milter.milter.listener import Listener
from requiretls_milter.telemetry import log

if TYPE_CHECKING:
    from requiretls_milter import config
    from requiretls_milter.service.children import Children
    from requiretls_milter.service.lockfile import LockFile

DIRECTORY_GONE = 5.0
"""Seconds without a runtime directory until the service ends, in case that it is only replaced."""

_log = log.get_logger("supervisor")


class Sockets:
    """Keeps the milter's socket and the lock at their places.

    Args:
        listener: the milter's socket.
        lock: of this instance.
        children: workers get another socket when there is one.
        settings: gives the section ``[milter]`` that is in force.
        lost: is called once for each loss of the milter's socket.
        environ: has the runtime directories of the service manager.
    """

    def __init__(
        self,
        listener: Listener,
        lock: LockFile,
        children: Children,
        settings: Callable[[], config.Milter],
        lost: Callable[[], None],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._listener = listener
        self._lock = lock
        self._children = children
        self._settings = settings
        self._guard: SocketGuard | None = None
        if listener.file is not None:
            self._guard = SocketGuard(listener.file, self._open_anew, lost, _log)
        self._runtime = tuple(filter(None, environ.get("RUNTIME_DIRECTORY", "").split(":")))
        self._next_look = 0.0
        self._gone_since: float | None = None

    @property
    def in_place(self) -> bool:
        """Whether an MTA finds the milter's socket, by the last look."""
        return self._guard is None or self._guard.in_place

    def step(self, now: float) -> bool:
        """Look, if it is time; returns whether the service should be started anew."""
        if now < self._next_look:
            return False
        self._next_look = now + LOOK
        if self._guard is not None:
            self._guard.look()
        self._lock.keep()
        return self._needs_start(now)

    def _needs_start(self, now: float) -> bool:
        gone = [path for path in self._runtime if not os.path.isdir(path)]
        if not gone:
            self._gone_since = None
            return False
        if self._gone_since is None:
            self._gone_since = now
        if now - self._gone_since < DIRECTORY_GONE:
            return False
        _log.error("runtime_directory_gone", path=gone[0])
        return True

    def _open_anew(self) -> SocketFile:
        file = self._listener.open_anew(self._settings())
        for worker in self._children.workers:
            worker.send("socket", descriptor=self._listener.fileno())
        return file

    def remove(self) -> None:
        """Remove the file of the milter's socket, if it is still ours."""
        if self._listener.file is not None:
            self._listener.file.remove()
