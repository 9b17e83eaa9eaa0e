"""Packages of other commits: their files, and what they know."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import REPOSITORY

PACKAGE = "requiretls_milter"


class RevisionError(Exception):
    """There is no such commit, or what it has cannot be measured."""


@contextlib.contextmanager
def tree_of(revision: str) -> Iterator[Path]:
    """A directory with the package of a commit, and no tests: those of this tree measure it."""
    done = subprocess.run(
        ["git", "archive", "--format=tar", revision, PACKAGE],
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise RevisionError(done.stderr.decode(errors="replace").strip())
    with tempfile.TemporaryDirectory(prefix="rtls-against-") as name:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(name, filter="data")
        yield Path(name)


def environment(tree: Path) -> dict[str, str]:
    """For a process, started in *tree*, that imports the package of it, and the tests of ours."""
    return {**os.environ, "PYTHONPATH": f"{tree}:{REPOSITORY}"}


@functools.cache
def known_limits(tree: Path) -> frozenset[str]:
    """The keys of ``[limits]`` that the package of a tree knows."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import json; from requiretls_milter.config import Limits; "
            "print(json.dumps(list(Limits.model_fields)))",
        ],
        cwd=tree,
        env=environment(tree),
        capture_output=True,
        text=True,
        check=True,
    )
    return frozenset(json.loads(done.stdout))
