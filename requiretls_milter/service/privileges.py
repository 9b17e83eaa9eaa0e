"""From root to an unprivileged user, where no service manager does it.

What needs root is done first: directories that are missing are made, as the systemd unit makes
them. Then the process becomes the user for good, before it opens a file or socket: the sockets,
the store and the log belong to that user, and whatever is lost later can be made again. Nothing of
root's is opened by a name in a directory of the user's, where a link could lead elsewhere.

A directory is made only if it is missing and its parent is root's alone.
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from requiretls_milter.config import Config
from requiretls_milter.errors import RequiretlsMilterError

UMASK = 0o077
"""As in the unit: what the service makes is its own; sockets and log get their own modes."""

SOCKETS_MODE = 0o755
"""Of a directory of sockets: the MTA has to come to the milter's."""

PRIVATE_MODE = 0o750
"""Of the directory of the store, and of the log."""

AS_ROOT = (
    "the service runs as root: whoever breaks into it by a hostile reply or header has this host. "
    "Start it with --user requiretls-milter --group requiretls-milter"
)
"""The warning of a service that was started as root and stays so."""

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
"""prctl(2): no program that is started later has more rights, whatever bits its file has."""

_PRIVILEGES = ("CapPrm", "CapEff", "CapAmb")
"""Sets of capabilities in /proc/self/status that have to be empty."""


class PrivilegeError(RequiretlsMilterError):
    """The process cannot become the user that was named; the text says why."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A user with its groups, as whom the service runs."""

    name: str
    user: int
    group: int
    groups: tuple[int, ...]

    @classmethod
    def find(cls, user: str, group: str) -> Identity:
        """Look a user and a group up.

        Args:
            user: name or number.
            group: name or number; "" for the user's own.

        Raises:
            PrivilegeError: there is none, or this process may not become it.
        """
        entry = _user(user)
        if entry.pw_uid == 0:
            raise PrivilegeError(f"--user {user} is root: name a user without privileges")
        number = _group(group) if group else entry.pw_gid
        if number == 0:
            raise PrivilegeError("the group is root's: name another one with --group")
        ours = (os.geteuid(), os.getegid())
        if ours[0] != 0 and ours != (entry.pw_uid, number):
            raise PrivilegeError(f"only root can become {user}: start as root, or without --user")
        groups = tuple(sorted({number, *os.getgrouplist(entry.pw_name, number)}))
        return cls(entry.pw_name, entry.pw_uid, number, groups)

    @property
    def is_ours(self) -> bool:
        """Whether this process has become the user already."""
        return os.geteuid() == self.user

    def make_directories(self, config: Config, log_file: str) -> None:
        """Make the directories that are missing for sockets, store and log; as root.

        Args:
            config: names the sockets and the store.
            log_file: the log; "" for none.

        Raises:
            PrivilegeError: one cannot be made.
        """
        sockets = [config.engine.socket]
        if config.milter.socket.family == "unix":
            sockets.append(config.milter.socket.path)
        private = [config.store.url.path] if config.store.url.kind == "sqlite" else []
        if log_file:
            private.append(log_file)
        self._make(sockets, SOCKETS_MODE)
        self._make(private, PRIVATE_MODE)

    def _make(self, files: Iterable[str], mode: int) -> None:
        for directory in dict.fromkeys(Path(file).parent for file in files):
            if not directory.exists():
                self._make_one(directory, mode)

    def _make_one(self, directory: Path, mode: int) -> None:
        parent = directory.parent.resolve()
        if not _is_roots(parent):
            return  # not for root to make; what needs it will say that it is missing
        directory = parent / directory.name
        try:
            directory.mkdir(mode)
            os.chown(directory, self.user, self.group, follow_symlinks=False)
            directory.chmod(mode)
        except OSError as error:
            raise PrivilegeError(f"cannot make {directory}: {error.strerror}") from error

    def become(self) -> None:
        """Become the user, for good: no call gets root back. Before any fork or thread.

        Raises:
            PrivilegeError: the process is, or could be, more than that user.
        """
        try:
            os.setgroups(self.groups)
            os.setresgid(self.group, self.group, self.group)
            os.setresuid(self.user, self.user, self.user)
        except OSError as error:
            raise PrivilegeError(f"cannot become {self.name}: {error.strerror}") from error
        _set(_PR_SET_NO_NEW_PRIVS, 1)
        # As exec(2) leaves a process that a service manager started as this user: otherwise its
        # processes could not read each other's figures in /proc.
        _set(_PR_SET_DUMPABLE, 1)
        self._prove()
        self._find_program()

    def _prove(self) -> None:
        """See that nothing of root is left, and that the way back is closed."""
        has = (os.getresuid(), os.getresgid(), set(os.getgroups()))
        if has != ((self.user,) * 3, (self.group,) * 3, set(self.groups)):
            raise PrivilegeError(f"this process did not become {self.name}: it has {has}")
        for way, call in (("setuid", os.setuid), ("setgid", os.setgid)):
            try:
                call(0)
            except PermissionError:
                continue
            raise PrivilegeError(f"{way}(2) gives root back to {self.name}")
        left = [name for name, bits in _capabilities() if bits]
        if left:
            raise PrivilegeError(f"{self.name} has capabilities of root: {', '.join(left)}")

    def _find_program(self) -> None:
        """See that the user can read this program, of which parts are read only when needed."""
        for part in (os.__file__, __file__):
            if not os.access(part, os.R_OK):
                raise PrivilegeError(
                    f"{self.name} cannot read {part}: install the program where every user may "
                    "read it, such as /opt/requiretls-milter"
                )


def _set(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise PrivilegeError(f"prctl({option}): {os.strerror(ctypes.get_errno())}")


def _capabilities() -> Iterable[tuple[str, int]]:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in _PRIVILEGES:
            yield name, int(value, 16)


def _is_roots(directory: Path) -> bool:
    """Whether nobody but root can put anything into a directory, or another one in its place.

    Args:
        directory: without symbolic links.
    """
    for place in (directory, *directory.parents):
        try:
            status = place.lstat()
        except OSError:
            return False
        is_open = bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
        # In a directory such as /tmp nobody else can move what is root's.
        is_sticky = place != directory and status.st_mode & stat.S_ISVTX
        if status.st_uid != 0 or (is_open and not is_sticky):
            return False
    return True


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise PrivilegeError(f"there is no user {name}: make one, or name another one") from None


def _group(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise PrivilegeError(f"there is no group {name}: make one, or name another one") from None
