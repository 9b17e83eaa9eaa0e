"""Puts a new text in the place of a configuration file, whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from requiretls_milter.replacing import replacement

NEW_FILE_MODE = 0o644
"""Of a file that was not there; as most files of /etc."""

_PRIVATE_MODE = 0o600
"""While it is written: there may be a password in it, which the former file's mode protects."""


def write(path: Path, content: bytes) -> Path | None:
    """Replace a file; a reader sees the former text or the new one.

    Owner, group and permissions stay. The former file stays beside it as ``FILE.bak``, itself: with
    its owner and permissions, since there may be a password in it.

    Args:
        path: the file; a symbolic link stays, and the file to which it leads is replaced.
        content: its new content.

    Returns:
        The path of the former file; None if there was none.

    Raises:
        OSError: nothing was changed.
    """
    target = path.resolve()
    try:
        before = target.stat()
    except FileNotFoundError:
        before = None
    with replacement(target, mode=_PRIVATE_MODE) as file:
        file.write(content)
        if before is None:
            os.fchmod(file.fileno(), NEW_FILE_MODE)
        else:
            os.fchown(file.fileno(), before.st_uid, before.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
        file.flush()
        os.fsync(file.fileno())
        backup = _keep(target) if before is not None else None
    _sync(target.parent)
    return backup


def _keep(file: Path) -> Path:
    """Give a file its second name, in the place of one that was kept before."""
    backup = file.with_name(f"{file.name}.bak")
    backup.unlink(missing_ok=True)
    backup.hardlink_to(file)
    return backup


def _sync(directory: Path) -> None:
    """Have the names in a directory outlive a crash."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
