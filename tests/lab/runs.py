"""Directories of a run: below a root's ``/lab``, gone with the lab that made them.

A lab that is killed cannot remove its own, so the next one does: a directory whose lock nobody
holds belongs to nobody (the kernel lets go of a lock when its holder dies).
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.errors import LabError

_TEMPORARY = "requiretls-lab-"


@dataclass(frozen=True)
class Run:
    """One such directory."""

    outside: Path
    inside: str
    """As a process that is chrooted to the root sees it; short, for unix sockets in it."""
    lock: int

    def remove(self) -> None:
        """Remove it and all that is in it."""
        shutil.rmtree(self.outside, ignore_errors=True)
        os.close(self.lock)


def make(root: Path) -> Run:
    """Make a new one in *root*, and remove those that killed labs have left there."""
    with _guarded(root / "lab"):
        return _make(root / "lab", "")


def make_temporary() -> Run:
    """Make one where temporary files are, for what is not in any root."""
    home = Path(tempfile.gettempdir())
    with _guarded(home):
        return _make(home, _TEMPORARY)


@contextmanager
def _guarded(home: Path) -> Iterator[None]:
    """Keep other labs from sweeping between mkdir and lock."""
    guard = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield
    finally:
        os.close(guard)


def _make(home: Path, prefix: str) -> Run:
    for path in home.glob(f"{prefix}*"):
        lock = _take(path)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
    path = home / f"{prefix}{secrets.token_hex(3)}"
    path.mkdir(mode=0o755)
    path.chmod(0o755)  # whatever the umask
    mine = _take(path)
    if mine is None:
        raise LabError(f"cannot lock {path}")
    return Run(path, f"/lab/{path.name}", mine)


def _take(path: Path) -> int | None:
    """Lock a directory; None if another lab holds it or removes it now, or another user has it."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    if os.fstat(lock).st_uid != os.geteuid():
        os.close(lock)
        return None
    return lock
