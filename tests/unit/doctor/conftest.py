"""An installation of Postfix, as far as its files are looked at."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.unit.doctor.examined import GID, OTHER, UID


@pytest.fixture
def root() -> Iterator[Path]:
    """What a Postfix in a container sees as /, with the milter's socket in its queue directory.

    Not pytest's own directory: a unix socket's path has at most 107 bytes.
    """
    with tempfile.TemporaryDirectory(prefix="rtls-") as name:
        root = Path(name)
        (root / "etc").mkdir()
        (root / "etc/passwd").write_text(f"root:x:0:0::/:\npostfix:x:{UID}:{GID}::/:\nbad line\n")
        (root / "etc/group").write_text(f"postfix:x:{GID}:\nreqtls:x:{OTHER}:x,postfix\n")
        directory = root / "var/spool/postfix/requiretls-milter"
        directory.mkdir(parents=True)
        for inner in (directory, *directory.parents[:3]):
            inner.chmod(0o755)  # whatever the umask
        with closing(socket.socket(socket.AF_UNIX)) as server:
            server.bind(str(directory / "milter.sock"))
        yield root
