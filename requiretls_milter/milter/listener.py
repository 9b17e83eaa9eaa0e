"""The file and address of the milter's socket, around what libmilter itself does with it.

libmilter takes over a socket that another process listens on, without a word, and does not say
why it cannot open one.
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

from requiretls_milter.ipc.unixsocket import SocketError

MAX_UNIX_PATH = 106
"""Octets of a unix socket's path that libmilter takes: one less than unix(7) does."""


def listening() -> set[int]:
    """Descriptors of this process on which a socket listens."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        descriptor = int(entry.name)
        with contextlib.suppress(OSError):  # closed meanwhile, or no socket
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as copy:
                if copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    found.add(descriptor)
    return found


def check_address(family: str, host: str, port: int) -> None:
    """Bind once, since libmilter would not say what is wrong.

    Raises:
        SocketError: the address cannot be bound; with the reason.
    """
    kind = socket.AF_INET6 if family == "inet6" else socket.AF_INET
    try:
        with socket.socket(kind, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except OSError as error:
        raise SocketError(f"cannot open {family}:{port}@{host}: {error.strerror}") from error


def set_permissions(path: str, *, owner: str, group: str, mode: int) -> None:
    """Give a unix socket its *owner* and *group* (names or numbers; "": as they are) and *mode*.

    Raises:
        SocketError: there is no such user or group.
        OSError: it may not be changed.
    """
    try:
        user_id = _number(owner, lambda name: pwd.getpwnam(name).pw_uid)
    except KeyError:
        raise SocketError(f"cannot open {path}: there is no user {owner}") from None
    try:
        group_id = _number(group, lambda name: grp.getgrnam(name).gr_gid)
    except KeyError:
        raise SocketError(f"cannot open {path}: there is no group {group}") from None
    # The group comes before the mode, which would let another one in meanwhile; the owner
    # comes last, since a file that was given away is not ours to change.
    os.chown(path, -1, group_id)
    os.chmod(path, mode)
    os.chown(path, user_id, -1)


def _number(name: str, look_up: Callable[[str], int]) -> int:
    """The number that chown(2) takes; -1 leaves as it is."""
    if not name:
        return -1
    return int(name) if name.isdecimal() else look_up(name)
