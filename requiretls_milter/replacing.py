"""Replaces a file that others may be reading: they see the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

USUAL_MODE = 0o666
"""Of a new file, less what the umask takes away: as open(3) makes one."""


@contextlib.contextmanager
def replacement(path: Path, *, mode: int = USUAL_MODE) -> Iterator[BinaryIO]:
    """Write a file that takes the place of an earlier one when the block ends.

    Args:
        path: the file. A symbolic link is replaced, not the file to which it leads.
        mode: with which the new file is made, less what the umask takes away. It holds from the
            first octet on: 0o600 for what has secrets.

    Yields:
        The new file, in which nothing is yet. If the block or the replacement fails, the new file
        is removed, and the earlier one is still there.

    Raises:
        OSError: it cannot be written.
    """
    # Of random name, and only new: another user of the directory may have put a link there.
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    with contextlib.ExitStack() as on_failure:
        with open(new, "xb", opener=functools.partial(os.open, mode=mode)) as file:
            on_failure.callback(_remove, new)
            yield file
        new.replace(path)
        on_failure.pop_all()


def replace(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Put a file in the place of an earlier one.

    Args:
        path: the file.
        content: all of it.
        mode: its permissions, whatever the umask; None for those of a new file.

    Raises:
        OSError: it cannot be written; the earlier one is still there.
    """
    with replacement(path) as file:
        if mode is not None:
            os.fchmod(file.fileno(), mode)
        file.write(content)


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink()
