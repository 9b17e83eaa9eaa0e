"""What keeps a user from a file, by the permissions of the file and of the directories above it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

READ, WRITE = 0o4, 0o2
PERMISSIONS = {READ: "read", WRITE: "write"}
"""What the bits of a mode permit."""


def closed_to(path: Path, top: Path, uid: int, gids: frozenset[int], bit: int) -> str:
    """Say what keeps a user from *path*, from directory *top* down; "" if nothing does.

    Args:
        path: a file or socket.
        top: a directory above it that is open to all.
        uid: of the user.
        gids: all groups of the user.
        bit: what is wanted: a key of :data:`PERMISSIONS`.
    """
    try:
        relative = path.relative_to(top)
        steps = [top.joinpath(*relative.parts[:n]) for n in range(1, len(relative.parts))]
    except ValueError:
        steps = []
    try:
        for directory in steps:
            if not _may(directory.stat(), uid, gids, 0o1):
                return f"no search permission on {directory}"
        if not _may(path.stat(), uid, gids, bit):
            mode = stat.S_IMODE(path.stat().st_mode)
            return f"no {PERMISSIONS[bit]} permission on {path} (mode {mode:04o})"
    except OSError as problem:
        return f"{problem.filename}: {problem.strerror}"
    return ""


def _may(status: os.stat_result, uid: int, gids: frozenset[int], bit: int) -> bool:
    """Whether the permissions of a file give *bit* (4 read, 2 write, 1 search) to a user."""
    if uid == 0:
        return True
    shift = 6 if status.st_uid == uid else 3 if status.st_gid in gids else 0
    return bool(status.st_mode >> shift & bit)


def identity(user: str, root: Path) -> tuple[int, frozenset[int]] | None:
    """Look up a user's number and groups in the passwd(5) and group(5) that Postfix sees."""
    for fields in _colon_file(root / "etc/passwd", 4):
        if fields[0] == user:
            uid, gid = int(fields[2]), int(fields[3])
            break
    else:
        return None
    groups = {gid}
    for fields in _colon_file(root / "etc/group", 4):
        if user in fields[3].split(","):
            groups.add(int(fields[2]))
    return uid, frozenset(groups)


def _colon_file(path: Path, at_least: int) -> Iterator[list[str]]:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= at_least and fields[2].isdecimal():
            yield fields
