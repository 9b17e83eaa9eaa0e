"""A file that others read while it is written: at each moment the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def replace(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Put a file in the place of an earlier one.

    Args:
        path: the file.
        content: all of it.
        mode: its permissions; None for those of a new file.

    Raises:
        OSError: it cannot be written; the earlier one is still there.
    """
    # Of random name, and only new: another user of the directory may have put a link there.
    whole = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    try:
        with whole.open("xb") as file:
            file.write(content)
            if mode is not None:
                os.fchmod(file.fileno(), mode)
        whole.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            whole.unlink()
        raise
