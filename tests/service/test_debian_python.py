"""The unit tests on the Python of the Debian that comes next, since that one has Postfix 3.11.

``PYTHON_RELEASES=testing`` does so, as ``make test-long`` does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.debian import AUTHORITIES, BUILD, Debian, Packages
from tests.lab.errors import LabUnavailable
from tests.lab.fixtures import unavailable
from tests.support.paths import REPOSITORY

pytestmark = [
    pytest.mark.alone,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("PYTHON_RELEASES" not in os.environ, reason="make test-long does so"),
]

RELEASES = os.environ.get("PYTHON_RELEASES", "testing").split(",")

NEEDED = ("dmsetup", "e2fsprogs", "iproute2", "mount", "openssl", "procps")
"""Packages with programs that the unit tests start, beside those that the build needs."""


@pytest.mark.parametrize("release", RELEASES)
def test_the_unit_tests_pass_on_the_python_of_a_debian(release: str, tmp_path: Path) -> None:
    try:
        with Packages(tmp_path).debian(release) as debian, _devices(debian):
            debian.install(*BUILD, *NEEDED)
            shutil.copy(f"/{AUTHORITIES}", debian.root / AUTHORITIES)
            source = debian.root / "srv/source"
            subprocess.run(["git", "clone", "-q", f"file://{REPOSITORY}", source], check=True)
            debian.run("python3", "-m", "venv", "/srv/venv")
            python = "/srv/venv/bin/python"
            install = ("-m", "pip", "install", "-q", "-e", "/srv/source[dev]")
            debian.run(python, *install, PIP_CERT=f"/{AUTHORITIES}")
            tests = ("-q", "-n", "2", "--rootdir=/srv/source", "/srv/source/tests/unit")
            said = debian.run("sh", "-c", f"cd /srv/source && {python} -m pytest {' '.join(tests)}")
    except LabUnavailable as error:
        unavailable(error)
    last = said.strip().splitlines()[-1]
    assert "passed" in last
    assert "skipped" not in last, "a tool is missing that a test needs"


@contextmanager
def _devices(debian: Debian) -> Iterator[None]:
    """The devices of this machine, terminals included, while something runs in it."""
    place = debian.root / "dev"
    subprocess.run(["mount", "--rbind", "--make-rslave", "/dev", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--recursive", place], check=True)
