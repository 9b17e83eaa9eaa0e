"""The users and groups that the configuration names, and that this host may not have."""

from __future__ import annotations

import difflib
import grp
import pwd
from collections.abc import Callable, Iterable, Iterator

from requiretls_milter.config import Milter
from requiretls_milter.syntax.text import quoted


def missing_accounts(milter: Milter) -> list[tuple[str, str]]:
    """Each key of ``[milter]`` whose user or group is not there, and what is wrong with it."""
    return [*_missing_user(milter.socket_owner), *_missing_group(milter.socket_group)]


def _missing_user(name: str) -> Iterator[tuple[str, str]]:
    if not _is_there(name, pwd.getpwnam):
        yield "socket_owner", _sentence("user", name, (entry.pw_name for entry in pwd.getpwall()))


def _missing_group(name: str) -> Iterator[tuple[str, str]]:
    if not _is_there(name, grp.getgrnam):
        yield "socket_group", _sentence("group", name, (entry.gr_name for entry in grp.getgrall()))


def _is_there(name: str, look_up: Callable[[str], object]) -> bool:
    if not name or name.isdecimal():
        return True
    try:
        look_up(name)
    except KeyError:
        return False
    return True


def _sentence(kind: str, name: str, there: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(there), n=1)
    key = {"user": "socket_owner", "group": "socket_group"}[kind]
    hint = f"write {key} = {quoted(near[0])}" if near else "install the MTA first"
    return f"there is no {kind} {quoted(name)} on this host, so that nothing can start; {hint}"
