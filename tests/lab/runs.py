"""Directories of a run: below a root's ``/lab``, gone with the lab that made them.

A lab that is killed cannot remove its own, so the next one does: a directory whose lock nobody
holds belongs to nobody (the kernel lets go of a lock when its holder dies).
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.lab.errors import LabError


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
    home = root / "lab"
    guard = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)  # nobody sweeps between mkdir and lock
        for path in home.iterdir():
            lock = _take(path)
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)
        path = home / secrets.token_hex(3)
        path.mkdir(mode=0o755)
        mine = _take(path)
        if mine is None:
            raise LabError(f"cannot lock {path}")
        return Run(path, f"/lab/{path.name}", mine)
    finally:
        os.close(guard)


def _take(path: Path) -> int | None:
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
