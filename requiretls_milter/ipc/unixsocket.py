"""The file of a listening unix socket: made, watched and removed.

bind(2) fails on a socket file that a dead process left behind, and libmilter takes the place
of a socket on which another process listens without a word. Both of our listening sockets, the
milter's and the engine's, are therefore opened after :func:`clear_path`.

A listening socket does not notice that its file is removed, by a cleaner of temporary directories
or by hand: no client finds it any more. A :class:`SocketGuard` notices, and has another one made. A
file is ours if it has the inode that the kernel made for us: another program's is never removed.

Log lines, with keys that stay as they are: ``event=socket_lost`` (with ``socket`` and ``found``),
``event=socket_not_restored`` (with ``error``), ``event=socket_restored``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.syntax.endpoint import MAX_UNIX_PATH

LOOK = 1.0
"""Seconds between two looks at whether a socket's file is still there."""


class SocketError(RequiretlsMilterError):
    """A listening socket cannot be opened; the text says which and why.

    The process concludes that it cannot serve with this configuration.
    """


def clear_path(path: str, longest: int = MAX_UNIX_PATH) -> None:
    """Make way for a unix socket: one that a dead process left behind is removed.

    Args:
        path: of the socket.
        longest: bytes that the path may have.

    Raises:
        SocketError: something else stands there, another process listens, the path is too
            long, or there is no directory for it.
    """
    if len(os.fsencode(path)) > longest:
        raise SocketError(f"cannot open {path}: a socket's path has at most {longest} bytes")
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise SocketError(f"cannot open {path}: there is no directory {directory}")
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketError(f"cannot open {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise SocketError(f"cannot open {path}: something that is no socket stands there")
    if _is_listening(path):
        raise SocketError(f"cannot open {path}: another process listens there")
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketError(
            f"cannot open {path}: a socket left behind cannot be removed: {error.strerror}"
        ) from error


def _is_listening(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)
        try:
            caller.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False  # left behind, or just removed
        except BlockingIOError:
            return True  # its queue is full
        except OSError as error:
            raise SocketError(f"cannot open {path}: {error.strerror}") from error
    return True


def listen(path: str, backlog: int, longest: int = MAX_UNIX_PATH) -> socket.socket:
    """A listening unix socket that only our own user may connect to (mode 0600).

    Args:
        path: of the socket.
        backlog: connections that may wait to be accepted.
        longest: bytes that the path may have.

    Raises:
        SocketError: see :func:`clear_path`; or it cannot be made.
    """
    clear_path(path, longest)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise SocketError(f"cannot open {path}: {error.strerror}") from error
    return listener


@dataclass(frozen=True, slots=True)
class SocketFile:
    """The file of a socket that this service has made.

    Its inode number is given to no other file as long as the socket is open: the kernel keeps the
    inode, whether or not a path leads to it.
    """

    path: str
    device: int
    inode: int

    @classmethod
    def at(cls, path: str) -> SocketFile:
        """The file that was just made.

        Raises:
            SocketError: it is gone already.
        """
        try:
            status = os.lstat(path)
        except OSError as error:
            raise SocketError(f"cannot open {path}: {error.strerror}") from error
        return cls(path, status.st_dev, status.st_ino)

    def found(self) -> str:
        """What is at the path: "" if it is this file, otherwise a few words for the log."""
        try:
            status = os.lstat(self.path)
        except FileNotFoundError:
            return "nothing"
        except OSError as error:
            return str(error.strerror)
        if (status.st_dev, status.st_ino) == (self.device, self.inode):
            return ""
        return "another socket" if stat.S_ISSOCK(status.st_mode) else "no socket"

    def remove(self) -> None:
        """Remove it, unless the path leads to something else; an error is not one of the caller."""
        if not self.found():
            with contextlib.suppress(OSError):
                os.unlink(self.path)


class SocketGuard:
    """Has a socket's file made anew when it is gone.

    While another process listens at the path, or it has no directory, each look is another attempt.

    Args:
        file: of the socket that is open now.
        make: opens another socket at the path; raises SocketError.
        lost: is called once for each loss.
        log: of the process that guards.
    """

    def __init__(
        self,
        file: SocketFile,
        make: Callable[[], SocketFile],
        lost: Callable[[], None],
        log: Any,
    ) -> None:
        self.file = file
        self.in_place = True
        """Whether a client finds the socket, by the last look."""
        self._make = make
        self._lost = lost
        self._log = log
        self._error = ""

    def look(self) -> None:
        """See whether the file is there, and make another one if it is not."""
        found = self.file.found()
        if not found:
            self.in_place = True
            return
        if self.in_place:
            self.in_place = False
            self._error = ""
            self._log.error("socket_lost", socket=self.file.path, found=found)
            self._lost()
        try:
            self.file = self._make()
        except SocketError as error:
            if str(error) != self._error:
                self._error = str(error)
                self._log.error("socket_not_restored", error=self._error)
            return
        self.in_place = True
        self._log.warning("socket_restored", socket=self.file.path)
