"""A path for a listening unix socket: cleared if no process listens there, refused if in use.

bind(2) fails on a socket file that a dead process left behind, and libmilter takes the place
of a socket on which another process listens without a word. Both of our listening sockets, the
milter's and the engine's, are therefore opened after :func:`clear_path`.
"""

from __future__ import annotations

import os
import socket
import stat

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.syntax.endpoint import MAX_UNIX_PATH


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


def listen(path: str, backlog: int) -> socket.socket:
    """A listening unix socket that only our own user may connect to (mode 0600).

    Raises:
        SocketError: see :func:`clear_path`; or it cannot be made.
    """
    clear_path(path)
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
