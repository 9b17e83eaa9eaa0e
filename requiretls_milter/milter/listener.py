"""The milter's listening socket.

libmilter opens the socket itself, and does so carelessly: it takes over a unix socket on
which another process listens, does not say why it cannot open one, and has no call to
stop accepting. This module does what is missing around it. With :mod:`.adapter` it is the
only one that knows pymilter.

The supervisor opens the socket before it forks; engine and workers inherit it. Each worker
accepts from it, the engine lets go of it.

Log line, with keys that stay as they are: ``event=listening``.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import milter

from requiretls_milter.ipc import unixsocket
from requiretls_milter.ipc.unixsocket import SocketError, SocketFile, clear_path
from requiretls_milter.syntax.endpoint import MAX_UNIX_PATH
from requiretls_milter.telemetry.log import get_logger

if TYPE_CHECKING:
    from requiretls_milter import config

BACKLOG = 128
"""Connections that wait to be accepted: a burst of as many SMTP sessions."""

MAX_PATH = MAX_UNIX_PATH - 1
"""Bytes of a unix socket's path that libmilter takes: one less than the kernel does."""

_log = get_logger("milter.listener")


class Listener:
    """The listening socket, as one process has it.

    The file descriptor belongs to libmilter, which never tells it: it is the one
    that appeared when libmilter opened the socket.

    Attributes:
        file: of a unix socket; None for TCP.
    """

    def __init__(self, descriptor: int, file: SocketFile | None = None) -> None:
        self._descriptor = descriptor
        self.file = file

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    @classmethod
    def open(cls, milter_config: config.Milter) -> Listener:
        """Have libmilter open the socket. Its callbacks must be registered.

        A unix socket gets its group and mode before any client can connect. One
        that a dead process left behind is removed; one on which a process listens is
        not. TCP sockets get TCP_NODELAY, which accepted connections inherit:
        libmilter does not set it, and Nagle's algorithm with delayed acknowledgements
        costs 40 ms for each message that is changed.

        Raises:
            SocketError: it cannot be opened.
        """
        where = milter_config.socket
        if where.family == "unix":
            clear_path(where.path, MAX_PATH)
        else:
            check_address(where.family, where.host, where.port)
        before = listening()
        mask = os.umask(0o177)  # only our own user, until group and mode are set
        try:
            milter.setconn(str(where))
            milter.setbacklog(BACKLOG)
            milter.opensocket(False)
            if where.family == "unix":
                _give(milter_config)
        except (milter.error, OSError) as error:
            raise SocketError(f"cannot open {where}: {error}") from error
        finally:
            os.umask(mask)
        opened = listening() - before
        if len(opened) != 1:
            raise SocketError(f"cannot open {where}: libmilter opened {len(opened)} sockets")
        descriptor = opened.pop()
        # All workers wait for the same connection and one gets it; the others must not
        # block in accept(2).
        os.set_blocking(descriptor, False)
        if where.family != "unix":
            with socket.socket(fileno=os.dup(descriptor)) as listener:
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        file = SocketFile.at(where.path) if where.family == "unix" else None
        _log.info("listening", socket=str(where))
        return cls(descriptor, file)

    def open_anew(self, milter_config: config.Milter) -> SocketFile:
        """Open another unix socket at the path, since the file of this one is gone.

        For the supervisor, which then passes it to the workers: see :meth:`replace`.

        Raises:
            SocketError: it cannot be opened.
        """
        path = milter_config.socket.path
        with unixsocket.listen(path, BACKLOG, MAX_PATH) as listener:
            try:
                _give(milter_config)
            except OSError as error:
                raise SocketError(f"cannot open {path}: {error.strerror}") from error
            listener.setblocking(False)
            self.file = SocketFile.at(path)
            os.dup2(listener.fileno(), self._descriptor)
        return self.file

    def replace(self, descriptor: int) -> None:
        """Accept from another socket, passed by the supervisor, in place of this one.

        libmilter polls the former one for up to 5 s; connections wait meanwhile. Those that are
        open go on.
        """
        os.dup2(descriptor, self._descriptor)
        os.close(descriptor)

    def stop_accepting(self) -> None:
        """Take no new connection in this process; open ones go on.

        libmilter has no call for this. Its descriptor is replaced by a socket that
        no client can reach; within 5 s libmilter notices.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unreachable:
            unreachable.bind("")  # an abstract address that the kernel chooses, unix(7)
            unreachable.listen(1)
            unreachable.setblocking(False)
            os.dup2(unreachable.fileno(), self._descriptor)

    def refuse_connections(self) -> None:
        """Have the kernel refuse new connections at once, for all processes.

        For the supervisor, when every worker has stopped accepting. libmilter in a
        worker still polls, for up to 5 s, the socket that it had, and thereby keeps
        it open; a client that connected now would never get an answer.
        libmilter does not notice the shutdown: poll(2) looks a descriptor up anew
        each time that it is woken.
        """
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._descriptor)) as copy:
            copy.shutdown(socket.SHUT_RDWR)


def _give(milter_config: config.Milter) -> None:
    """Give the unix socket to those whom the configuration names: see :func:`set_permissions`."""
    set_permissions(
        milter_config.socket.path,
        owner=milter_config.socket_owner,
        group=milter_config.socket_group,
        mode=int(milter_config.socket_mode, 8),
    )


def listening() -> set[int]:
    """File descriptors of this process that are listening sockets."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        descriptor = int(entry.name)
        with contextlib.suppress(OSError):  # closed meanwhile, or not a socket
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as copy:
                if copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    found.add(descriptor)
    return found


def check_address(family: str, host: str, port: int) -> None:
    """Bind an address for a moment, since libmilter would not say what is wrong with it.

    Raises:
        SocketError: the address cannot be bound; the text says why.
    """
    kind = socket.AF_INET6 if family == "inet6" else socket.AF_INET
    try:
        with socket.socket(kind, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except OSError as error:
        raise SocketError(f"cannot open {family}:{port}@{host}: {error.strerror}") from error


def set_permissions(path: str, *, owner: str, group: str, mode: int) -> None:
    """Give a unix socket its owner, group and mode.

    Args:
        path: the socket.
        owner: a user's name or number; "" leaves it as it is.
        group: a group's name or number; "" leaves it as it is.
        mode: permission bits.

    Raises:
        SocketError: there is no such user or group.
        OSError: the process may not change them.
    """
    try:
        user_id = _number(owner, lambda name: pwd.getpwnam(name).pw_uid)
    except KeyError:
        raise SocketError(f"cannot open {path}: there is no user {owner}") from None
    try:
        group_id = _number(group, lambda name: grp.getgrnam(name).gr_gid)
    except KeyError:
        raise SocketError(f"cannot open {path}: there is no group {group}") from None
    # The group comes before the mode, which would let the old group in meanwhile. The owner
    # comes last, since a file that was given away can no longer be changed.
    os.chown(path, -1, group_id)
    os.chmod(path, mode)
    os.chown(path, user_id, -1)


def _number(name: str, look_up: Callable[[str], int]) -> int:
    """The number that chown(2) takes; -1 changes nothing."""
    if not name:
        return -1
    return int(name) if name.isdecimal() else look_up(name)
